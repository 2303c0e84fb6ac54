"""The sections of a report that stand on an evaluation of adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from reports import panels
from reports.cells import Cells, energies_of, errors, noise_levels
from reports.evaluated import BASE, Evaluation
from reports.evaluation_marks import compared_mark, keys, marks, pair_styles, point, ratio_mark
from reports.evaluation_pictures import drift_section, image_section, memory_section
from reports.evaluation_tables import arrowed, attribute_table, comparison_table, measure_table, pinned_table, shown_as
from reports.evaluation_words import about_energy, decisive, detail, of_pair, weight, where
from reports.evidence import how_paired, one_alone, uncorrected, unlike
from reports.sections import Mark, Panel, Room, Said, Section
from reports.words import brief, capital

MOST_DETAILS = 8
PLAIN = "this network does not read text"
"""Why most networks do not measure agreement with the prompt: nothing is missing, so nothing is said."""


def error_section(found: Evaluation, cells: Sequence[Cells], prefix: str) -> Section | None:
    """Validation error per noise level and band; None where it was not measured."""
    if not cells:
        return None
    noise = noise_levels(found)
    rows = [
        (label, found.styles[label], [Mark(float(v), holds=True) for v in errors(found, label)])
        for label in found.shown
    ]  # fmt: skip
    drawn: list[Panel] = [panels.over_levels_marks(f"{prefix}error", "Mean validation error", noise, rows, "error")]
    shown = unlike(found, cells)
    limits, scaled = panels.scales([one.levels for one in shown])
    for i, one in enumerate(shown):
        line = [(one.a, found.styles[one.a], marks(one.levels))]
        title = f"{one.a} against {one.b}"
        drawn.append(
            panels.over_levels_marks(f"{prefix}ratio-{i}", title, noise, line, "change of error", 1.0, limits[i])
        )
    bands, rows_scaled = band_panels(found, shown, noise, prefix)
    drawn += bands
    own = ["panel of ratios"] * bool(scaled) + ["band within a panel"] * bool(rows_scaled)
    scales = f" Each {' and each '.join(own)} has a scale of its own: some need far more room." * bool(own)
    below = (
        "Ratios below the line are better; filled where the difference holds after Holm’s correction over all points "
        f"of all panels of a kind.{scales}"
    )
    same_grid = "All models are measured on the same held-out pictures with the same noise."
    notes = (" ".join([same_grid, *[below] * bool(shown)]), how_paired(found))
    said = tuple(brief([where(one, list(noise)) for one in shown]))
    return Section(
        f"{prefix}errors", "Held-out error by noise level and band", said, tuple(filter(None, notes)), keys(found),
        tuple(drawn), nav="Noise levels",
    )  # fmt: skip


def band_panels(
    found: Evaluation, cells: Sequence[Cells], noise: np.ndarray, prefix: str
) -> tuple[list[Panel], str]:  # fmt: skip
    """Small multiples of ratios per band, one panel a pair, and words where one scale would flatten some bands."""
    banded = [one for one in cells if one.bands]
    limits, scaled = panels.scales([band for one in banded for band in zip(*one.bands, strict=True)])
    count = len(banded[0].bands[0]) if banded else 0
    return [
        panels.level_bands(
            f"{prefix}bands-{i}", f"{one.a} against {one.b}, by band", noise, [marks(line) for line in one.bands],
            found.styles[one.a], limits[i * count : (i + 1) * count],
        )
        for i, one in enumerate(banded)
    ], scaled  # fmt: skip


def measure_section(found: Evaluation, prefix: str) -> Section | None:
    """Distances, similarities and what the reader of attributes finds, with intervals; None without any measure."""
    if not found.measures:
        return None
    names = [n for n in dict.fromkeys(m.name for m in found.measures) if weight(n) < weight("drift")]
    drawn = []
    for i, name in enumerate(names):
        rows = [m for m in found.measures if m.name == name and m.adapter in found.shown]
        drawn.append(
            panels.forest(f"{prefix}measure-{i}", rows[0].title, [point(m, found) for m in rows], rows[0].better)
        )
    said, rest = details(found)
    tables = [t for t in (arrowed(measure_table(found)), comparison_table(found), pinned_table(found)) if t is not None]
    answers = attribute_table(found)
    missing = [f"{capital(why)}." for why in found.absent if not why.endswith(PLAIN)]
    note = (
        "Points with 95 % intervals over prompts, then seeds (of the validation error, over held-out pictures); "
        "filled where an adapter differs from the base model "
        "after Holm’s correction over all comparisons with it."
    )
    cautions = [f"{capital(words)}." for words in uncorrected([*found.among, *found.to_base])]
    notes = tuple(filter(None, (note, *cautions, one_alone(found))))
    return Section(
        f"{prefix}measures", "All measures with their intervals", tuple(said), notes, keys(found), tuple(drawn),
        (answers,) if answers else (), nav="Measures",
        extra={"folded": tables, "rest": rest, "footnotes": missing},
    )  # fmt: skip


def details(found: Evaluation) -> tuple[list[Said], list[Said]]:
    """The comparisons that hold, or of each pair the weightiest, and all others, which a page folds away.

    The validation error is left out: the verdict tells it, and it has a section of its own.
    """
    pairs, compared = (found.pairs, found.among) if found.pairs else (found.with_base, found.to_base)
    measured = [c for c in unlike(found, compared) if c.name != "validation_error"]
    by_pair = [decisive(of_pair(measured, a, b)) for a, b in pairs]
    holding = [c for one in by_pair for c in one if c.holds][:MOST_DETAILS] or [c for one in by_pair for c in one[:1]]
    others = [c for one in by_pair for c in one if c not in holding]
    return [detail(c) for c in holding], [detail(c) for c in others]


def heldout(found: Evaluation) -> np.ndarray:
    """Places of the held-out references; empty where there are none."""
    if "reference_part" not in found.data:
        return np.array([], int)
    return np.flatnonzero(np.array([str(part) == "heldout" for part in found.data.reference_part.values]))


def spectrum_section(found: Evaluation, prefix: str) -> Section | None:
    """Band energies and radial spectra, between adapters and against the held-out pictures; None without pictures."""
    if not len(found.part("asked")):
        return None
    energies = unlike(found, energies_of(found))
    drawn = [*band_ratio_panel(found, prefix), *radial_panel(found, prefix)]
    styles = pair_styles(found, [(one.a, one.b) for one in energies])
    rows = [(f"{one.a} over {one.b}", i, marks(one.bands)) for i, one in zip(styles, energies, strict=True)]
    if rows:
        title = "Band energies, one adapter over another"
        own = tuple(replace(panels.style_key(label, style), dashes="") for label, style, _ in rows)
        drawn.append(replace(panels.over_bands(f"{prefix}pair-bands", title, rows, "ratio"), keys=own))
    said = tuple(brief([about_energy(one) for one in energies]))
    note = (
        "Points are filled where the 95 % interval of a model excludes the energy of the held-out pictures, and "
        "between models where the difference holds after Holm’s correction."
    )
    notes = tuple(filter(None, (note, how_paired(found))))
    return Section(f"{prefix}spectra", "Spectra of pictures", said, notes, keys(found), tuple(drawn), nav="Spectra")


def radial_panel(found: Evaluation, prefix: str) -> list[Panel]:
    """Radial spectra over that of the held-out pictures; nothing without any."""
    real = heldout(found)
    if not len(real):
        return []
    data = found.data.isel(sample=found.part("asked"))
    target = np.maximum(data.reference_spectrum.isel(reference=real).mean("reference").values.astype(np.float64), 1e-12)
    places = [found.labels.index(x) for x in found.shown]
    mean = data.spectrum.mean("sample").values.astype(np.float64)[places]
    named = [(shown_as(x), found.styles[x]) for x in found.shown]
    lines = [(*name, row / target) for name, row in zip(named, mean, strict=True)]
    radius = data.radius.values if "radius" in data.coords else np.arange(mean.shape[1], dtype=np.float64)
    title = "Radial spectra, generated over held-out"
    drawn = [panels.radial_spectra(f"{prefix}radial-ratio", title, radius, lines)]
    if BASE in found.labels:  # small changes, which the lines above hide behind each other
        base = np.maximum(mean[found.shown.index(BASE)], 1e-12)
        changed = [(*name, row / base) for name, row in zip(named, mean, strict=True) if name[1] >= 0]
        title = "Radial spectra, adapters over the base model"
        drawn.append(panels.radial_spectra(f"{prefix}radial-base", title, radius, changed, over="adapter / base"))
    return drawn


def band_ratio_panel(found: Evaluation, prefix: str) -> list[Panel]:
    """Energy per band over the held-out pictures', from the measures; nothing where they are not there."""
    names = [n for n in dict.fromkeys(m.name for m in found.measures) if n.startswith("band_ratio")]
    if not names:
        return []
    rows = [
        (shown_as(x), found.styles[x], [ratio_mark(found.measured(n, x)) for n in names]) for x in found.shown
    ]  # fmt: skip
    return [panels.over_bands(f"{prefix}band-ratio", "Band energies, generated over held-out", rows)]


def evaluation_sections(found: Evaluation, cells: Sequence[Cells], room: Room, prefix: str = "") -> list[Section]:
    """Everything that an evaluation tells, between the verdict and the provenance."""
    sections = [
        error_section(found, cells, prefix), measure_section(found, prefix), spectrum_section(found, prefix),
        image_section(found, prefix, "asked", room), drift_section(found, prefix, room), memory_section(found, prefix),
    ]  # fmt: skip
    return [section for section in sections if section is not None]


def error_glance(found: Evaluation, prefix: str) -> list[Panel]:
    """One glance: held-out error of every pair; nothing where it was not measured."""
    compared = [c for c in found.among or found.to_base if c.name == "validation_error" and c.kind == "ratio"]
    rows = [(f"{c.a} against {c.b}", found.styles[c.a], compared_mark(c)) for c in unlike(found, compared)]
    if not rows:
        return []
    title, axis, note = "Held-out error, ratio of means", "change of held-out error", how_paired(found)
    return [panels.forest(f"{prefix}glance", title, rows, "lower", 1.0, axis, percent=True, note=note)]
