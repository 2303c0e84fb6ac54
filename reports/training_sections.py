"""The sections of a report that stand on training runs and on a cube of the base model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from reports import panels, panels_base, pictures, tables
from reports.arms import Arm
from reports.base import Base
from reports.compare import gates_of, unlike
from reports.sections import Panel, Room, Said, Section, Table
from reports.switching import about_experts, effects_of, expert_table, signs
from reports.training_words import about_bands, about_base, about_distance, about_levels, about_spectrum, about_steps
from reports.words import brief, count, no_panels

if TYPE_CHECKING:
    from reports.report import Report

MOST_GATES = 6
BASE_KEY = ("base model", -1)


def base_section(base: Base, prefix: str = "") -> Section:
    """What the base model does."""
    found = [
        panels_base.coherence(base, prefix),
        *(panels_base.shares(base, s, prefix) for s in ("x0", "latent") if s in base.shares),
        *([panels_base.radial(base, prefix)] if base.spectrum is not None else []),
    ]
    guided = any(g > 1 for g in base.guidance)
    scales = " and ".join(f"{g:g}" for g in base.guidance)
    how = (
        f"with guidance (scale {scales}, as noted when they were made); the raw energy of early x0 overshoots under "
        "guidance, so coherence, not energy, tells when a band is decided" if guided else "without guidance"
    )  # fmt: skip
    note = (
        f"From {base.runs} generated samples of {base.prompts} prompts, {base.steps} steps each, {how}. A band is the "
        "part of the latent between two Gaussian blurs; band 0 holds the lowest frequencies. Coherence is the cosine, "
        "per band, between the picture predicted at a step and the finished one."
    )
    return Section(
        f"{prefix}base", "What the base model does", (about_bands(base), *about_loss(base)), (note,),
        tuple(panels.band_keys(len(base.decided))), tuple(found), (tables.decided(base),), nav="The base model",
    )  # fmt: skip


def about_loss(base: Base) -> list[Said]:
    """What the sampler alone costs, which no adapter is to blame for."""
    if base.kept is None:
        return []
    bands = ", ".join(
        f"{kept:.0%} in band {k}".replace("%", " %") for k, kept in enumerate(base.kept) if np.isfinite(kept)
    )
    claim = (
        f"With {base.steps} steps of this sampler even a perfect model’s pictures would have only this part of the "
        f"energy of the data: {bands}"
    )
    return [Said(claim, f"exact for Gaussian data of this spectrum; assumes {base.kept_why}", "loss")]


def level_section(report: Report, prefix: str = "") -> Section:
    """Validation error by noise level."""
    arms, pairs = report.arms, unlike(report.pairs)
    limits, scaled = panels.scales([pair.levels for pair in pairs])
    found: list[Panel] = [panels.level_errors(arms, prefix)]
    found += [panels.level_ratios(arms, pair, own, prefix) for pair, own in zip(pairs, limits, strict=True)]
    how = (
        " The panels after the first show the ratio of mean errors of one arm over another at the end of training, "
        "with 95 % intervals; below the line is better; filled where the difference holds after Holm’s correction "
        f"over all of them. {scaled}".rstrip() if pairs else ""
    )  # fmt: skip
    alike = no_panels([(p.arm.label, p.other.label) for p in report.pairs if p.identical])
    notes = (f"Every arm is measured on the same held-out samples with the same noise.{how}", alike)
    return Section(
        f"{prefix}levels", "Validation error per noise level", tuple(brief([about_levels(p) for p in pairs])),
        tuple(filter(None, notes)), keys_with_base(arms),
        tuple(found), nav="Noise levels", extra={"folded": [tables.levels(arms, report.pairs)]},
    )  # fmt: skip


def keys_with_base(arms: Sequence[Arm]) -> tuple[Any, ...]:
    """The key of figures that show the base model too."""
    return (*panels.arm_keys(arms), panels.style_key(*BASE_KEY))


def learning_section(report: Report, prefix: str = "") -> Section:
    """Learning curves and steps to a target."""
    arms, pairs = report.arms, unlike(report.pairs)
    first = [pair for pair in pairs if pair.other is report.reference]
    found = [panels.learning(arms, report.reference, prefix)]
    found += [panels.learning_ratio(first, prefix)] if first else []
    said = brief([about_steps(p) for p in pairs]) or [about_base(arms)]
    folded: list[Table] = [tables.speeds(report.pairs)] if report.pairs else []
    return Section(
        f"{prefix}learning", "Learning curves", tuple(said), keys=tuple(panels.arm_keys(arms)), panels=tuple(found),
        extra={"folded": folded},
    )  # fmt: skip


def gates_section(arms: Sequence[Arm], prefix: str = "", most: int = MOST_GATES) -> Section | None:
    """Gates of the FeRA arms and what each expert does; None where there are none."""
    found = [gates for arm in arms for gates in gates_of(arm)]
    if not found:
        return None
    noise = arms[0].runs[0].metrics.noise_level.values
    shown = [panels.gates(g, noise, i, prefix) for i, g in enumerate(found[:most])]
    switched = [effect for arm in arms for effect in effects_of(arm)]
    for i, one in enumerate(switched[:most]):
        title = f"{one.arm.label}, seed\N{NO-BREAK SPACE}{one.seed}: each expert switched off"
        shown.append(panels.specialisation(f"{prefix}expert-{i}", title, one.noise, one.effect, signs(one)))
    left = len(found) - min(len(found), most)
    notes = [
        "How FeRA shares its output among the experts, from the noisiest level to the cleanest, at the end of "
        "training. Equal shares everywhere would be plain LoRA. Experts have no common order between runs with a "
        "random start, so every run has its own panel."
    ]
    filled = f" {panels.FILLED}" * any(one.error is not None for one in switched)
    notes += [f"{EXPERTS} {panels.HEIGHTS}{filled}"] if switched else []
    foot = [f"{count(left, 'more run')} in the table."] if left else []
    return Section(
        f"{prefix}gates", "Gates and experts" if switched else "Gates over noise level",
        (about_experts(switched),) if switched else (), tuple(notes), (),
        tuple(shown), (tables.routing(found), *([expert_table(switched)] if switched else [])), nav="Gates",
        extra={"footnotes": foot},
    )  # fmt: skip


EXPERTS = (
    "What an expert does is measured by switching it off: the prediction with all experts minus the prediction with "
    "this one’s gate at 0, as energy per band, on held-out pictures at the end of training; an expert helps where the "
    "error grows without it, and harms where it shrinks."
)


def picture_section(arms: Sequence[Arm], room: Room, prefix: str = "") -> Section:
    """The image grid, and what the attribute reader says of it."""
    found, store = tables.attributes(arms), arms[0].runs[0].evaluation
    prompts, total = [str(prompt) for prompt in store.prompt.values], store.sizes["sample"]
    rows = pictures.rows(pictures.columns(arms), prompts, store.seed.values.tolist(), room.rows, room.size)
    some = f"The first {len(rows)} of {total} prompts, chosen by position alone. " if len(rows) < total else ""
    note = (
        f"{some}Within a row every model starts from the same noise. “Held-out” is a real picture with this caption "
        "that no training saw; each arm shows its first training seed."
    )
    return Section(
        f"{prefix}pictures", "Pictures", notes=(note,), tables=(found,) if found else (), kind="pictures",
        extra={"rows": rows},
    )  # fmt: skip


def spectrum_section(report: Report, prefix: str = "") -> Section:
    """Generated against held-out pictures, by band."""
    arms = report.arms
    return Section(
        f"{prefix}spectra", "Spectra of generated and held-out pictures", (about_spectrum(arms), about_distance(arms)),
        keys=keys_with_base(arms), panels=(panels.band_ratios(arms, prefix), panels.spectra(arms, prefix)),
        nav="Spectra", extra={"folded": [tables.bands(arms, report.pairs)]},
    )  # fmt: skip


def scrubber_section(arms: Sequence[Arm], prefix: str = "") -> Section | None:
    """x0 step by step beside its band energies, of the first run of each arm that kept it; None where none did."""
    kept = [(arm, arm.runs[0].evaluation) for arm in arms if "x0_image" in arm.runs[0].evaluation]
    if not kept:
        return None
    first = kept[0][1]
    steps, levels = first.x0_step.values, first.x0_noise_level.values
    same = [(arm, store) for arm, store in kept if np.array_equal(store.x0_step.values, steps)]
    named = [("base model", -1, first, "base"), *((arm.label, arm.style, store, "adapter") for arm, store in same)]
    sources = [
        (
            label, style, store.x0_image.sel(x0_source=source).transpose("x0_step", "y", "x", "rgb").values,
            store.x0_energy.sel(x0_source=source).transpose("x0_step", "band").values.astype(np.float64),
        )
        for label, style, store, source in named
    ]  # fmt: skip
    prompt, seed = str(first.prompt.values[0]), int(first.seed.values[0])
    made = pictures.scrubber(f"{prefix}scrubber", sources, steps, levels, prompt, seed)
    note = (
        "The picture that each model predicts at a step, from noise to the finished sample, and how its energy is "
        "spread over the bands: one prompt, one seed, the same noise for all."
    )
    return Section(f"{prefix}steps", "Step by step", notes=(note,), kind="scrubber", extra={"scrubber": made})


def training_sections(report: Report, room: Room, prefix: str = "") -> list[Section]:
    """Everything that runs tell, between the verdict and the cost."""
    arms, gates = report.arms, min(room.rows, MOST_GATES)
    found = [
        level_section(report, prefix), learning_section(report, prefix), gates_section(arms, prefix, gates),
        picture_section(arms, room, prefix), scrubber_section(arms, prefix) if room.rows > 2 else None,
        spectrum_section(report, prefix),
    ]  # fmt: skip
    return [section for section in found if section is not None]


def cost_section(arms: Sequence[Arm], prefix: str = "") -> Section:
    """Parameters, time and memory."""
    return Section(f"{prefix}cost", "Cost", tables=(tables.cost(arms),))
