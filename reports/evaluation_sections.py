"""The sections of a report that stand on an evaluation of adapters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reports import metrics, panels, pictures
from reports.cells import Cells, energies_of, errors, noise_levels
from reports.evaluated import BASE, Evaluation
from reports.evaluation_tables import attribute_table, comparison_table, measure_table, pinned_table
from reports.evaluation_words import about_drift, about_energy, about_memory, decisive, detail, of_pair, weight, where
from reports.metrics import Comparison, Measure
from reports.sections import Key, Mark, Panel, Room, Said, Section
from reports.statistics import Ratio
from reports.words import brief

MOST_DETAILS = 8
MOST_NEIGHBOURS = 6


def marks(ratios: Sequence[Ratio]) -> list[Mark]:
    """Ratios as points."""
    return [panels.mark(ratio) for ratio in ratios]


def keys(found: Evaluation) -> tuple[Key, ...]:
    """The key of figures that show all models of an evaluation."""
    return tuple(panels.style_key("base model" if x == BASE else x, found.styles[x]) for x in found.labels)


def point(m: Measure, found: Evaluation) -> tuple[str, int, Mark]:
    """A measure of one model as a row of a figure: filled where it differs from the base model's."""
    holds = any(c.holds for c in found.to_base if c.name == m.name and c.a == m.adapter)
    label = "base model" if m.adapter == BASE else m.adapter
    low, high = (end if np.isfinite(end) else np.nan for end in (m.value.low, m.value.high))
    return label, found.styles[m.adapter], Mark(m.value.value, low, high, holds)


def error_section(found: Evaluation, cells: Sequence[Cells], prefix: str) -> Section | None:
    """Validation error per noise level and band; None where it was not measured."""
    if not cells:
        return None
    noise = noise_levels(found)
    rows = [
        (label, found.styles[label], [Mark(float(v), holds=True) for v in errors(found, label)])
        for label in found.labels
    ]  # fmt: skip
    drawn: list[Panel] = [panels.over_levels_marks(f"{prefix}error", "Mean validation error", noise, rows, "error")]
    limits = panels.limits_of([ratio for one in cells for ratio in one.levels])
    for i, one in enumerate(cells):
        line = [(one.a, found.styles[one.a], marks(one.levels))]
        title = f"{one.a} against {one.b}"
        drawn.append(panels.over_levels_marks(f"{prefix}ratio-{i}", title, noise, line, "change of error", 1.0, limits))
    drawn += band_panels(found, cells, noise, prefix)
    note = (
        "All models are measured on the same held-out pictures with the same noise. Ratios below the line are better; "
        "filled where the difference holds after Holm’s correction over all points of all panels of a kind."
    )
    said = tuple(brief([where(one, list(noise)) for one in cells]))
    return Section(
        f"{prefix}errors", "Held-out error by noise level and band", said, (note,), keys(found), tuple(drawn),
        nav="Noise levels",
    )  # fmt: skip


def band_panels(found: Evaluation, cells: Sequence[Cells], noise: np.ndarray, prefix: str) -> list[Panel]:
    """Small multiples of ratios per band, one panel a pair, on one scale."""
    banded = [one for one in cells if one.bands]
    limits = panels.limits_of([ratio for one in banded for line in one.bands for ratio in line])
    return [
        panels.level_bands(
            f"{prefix}bands-{i}", f"{one.a} against {one.b}, by band", noise, [marks(line) for line in one.bands],
            found.styles[one.a], limits,
        )
        for i, one in enumerate(banded)
    ]  # fmt: skip


def measure_section(found: Evaluation, prefix: str) -> Section | None:
    """Distances, similarities and what the reader of attributes finds, with intervals; None without any measure."""
    if not found.measures:
        return None
    names = [n for n in dict.fromkeys(m.name for m in found.measures) if weight(n) < 8]
    drawn = []
    for i, name in enumerate(names):
        rows = [m for m in found.measures if m.name == name]
        drawn.append(
            panels.forest(f"{prefix}measure-{i}", rows[0].title, [point(m, found) for m in rows], rows[0].better)
        )
    said = [detail(c) for a, b in found.pairs for c in decisive(of_pair(found.among, a, b))]
    tables = [t for t in (measure_table(found), comparison_table(found), attribute_table(found)) if t is not None]
    note = (
        "Points with 95 % intervals over prompts, then seeds; filled where an adapter differs from the base model "
        "after Holm’s correction over all comparisons with it."
    )
    return Section(
        f"{prefix}measures", "Distances, similarities and text", tuple(brief(said[:MOST_DETAILS])), (note,),
        keys(found), tuple(drawn), tuple(tables), nav="Measures",
        extra={"folded": [pinned_table(found)], "footnotes": list(found.absent)},
    )  # fmt: skip


def heldout(found: Evaluation) -> np.ndarray:
    """Places of the held-out references; empty where there are none."""
    if "reference_part" not in found.data:
        return np.array([], int)
    return np.flatnonzero(np.array([str(part) == "heldout" for part in found.data.reference_part.values]))


def spectrum_section(found: Evaluation, prefix: str) -> Section | None:
    """Band energies and radial spectra, between adapters and against the held-out pictures; None without pictures."""
    energies = energies_of(found)
    if not energies:
        return None
    drawn = [*band_ratio_panel(found, prefix), *radial_panel(found, prefix)]
    rows = [(f"{one.a} over {one.b}", found.styles[one.a], marks(one.bands)) for one in energies]
    drawn.append(panels.over_bands(f"{prefix}pair-bands", "Band energies, one adapter over another", rows, "ratio"))
    said = tuple(brief([about_energy(one) for one in energies]))
    return Section(f"{prefix}spectra", "Spectra of pictures", said, (), keys(found), tuple(drawn), nav="Spectra")


def radial_panel(found: Evaluation, prefix: str) -> list[Panel]:
    """Radial spectra over that of the held-out pictures; nothing without any."""
    real = heldout(found)
    if not len(real):
        return []
    data = found.data.isel(sample=found.part("asked"))
    target = np.maximum(data.reference_spectrum.isel(reference=real).mean("reference").values.astype(np.float64), 1e-12)
    mean = data.spectrum.mean("sample").values.astype(np.float64)
    named = [("base model" if x == BASE else x, found.styles[x]) for x in found.labels]
    lines = [(*name, row / target) for name, row in zip(named, mean, strict=True)]
    radius = data.radius.values if "radius" in data.coords else np.arange(mean.shape[1], dtype=np.float64)
    title = "Radial spectra, generated over held-out"
    return [panels.radial_spectra(f"{prefix}radial-ratio", title, radius, lines)]


def band_ratio_panel(found: Evaluation, prefix: str) -> list[Panel]:
    """Energy per band over the held-out pictures', from the measures; nothing where they are not there."""
    names = [n for n in dict.fromkeys(m.name for m in found.measures) if n.startswith("band_ratio")]
    if not names:
        return []
    rows = [
        ("base model" if x == BASE else x, found.styles[x], [ratio_mark(found.measured(n, x)) for n in names])
        for x in found.labels
    ]  # fmt: skip
    return [panels.over_bands(f"{prefix}band-ratio", "Band energies, generated over held-out", rows)]


def ratio_mark(m: Measure | None) -> Mark:
    """A ratio to the held-out pictures as a point: filled where its own interval excludes a match."""
    if m is None:
        return Mark(np.nan)
    value = m.value
    low, high = (end if np.isfinite(end) and end > 0 else np.nan for end in (value.low, value.high))
    return Mark(value.value, low, high, not value.includes(1.0))


def image_section(found: Evaluation, prefix: str, part: str, room: Room) -> Section | None:
    """The pictures of a part, all models side by side from the same noise; None where there are none."""
    places = found.part(part)
    if not len(places):
        return None
    chosen = by_prompt(found, places)
    columns = [
        ("base model" if x == BASE else x, found.data.image.values[i][chosen]) for i, x in enumerate(found.labels)
    ]  # fmt: skip
    prompts = [str(found.data.prompt.values[i]) for i in chosen]
    seeds = [int(found.data.seed.values[i]) for i in chosen]
    rows = pictures.rows(columns, prompts, seeds, room.rows, room.size)
    some = f"The first {len(rows)} of {len(places)} pictures, prompt by prompt, chosen by position alone. "
    note = f"{some if len(rows) < len(places) else ''}Within a row every model starts from the same noise."
    asked = part == "asked"
    return Section(
        f"{prefix}{'pictures' if asked else 'drift'}", "Pictures" if asked else "Drift from the base model",
        notes=(note,), kind="pictures", extra={"rows": rows}, nav="Pictures" if asked else "Drift",
    )  # fmt: skip


def by_prompt(found: Evaluation, places: np.ndarray) -> list[int]:
    """Places in an order in which every prompt comes once before any comes again."""
    seen: dict[str, int] = {}
    keyed = []
    for i in places:
        prompt = str(found.data.prompt.values[i])
        seen[prompt] = seen.get(prompt, -1) + 1
        keyed.append((seen[prompt], int(i)))
    return [i for _, i in sorted(keyed)]


def drift_section(found: Evaluation, prefix: str, room: Room) -> Section | None:
    """How far unrelated prompts are moved: numbers, the trade against what was learned, and pictures."""
    grid = image_section(found, prefix, "unrelated", Room(max(room.rows // 2, 1), room.size))
    names = [n for n in dict.fromkeys(m.name for m in found.measures) if n.startswith("drift")]
    if grid is None or not names:
        return grid
    drawn = []
    for i, name in enumerate(names):
        rows = [m for m in found.measures if m.name == name and (m.adapter != BASE or m.better == "higher")]
        drawn.append(
            panels.forest(f"{prefix}drift-{i}", rows[0].title, [point(m, found) for m in rows], rows[0].better)
        )
    said: list[Said] = [one for one in (about_drift(found),) if one is not None]
    told = "How far each adapter moves the pictures of prompts that have nothing to do with what it was trained on."
    return Section(
        grid.id, grid.title, tuple(said), (told, *grid.notes), keys(found), tuple(drawn), kind="pictures", nav="Drift",
        extra=grid.extra,
    )  # fmt: skip


def memory_section(found: Evaluation, prefix: str) -> Section | None:
    """Generated pictures beside the nearest training picture; None where no training pictures were given."""
    networks = list(dict.fromkeys(m.network for m in found.measures if m.name.startswith("memorised") and m.network))
    said = about_memory(found)
    if not networks or said is None:
        return None
    network, rows, dots = networks[0], [], []
    for label in found.adapters:
        near = metrics.neighbours(found.data, network, label)
        dots.append((label, found.styles[label], np.array([n.distance for n in near])))
        rows += [(n.distance, label, n) for n in near]
    rows.sort(key=lambda row: (row[0], row[1], row[2].sample))
    data = found.data
    shown = [
        (
            label, str(data.prompt.values[n.sample]), data.image.values[found.labels.index(label)][n.sample],
            data.reference_image.values[n.reference], str(data.reference_caption.values[n.reference]), n.distance,
        )
        for _, label, n in rows
    ]  # fmt: skip
    drawn = panels.nearest(f"{prefix}nearest", "Distance to the nearest training picture", dots)
    note = (
        "The closest pairs of a generated and a training picture, by one minus the cosine of their features. A picture "
        "counts as close where it is nearer to a training picture than 95 % of the held-out pictures are."
    )
    return Section(
        f"{prefix}memory", "Is anything copied from the training pictures?", (said,), (note,), keys(found), (drawn,),
        kind="neighbours", nav="Memorisation", extra={"neighbours": pictures.neighbours(shown, most=MOST_NEIGHBOURS)},
    )  # fmt: skip


def evaluation_sections(found: Evaluation, cells: Sequence[Cells], room: Room, prefix: str = "") -> list[Section]:
    """Everything that an evaluation tells, between the verdict and the provenance."""
    sections = [
        error_section(found, cells, prefix), measure_section(found, prefix), spectrum_section(found, prefix),
        image_section(found, prefix, "asked", room), drift_section(found, prefix, room), memory_section(found, prefix),
    ]  # fmt: skip
    return [section for section in sections if section is not None]


def compared_mark(c: Comparison) -> Mark:
    """A comparison as a point."""
    low, high = (end if np.isfinite(end) else np.nan for end in (c.difference.low, c.difference.high))
    return Mark(c.difference.value, low, high, c.holds)


def error_glance(found: Evaluation, prefix: str) -> list[Panel]:
    """One glance: held-out error of every pair; nothing where it was not measured."""
    compared = [c for c in found.among or found.to_base if c.name == "validation_error" and c.kind == "ratio"]
    rows = [(f"{c.a} against {c.b}", found.styles[c.a], compared_mark(c)) for c in compared]
    if not rows:
        return []
    title = "Held-out error, ratio of means"
    return [panels.forest(f"{prefix}glance", title, rows, "lower", 1.0, "change of held-out error", percent=True)]
