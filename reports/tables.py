"""The tables of the report, as text in cells; the template only draws them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import numpy as np

from reports.arms import Arm
from reports.base import Base
from reports.budget import thousands
from reports.compare import Against, Gates, error_against_base
from reports.sections import Table
from reports.spectral import against_heldout, spectral_distance
from reports.statistics import CONFIDENCE, Array, Ratio, spread
from reports.words import capital, digits_of, signed, span, with_ends
from spectra.analysis import DECIDED

HOLDS = " *"
"""What marks a cell whose difference holds after correction over the cells of its table."""
STARRED = "* holds after Holm’s correction over all cells of its kind"


def with_span(ratio: Ratio) -> str:
    """A ratio as a change with its interval, for a cell; starred where it holds within its family of cells."""
    star = HOLDS if ratio.holds and np.isfinite(ratio.p_corrected) else ""
    return f"{signed(ratio.value, digits_of(ratio))} ({span(ratio)}){star}"


def plain_ratio(ratio: Ratio) -> str:
    """A ratio with its interval, for a cell."""
    if not np.isfinite(ratio.value):
        return "not reached"
    within = f"{ratio.low:.2f} to {ratio.high:.2f}" if ratio.bounded else "no interval"
    return f"{ratio.value:.2f} ({within})"


def summary(arms: Sequence[Arm], pairs: Sequence[Against], reference: Arm | None) -> Table:
    """All arms at one glance."""
    beside = {id(p.arm): p for p in pairs if p.other is reference}
    name = reference.label if reference else ""
    heads = ["arm", "seeds", "final validation error", "against base"]
    heads += [f"against {name}", f"steps to {name}’s final error, ratio"] if reference else []
    rows = []
    for arm in arms:
        cells = [arm.label, str(len(arm.runs)), f"{arm.errors().mean():.4g}", signed(error_against_base(arm).value)]
        pair = beside.get(id(arm))
        if reference:
            cells += beside_reference(pair) if pair else ["reference", "reference"]
        rows.append((*cells, with_ends(spectral_distance(arm))))
    base = float(arms[0].errors(at=0).mean())
    filler = ["–"] * (2 if reference else 0)
    distance = with_ends(spectral_distance(arms[0], "base"))
    rows.insert(0, ("base model", "–", f"{base:.4g}", "–", *filler, distance))
    return Table(
        "Summary of all arms; 95 % intervals in brackets; * holds after Holm’s correction over the arms",
        (*heads, "spectral distance"),
        tuple(rows),
    )


def beside_reference(pair: Against) -> list[str]:
    """The cells of an arm for its error and steps over the reference's."""
    return ["identical", "–"] if pair.identical else [with_span(pair.error), plain_ratio(pair.steps)]


def decided(base: Base) -> Table:
    """When each band is decided."""
    rows = []
    for band in base.decided:
        ends = [f"{end:g}" if np.isfinite(end) else "never" for end in (band.low, band.high)]
        where = "lowest" if band.band == 0 else f"{band.frequency:.2f} cycles/px"
        level = f"{band.noise_level:.3g}" if np.isfinite(band.noise_level) else "–"
        step = f"{band.step:g} ({ends[0]} to {ends[1]})" if np.isfinite(band.step) else f"never reaches {DECIDED}"
        rows.append((f"band {band.band}", where, step, level, f"{100 * band.share:.0f} %"))
    heads = ("band", "frequency", "decided at step", "noise level there", "share of the finished latent")
    return Table(f"{capital(base.estimand)}; 95 % interval in brackets", heads, tuple(rows))


def levels(arms: Sequence[Arm], pairs: Sequence[Against]) -> Table:
    """Every number of the per-level figure."""
    noise = arms[0].runs[0].metrics.noise_level.values
    heads = (
        "noise level",
        "base model",
        *(arm.label for arm in arms),
        *(f"{p.arm.label} / {p.other.label}" for p in pairs),
    )
    rows = []
    for k in np.argsort(-noise, kind="stable"):
        cells = [f"{noise[k]:.3g}", f"{arms[0].errors(at=0)[:, k].mean():.4g}"]
        cells += [f"{arm.errors()[:, k].mean():.4g}" for arm in arms]
        rows.append((*cells, *(with_span(pair.levels[k]) for pair in pairs)))
    caption = f"Mean validation error per noise level, and changes with 95 % intervals; {STARRED}"
    return Table(caption, heads, tuple(rows))


def speeds(pairs: Sequence[Against]) -> Table:
    """Steps to the other arm's final error."""
    rows = tuple(
        (p.arm.label, p.other.label, plain_ratio(p.steps), f"{p.reached} of {p.pairs}", str(p.steps.samples))
        for p in pairs
    )
    heads = ("arm", "target: final error of", "ratio of steps", "seeds that reach it", "validation samples")
    return Table("Steps to the other arm’s final error over the steps that it took itself; 95 % intervals", heads, rows)


def routing(found: Sequence[Gates]) -> Table:
    """How much the gates move."""
    rows = tuple(
        (
            f"{g.arm.label}, seed {g.seed}",
            f"{g.over_levels:.2f}",
            f"{g.over_samples:.3f}",
            f"{g.effective:.2f} of {g.share.shape[1]}",
        )
        for g in found
    )
    heads = ("run", "range over noise levels", "spread over samples", "experts in effective use")
    return Table(
        "How far the gates’ shares move with the noise level, and how far with the content at one level", heads, rows
    )


def bands(arms: Sequence[Arm], pairs: Sequence[Against]) -> Table:
    """Energies per band against the held-out pictures and between arms."""
    names = ["base model", *(arm.label for arm in arms)]
    listed = list(zip(names, against_heldout(arms), strict=True))
    listed += [(f"{p.arm.label} / {p.other.label}", p.energy) for p in pairs]
    rows = tuple((name, *(with_span(ratio) for ratio in ratios)) for name, ratios in listed)
    heads = ("pictures", *(f"band {k}" for k in range(len(listed[0][1]))))
    caption = "Energy per band against held-out pictures, or of one arm against another; 95 % intervals"
    return Table(f"{caption}; {STARRED}", heads, rows)


def share_with_span(right: Array) -> str:
    """A share of right answers (seeds, prompts) with its interval; exact and binomial over prompts where all agree."""
    if not right.size:
        return "–"
    half, mean = spread(right), float(right.mean())
    low, high = max(mean - half, 0.0), min(mean + half, 1.0)
    if mean in (0, 1):
        unseen = 1 - float(((1 - CONFIDENCE) / 2) ** (1 / right.shape[1]))
        low, high = (1 - unseen, 1.0) if mean == 1 else (0.0, unseen)
    return f"{mean:.2f} ({low:.2f} to {high:.2f})" if np.isfinite(low) else f"{mean:.2f}"


def attributes(arms: Sequence[Arm]) -> Table | None:
    """How often the attribute reader finds what the caption says; None where it was not applied."""
    if any("attribute_right" not in run.evaluation for arm in arms for run in arm.runs):
        return None
    store = arms[0].runs[0].evaluation
    names = [str(n) for n in store.attribute.values] if "attribute" in store.coords else [
        f"attribute {i}" for i in range(store.sizes["attribute"])
    ]  # fmt: skip
    listed = [("held-out", arms[:1], "reference"), ("base model", arms[:1], "base")]
    rows = []
    for label, of, source in [*listed, *((arm.label, [arm], "adapter") for arm in arms)]:
        runs = of[0].runs if source == "adapter" else of[0].runs[:1]
        right = np.stack([
            r.by_prompt(r.evaluation.attribute_right.sel(source=source).transpose("sample", "attribute").values)
            for r in runs
        ])  # fmt: skip
        named = [right[:, np.isfinite(right[..., k]).all(axis=0), k] for k in range(len(names))]
        rows.append((label, *(share_with_span(part) for part in named), str(right.shape[1])))
    caption = "Share of pictures in which the attribute reader finds what the caption says; 95 % intervals"
    return Table(caption, ("pictures", *names, "prompts"), tuple(rows))


def number(value: float, digits: int = 3, unit: str = "") -> str:
    """A number for a cell, or a dash."""
    return f"{value:,.{digits}g}".replace(",", " ") + unit if np.isfinite(value) else "–"


def cost(arms: Sequence[Arm]) -> Table:
    """Parameters, time and memory: means over seeds."""
    rows = []
    for arm in arms:
        seconds, steps = arm.mean_record("seconds_train"), arm.mean_record("steps")
        parameters = thousands(arm.mean_record("trainable_parameters"))
        memory = arm.mean_record("peak_memory_mib")
        memory_said = f"{thousands(memory)} MiB" if np.isfinite(memory) else "–"
        rows.append((
            arm.label, parameters, f"{steps:.0f}", number(seconds, 3, " s"),
            number(seconds / steps if steps else float("nan"), 3, " s"), memory_said,
        ))  # fmt: skip
    heads = ("arm", "trainable parameters", "steps", "training time", "time per step", "peak memory")
    return Table("Cost: means over training seeds, as measured on the machine that trained", heads, tuple(rows))


def runs(arms: Sequence[Arm]) -> Table:
    """The runs behind the report."""
    rows = tuple(
        (str(r.record["name"]), arm.label, str(r.seed), str(r.record["steps"]), minute(r.record.get("finished", "–")))
        for arm in arms for r in arm.runs
    )  # fmt: skip
    return Table("Runs in this report", ("run", "arm", "training seed", "steps", "finished"), rows)


def versions(arms: Sequence[Arm]) -> Table:
    """Versions of the software, one row per package; several values where runs differ."""
    records = [r.record["versions"] for arm in arms for r in arm.runs]
    names = sorted({str(key) for record in records for key in record})
    rows = tuple((name, ", ".join(sorted({str(record.get(name, "–")) for record in records}))) for name in names)
    return Table("Versions", ("package", "version"), rows)


def command_of(command: object) -> str:
    """A command line as one would type it."""
    return shlex.join(str(part) for part in command) if isinstance(command, list) else str(command)


def minute(when: object) -> str:
    """A time of ISO 8601, to the minute, as people read it."""
    return str(when)[:16].replace("T", " ")
