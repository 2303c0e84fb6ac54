"""An evaluation in words: which adapter is better, where, how sure that is, and what could not have been seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reports.cells import Cells, Energies, energies_of
from reports.evaluated import BASE, Evaluation
from reports.metrics import Comparison, Measure
from reports.sections import Said
from reports.statistics import CONFIDENCE
from reports.words import change, count
from spectra.analysis.statistics import Estimate

FIRST = (
    "validation_error", "frechet", "kernel", "band_distance", "spectrum_distance", "text", "attribute_right",
    "similarity", "diversity", "drift", "memorised",
)  # fmt: skip
"""What decides, the weightiest first: beginnings of the names of measures."""
NAMED = 3
"""How many measures a headline names."""


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


def number(value: float) -> str:
    """A number with three digits and a true minus sign."""
    return f"{value:.3g}".replace("-", "−") if np.isfinite(value) else "–"


def capital(text: str) -> str:
    """The same text as the beginning of a sentence."""
    return text[:1].upper() + text[1:]


def moved(c: Comparison, turned: bool = False) -> str:
    """How far the first adapter is from the second, or the second from the first: `4.7 % lower`, `0.031 higher`."""
    value = c.difference.value
    if c.kind == "ratio":
        return change(1 / value if turned else value)
    value = -value if turned else value
    return f"{number(abs(value))} {'lower' if value < 0 else 'higher'}"


def ends(found: Estimate, ratio: bool) -> str:
    """The interval of a comparison in words."""
    if not (np.isfinite(found.low) and np.isfinite(found.high)):
        return "no interval"
    low, high = (change(found.low), change(found.high)) if ratio else (number(found.low), number(found.high))
    return f"{found.confidence * 100:g} % interval {low} to {high}"


def would_show(c: Comparison) -> str:
    """What difference this comparison could have seen."""
    if not np.isfinite(c.resolution):
        return "what could have been seen is not known"
    least = f"{100 * c.resolution:.2g} %" if c.kind == "ratio" else number(c.resolution)
    return f"with n = {c.difference.n} you could see differences above {least}"


def p_words(c: Comparison) -> str:
    """The corrected p."""
    return f"p = {number(c.p_corrected)} after Holm’s correction" if np.isfinite(c.p_corrected) else "no p"


def listed(found: Sequence[Comparison], turned: bool = False) -> str:
    """The first measures of several with what changed: `validation error 4.7 % lower, ... and 2 more`."""
    said = ", ".join(f"{c.title} {moved(c, turned)}" for c in found[:NAMED])
    return said + (f" and {len(found) - NAMED} more" if len(found) > NAMED else "")


def headline(found: Evaluation, a: str, b: str) -> Said:
    """The verdict on one pair of adapters over all measures in which one direction is better."""
    judged = decisive(of_pair(found.among, a, b))
    better, worse = ([c for c in judged if c.favours == who] for who in (a, b))
    quiet = len(judged) - len(better) - len(worse)
    support = f"Holm’s correction over {count(len(found.among), 'comparison')} at {CONFIDENCE * 100:g} %"
    if not judged:
        return Said(f"Which of {a} and {b} is better was not measured", "no held-out pictures, no networks", "headline")
    if not better and not worse:
        main = judged[0]
        claim = f"No difference was found between {a} and {b} in any of {count(len(judged), 'measure')}"
        return Said(claim, f"{main.title}: {moved(main)}, {would_show(main)}; {support}", "headline")
    n = sorted({c.difference.n for c in [*better, *worse]})
    many = f"{n[0]}" if len(n) == 1 else f"{n[0]} to {n[-1]}"
    paired = f"paired over {many} prompts or held-out pictures, by measure; {support}"
    rest = f"; no difference found in {quiet} of {len(judged)}" if quiet else ""
    if better and worse:
        claim = f"{a} is better than {b} in some measures ({listed(better)}) and worse in others ({listed(worse)})"
    elif better:
        claim = f"{a} is better than {b}: {listed(better)}"
    else:
        claim = f"{b} is better than {a}: {listed(worse, turned=True)}"
    return Said(claim, f"{paired}{rest}", "headline", rest.removeprefix("; ") or "after the same correction")


def against_first(found: Evaluation) -> list[Said]:
    """Which adapters are better and worse than the first by the weightiest measure, where all meet the first alone."""
    judged = decisive(found.among)
    if not judged:
        return []
    main, first = [c for c in judged if c.name == judged[0].name], found.adapters[0]
    sides = (
        ("better", [c.a for c in main if c.favours == c.a]), ("worse", [c.a for c in main if c.favours == c.b]),
        ("no difference found in", [c.a for c in main if c.favours is None]),
    )  # fmt: skip
    told = "; ".join(f"{word} {', '.join(labels)}" for word, labels in sides if labels)
    claim = f"Against {first}, by {main[0].title}: {told}"
    return [Said(claim, f"after Holm’s correction over {count(len(found.among), 'comparison')}", "best")]


def best_of(found: Evaluation) -> list[Said]:
    """The adapter that beats every other one in the weightiest measure in which one does, of three or more."""
    n = len(found.adapters)
    if found.with_first:
        return against_first(found)
    if n < 3 or len(found.pairs) != n * (n - 1) // 2:
        return []
    judged = decisive(found.among)
    support = f"after Holm’s correction over {count(len(found.among), 'comparison')}"
    for name in dict.fromkeys(c.name for c in judged):
        winners = [c.favours for c in judged if c.name == name]
        for label in found.adapters:
            if winners.count(label) == n - 1:
                title = next(c.title for c in judged if c.name == name)
                lost = [c for c in judged if label in (c.a, c.b) and c.favours not in (None, label)]
                named = ", ".join(dict.fromkeys(c.title for c in lost))
                but = f"; another is better in {named}" if lost else " and worse than none in any other measure"
                return [Said(f"{label} is the best of {n} adapters by {title}{but}", support, "best")]
    return [Said(f"None of {n} adapters is better than all others in any measure", support, "best")]


def detail(c: Comparison) -> Said:
    """One comparison in full."""
    support = f"{ends(c.difference, c.kind == 'ratio')}, n = {c.difference.n}, {p_words(c)}; {c.difference.estimand}"
    if not c.holds:
        claim = f"{capital(c.title)}: no difference found between {c.a} and {c.b}"
        return Said(claim, f"{would_show(c)}; {support}", "detail")
    return Said(f"{capital(c.title)}: {c.a} is {moved(c)} than {c.b}", support, "detail")


def where(one: Cells, noise: Sequence[float]) -> Said:
    """At which noise levels and in which bands the errors of a pair differ, of what holds after correction."""
    at = list(zip(noise, one.levels, strict=True))
    lower, higher = ([x for x, r in at if r.holds and (r.value < 1) == less] for less in (True, False))
    support = f"counted after Holm’s correction; {count(one.levels[0].samples, 'held-out picture')}"
    found = [(word, levels) for word, levels in (("lower", lower), ("higher", higher)) if levels]
    if not found:
        claim = f"No difference was found between the errors of {one.a} and {one.b} at any of {len(noise)} noise levels"
        return Said(claim + in_bands(one), support, "where")
    told = " and ".join(f"{word} at {among(levels, len(noise))}" for word, levels in found)
    claim = f"Against {one.b}, the error of {one.a} is {told}"
    return Said(claim + in_bands(one), support, "where")


def among(levels: Sequence[float], total: int) -> str:
    """`3 of 8 noise levels (12 to 0.8)`."""
    span = f"{levels[0]:.2g}" if len(levels) == 1 else f"{levels[0]:.2g} to {levels[-1]:.2g}"
    return f"{len(levels)} of {total} noise levels ({span})"


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
    said = [m for m in found.measures if m.name == name and m.adapter != BASE]
    told = "; ".join(measured_words(m) for m in said)
    prompts = len(set(found.data.prompt.values[found.part("unrelated")].tolist()))
    claim = f"On prompts that have nothing to do with the training, adapters move away from the base model: {told}"
    return Said(claim, f"{said[0].title}; {count(prompts, 'prompt')}; {said[0].pinned}", "drift")


def about_memory(found: Evaluation) -> Said | None:
    """Whether generated pictures are copies of training pictures."""
    said = [m for m in found.measures if m.name.startswith("memorised_") and m.adapter != BASE]
    if not said:
        return None
    told = "; ".join(measured_words(m) for m in said)
    return Said(f"{capital(said[0].title)}: {told}", f"{said[0].value.estimand}; {said[0].pinned}", "memory")


def about_base_model(found: Evaluation, label: str) -> Said:
    """What one adapter changes against the base model."""
    judged = decisive(of_pair(found.to_base, label, BASE))
    if not judged:
        return Said(f"Whether {label} is better than the base model was not measured", "", "to base")
    better, worse = ([c for c in judged if c.favours == who] for who in (label, BASE))
    parts = [f"better ({listed(better)})"] * bool(better) + [f"worse ({listed(worse)})"] * bool(worse)
    claim = (
        f"Against the base model {label} is {' and '.join(parts)}"
        if parts
        else f"{label} differs from the base model in no measure"
    )
    quiet = len(judged) - len(better) - len(worse)
    over = count(len(found.to_base), "comparison")
    support = f"no difference found in {quiet} of {len(judged)}; Holm’s correction over {over}"
    return Said(claim, support, "to base")


def say_evaluation(found: Evaluation, cells: Sequence[Cells], noise: Sequence[float]) -> list[Said]:
    """Everything that an evaluation says, the most important first."""
    said = best_of(found) + [headline(found, a, b) for a, b in found.pairs] or [
        about_base_model(found, x) for x in found.adapters
    ]
    said += [where(one, noise) for one in cells] + [about_energy(one) for one in energies_of(found)]
    said += [one for one in (about_drift(found), about_memory(found)) if one is not None]
    return said + [about_base_model(found, label) for label in found.adapters if found.pairs and found.to_base]
