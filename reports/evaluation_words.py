"""An evaluation in words: which adapter is better, where, how sure that is, and what could not have been seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from reports.cells import Cells, Energies, against_base_cells, noise_levels
from reports.evaluated import BASE, Evaluation
from reports.evidence import (
    NAMED,
    QUIET,
    changes,
    ends,
    evidence,
    evidences,
    family,
    identical,
    model,
    moved,
    number,
    others,
    p_words,
    quiet,
    repeats,
    same,
    uncorrected,
    unlike,
    unseeing,
    would_show,
)  # fmt: skip
from reports.metrics import Comparison, Measure
from reports.sections import Said
from reports.words import HARM, at_levels, capital, change, count, higher_at, listed

FIRST = (
    "validation_error", "frechet", "kernel", "band_distance", "spectrum_distance", "text", "attribute_right",
    "similarity", "diversity", "drift", "memorised",
)  # fmt: skip
"""What decides, the weightiest first: beginnings of the names of measures."""


def weight(name: str) -> int:
    """The place of a measure among what decides."""
    return next((i for i, start in enumerate(FIRST) if name.startswith(start)), len(FIRST))


def decisive(found: Sequence[Comparison]) -> list[Comparison]:
    """Comparisons in which one direction is better, the weightiest first; single bands and attributes are left out."""
    judged = [c for c in found if c.better != "neutral" and weight(c.name) < len(FIRST)]
    return sorted(judged, key=lambda c: (weight(c.name), c.name))


def of_pair(found: Sequence[Comparison], a: str, b: str) -> list[Comparison]:
    """The comparisons of one pair."""
    return [c for c in found if (c.a, c.b) == (a, b)]


def headline(found: Evaluation, a: str, b: str) -> Said:
    """The verdict on one pair of adapters over all measures in which one direction is better."""
    judged = decisive(of_pair(found.among, a, b))
    better, worse = ([c for c in judged if c.favours == who] for who in (a, b))
    support = family(found.among)
    if same(found, a, b):
        return identical(found, (a, b))
    if not judged:
        return Said(f"Which of {a} and {b} is better was not measured", "no held-out pictures, no networks", "headline")
    if not better and not worse:
        main, coarse = judged[0], unseeing([[c] for c in judged], "which")
        claim = f"No difference was found between {a} and {b} in any of {count(len(judged), 'measure')}"
        claim += f", {coarse}" * bool(coarse)
        return Said(claim, f"{main.title}: {moved(main)}, {would_show(main)}; {support}", "headline")
    sure = evidences([*better[:NAMED], *worse[:NAMED]])
    rest = f"; {quiet(judged)}" if len(better) + len(worse) < len(judged) else ""
    if better and worse:
        claim = f"{a} is better than {b} in some measures ({changes(better)}) and worse in others ({changes(worse)})"
    elif better:
        claim = f"{a} is better than {b}: {changes(better)}"
    else:
        claim = f"{a} is worse than {b}: {changes(worse)}"
    return Said(claim, f"{sure}; {support}{rest}", "headline", f"{sure}{rest}")


def sides(found: Evaluation, compared: Sequence[Comparison], other: str) -> Said | None:
    """Which adapters are better and worse than one model, by the weightiest measure in which any is."""
    judged = [c for c in decisive(compared) if c.b == other]
    if not judged:
        return None
    name = deciding(judged)
    main = [c for c in judged if c.name == name]
    alike = [c.a for c in main if same(found, c.a, other)]
    parted = (
        ("better", [c for c in main if c.favours == c.a]), ("worse", [c for c in main if c.favours == c.b]),
        (QUIET, [c for c in main if c.favours is None and c.a not in alike]),
        ("identical", [c for c in main if c.a in alike]),
    )  # fmt: skip
    told = "; ".join(stand(word, found) for word, found in parted if found)
    shown = [c for c in main if c.a not in alike]
    sure = "; ".join(f"{c.a} {moved(c)}, {ends(c.difference, c.kind == 'ratio')}, {p_words(c)}" for c in shown)
    measured = [f"{main[0].title}: {sure}; over {repeats(main[0])}"] * bool(shown)
    claim = f"Against {model(other)}, by {main[0].title}: {told}"
    return Said(claim, "; ".join([*measured, family(compared), *uncorrected(shown)]))


def deciding(judged: Sequence[Comparison]) -> str:
    """The name of the weightiest measure in which a difference holds; of the weightiest, where none does."""
    return next((c.name for c in judged if c.favours is not None), judged[0].name)


def stand(word: str, found: Sequence[Comparison]) -> str:
    """How adapters stand to one: `slow is worse (9.9 % higher)`, `a, b and c are better`."""
    if word == QUIET:
        return f"{word} for {listed([c.a for c in found])}"
    size = f" ({moved(found[0])})" if len(found) == 1 and found[0].favours is not None else ""
    return f"{listed([c.a for c in found])} {'is' if len(found) == 1 else 'are'} {word}{size}"


def against_base(found: Evaluation) -> list[Said]:
    """Which of several adapters beat the base model."""
    said = sides(found, found.to_base, BASE)
    return [replace(said, kind="base")] if said is not None and len(found.distinct) > 1 else []


def against_reference(found: Evaluation) -> list[Said]:
    """Which adapters are better and worse than the one that all are compared with."""
    said = sides(found, found.among, found.reference)
    return [replace(said, kind="best")] if said is not None else []


def harmed_at(found: Evaluation) -> dict[str, str]:
    """Adapter -> noise levels at which it is worse than the base model, whatever it is over all levels."""
    compared = unlike(found, against_base_cells(found))
    noise = list(noise_levels(found)) if compared else []
    return {one.a: harm for one in compared if (harm := higher_at(noise, one.levels))}


def worse_levels(found: Evaluation, harmed: Mapping[str, str]) -> list[Said]:
    """The sentence on what `harmed_at` found; none where that is nothing."""
    if not harmed:
        return []
    n = found.data.sizes["heldout"]
    claim = f"{HARM} base model: {'; '.join(f'{label} at {harm}' for label, harm in harmed.items())}"
    return [Said(claim, f"after Holm’s correction over all levels; {count(n, 'held-out picture')}", "harm")]


def best_of(found: Evaluation) -> list[Said]:
    """Of three adapters or more the one that beats every other; where none does, how each stands to the reference."""
    if len(found.distinct) < 3:
        return []
    won = winner(found)
    return [about_winner(found, *won)] if won else against_reference(found)


def winner(found: Evaluation) -> tuple[str, str] | None:
    """The weightiest measure in which one adapter beats every other, and that adapter."""
    judged = decisive(found.among)
    for name in dict.fromkeys(c.name for c in judged) if not found.untested else ():
        favoured = [c.favours for c in judged if c.name == name]
        for label in found.distinct:
            if favoured.count(label) == len(found.distinct) - 1:
                return name, label
    return None


def about_winner(found: Evaluation, name: str, label: str) -> Said:
    """The adapter that beats every other one in a measure, and in which others it does not."""
    judged = [c for c in decisive(found.among) if label in (c.a, c.b)]
    lost = [c for c in judged if c.favours not in (None, label)]
    named = ", ".join(dict.fromkeys(c.title for c in lost))
    but = f"; another is better in {named}" if lost else others(judged, name)
    shown = [c for c in judged if c.name == name]
    sure = "; ".join(f"{c.a} against {c.b} {moved(c)}, {evidence(c)}" for c in shown[:NAMED])
    claim = f"{label} is the best of {len(found.distinct)} adapters by {shown[0].title}{but}"
    return Said(claim, f"{shown[0].title}: {sure}; {family(found.among)}", "best")


def detail(c: Comparison) -> Said:
    """One comparison in full."""
    if not c.holds:
        claim = f"{capital(c.title)}: no difference found between {c.a} and {c.b}"
        sure = f"{ends(c.difference, c.kind == 'ratio')}, {p_words(c)}"
        return Said(claim, f"{would_show(c)}; {sure}; {c.difference.estimand}", "detail")
    claim = f"{capital(c.title)}: {moved(c)} for {c.a} than for {c.b}"
    return Said(claim, f"{evidence(c)}; {c.difference.estimand}", "detail")


def where(one: Cells, noise: Sequence[float]) -> Said:
    """At which noise levels and in which bands the errors of a pair differ, of what holds after correction."""
    support = f"counted after Holm’s correction; {count(one.levels[0].samples, 'held-out picture')}"
    found = at_levels(noise, one.levels)
    if not found:
        claim = f"No difference was found between the errors of {one.a} and {one.b} at any of {len(noise)} noise levels"
        return Said(claim + in_bands(one), support, "where")
    claim = f"Against {one.b}, the error of {one.a} is {' and '.join(found)}"
    return Said(claim + in_bands(one), support, "where")


def in_bands(one: Cells) -> str:
    """In which bands the errors differ, with the number of noise levels at which they do."""
    if not one.bands:
        return ""
    per_band = list(zip(*one.bands, strict=True))
    parts = []
    for word, lower in (("lower", True), ("higher", False)):
        counts = [sum(r.holds and (r.value < 1) == lower for r in band) for band in per_band]
        named = [f"band {k} ({n})" for k, n in enumerate(counts) if n]
        every = len(named) == len(counts) > 1 and len(set(counts)) == 1
        where = f"every band ({counts[0]})" if every else ", ".join(named)
        parts += [f"{word} in {where}"] if named else []
    return f"; by band (number of levels) {'; '.join(parts)}" if parts else "; in no band alone does a difference hold"


def about_energy(one: Energies) -> Said:
    """In which bands the pictures of a pair have other energies."""
    told = [f"{change(r.value, 'less', 'more')} in band {k}" for k, r in enumerate(one.bands) if r.holds]
    n = one.bands[0].samples
    support = f"ratios of mean band energies over {count(n, 'prompt')}; Holm’s correction over all bands of all pairs"
    if not told:
        return Said(
            f"No difference was found between the band energies of pictures of {one.a} and {one.b}", support, "energy"
        )
    return Said(f"Pictures of {one.a} have other energies than those of {one.b}: {', '.join(told)}", support, "energy")


def measured_words(m: Measure) -> str:
    """A measure with its interval."""
    bounds = f"{number(m.value.low)} to {number(m.value.high)}"
    within = bounds if np.isfinite(m.value.low) and np.isfinite(m.value.high) else "no interval"
    return f"{m.adapter} {number(m.value.value)} ({within})"


def drift_name(found: Evaluation) -> str | None:
    """The measure of drift that is told first: by a network where there is one; None where none was measured."""
    names = dict.fromkeys(m.name for m in found.measures if m.name.startswith("drift_") and m.better == "lower")
    return min(names, key=lambda name: name == "drift_pixels", default=None)


def about_drift(found: Evaluation) -> Said | None:
    """How far each adapter moves pictures of unrelated prompts away from the base model's."""
    name = drift_name(found)
    if name is None:
        return None
    said = [m for m in found.measures if m.name == name and m.adapter in found.distinct]
    told = "; ".join(measured_words(m) for m in said)
    unsure = [m.adapter for m in said if not m.value.low > 0]
    whose = f" for {listed(unsure)}" * (len(unsure) < len(said))
    far = f"how far adapters move away from the base model is not sure{whose}"
    far = far if unsure else "adapters move away from the base model"
    claim = f"On prompts that have nothing to do with the training, {far}: {told}"
    return Said(claim, f"{said[0].title}, 0 is no change; {where_from(said[0])}", "drift")


def where_from(m: Measure) -> str:
    """Over which pictures a measure is; the table of measures says what each network is and how pictures reach it."""
    return m.pinned.partition(";")[0]


def about_memory(found: Evaluation) -> Said | None:
    """Whether generated pictures are copies of training pictures."""
    said = [m for m in found.measures if m.name.startswith("memorised_") and m.adapter in found.distinct]
    if not said:
        return None
    told = "; ".join(measured_words(m) for m in said)
    return Said(f"{capital(said[0].title)}: {told}", f"{said[0].value.estimand}; {where_from(said[0])}", "memory")


def about_base_model(found: Evaluation, label: str) -> Said:
    """What one adapter changes against the base model."""
    first = found.copies.get(label)
    if first or same(found, label, BASE):
        return identical(found, (first, label) if first else (label, BASE))
    judged = decisive(of_pair(found.to_base, label, BASE))
    if not judged:
        return Said(f"Whether {label} is better than the base model was not measured", "", "to base")
    better, worse = ([c for c in judged if c.favours == who] for who in (label, BASE))
    parts = [f"better ({changes(better)})"] * bool(better) + [f"worse ({changes(worse)})"] * bool(worse)
    claim = (
        f"Against the base model {label} is {' and '.join(parts)}"
        if parts
        else f"{label} differs from the base model in no measure"
    )
    sure = f"{evidences([*better[:NAMED], *worse[:NAMED]])}; " if parts else ""
    rest = quiet(judged)
    return Said(claim, f"{sure}{rest}; {family(found.to_base)}", "to base", f"{sure}{rest}")
