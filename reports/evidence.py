"""How sure a comparison of an evaluation is, in words: its size, interval, corrected p, and what stands behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np

from reports.copies import same_results
from reports.evaluated import BASE, Evaluation
from reports.metrics import Comparison
from reports.metrics.wording import NONE
from reports.sections import Said
from reports.words import between, change, count, listed, no_panels
from spectra.analysis.statistics import Estimate


class Paired(Protocol):
    """Whatever compares one model, `a`, with another, `b`."""

    @property
    def a(self) -> str:
        """The one."""

    @property
    def b(self) -> str:
        """The other."""


P = TypeVar("P", bound=Paired)

QUIET = "no difference found"
SINGLE = {"attribute": "attribute_", "band": "band_ratio_"}
"""How names of measures of one attribute or one band begin."""
UNCORRECTED = "intervals are not corrected, so one may exclude no difference where corrected p does not hold"
NAMED = 3
"""How many measures a sentence names."""


def number(value: float) -> str:
    """A number with three digits and a true minus sign."""
    short = f"{value:.3g}"
    if "e" in short and 1e-9 <= abs(value) < 1e9:
        short = np.format_float_positional(float(short), trim="-")
    return short.replace("-", "−") if np.isfinite(value) else "–"


def moved(c: Comparison) -> str:
    """How far the first adapter is from the second: `4.7 % lower`, `0.031 higher`."""
    value = c.difference.value
    if c.kind == "ratio":
        return change(value)
    return f"{number(abs(value))} {'lower' if value < 0 else 'higher'}"


def ends(found: Estimate, ratio: bool) -> str:
    """The interval of a comparison in words."""
    if not (np.isfinite(found.low) and np.isfinite(found.high)):
        return "no interval"
    return f"{found.confidence * 100:g} % interval {between(found) if ratio else span(found)}"


def span(found: Estimate) -> str:
    """The ends of an interval of a difference, one direction said once: `0.01 to 0.05 lower`."""
    if (found.low < 0) != (found.high < 0):
        return f"{number(found.low)} to {number(found.high)}"
    near, far = sorted((abs(found.low), abs(found.high)))
    return f"{number(near)} to {number(far)} {'lower' if found.low < 0 else 'higher'}"


def repeats(c: Comparison) -> str:
    """What stands behind a comparison: `16 held-out pictures`."""
    unit = c.unit or "repeats"
    return f"{c.difference.n} {unit.removesuffix('s') if c.difference.n == 1 else unit}"


def evidence(c: Comparison) -> str:
    """How sure a comparison is: its interval, its corrected p, and over what."""
    return f"{ends(c.difference, c.kind == 'ratio')}, {p_words(c)}, over {repeats(c)}"


def evidences(found: Sequence[Comparison]) -> str:
    """How sure the comparisons are that a sentence names; one alone needs no name."""
    if len(found) == 1:
        return evidence(found[0])
    return "; ".join(f"{c.title} {evidence(c)}" for c in found[:NAMED])


def family(found: Sequence[Comparison]) -> str:
    """What p values are corrected for: comparisons of single attributes and bands too, which no verdict counts."""
    single = sorted({kind for c in found if (kind := single_of(c.name))})
    too = f", single {listed([f'{kind}s' for kind in single])} included" * bool(single)
    return f"p by Holm’s correction over {count(len(found), 'comparison')}{too}"


def single_of(name: str) -> str:
    """`attribute` or `band` where a measure is of a single one, by its name; empty where it is of all."""
    return next((kind for kind, begin in SINGLE.items() if name.startswith(begin) and name != "attribute_right"), "")


def apart_before(c: Comparison) -> bool:
    """True where an interval, which is not corrected, excludes no difference, and the corrected p does not hold."""
    bounded = np.isfinite(c.difference.low) and np.isfinite(c.difference.high)
    return bool(bounded and not c.holds and not c.difference.includes(1.0 if c.kind == "ratio" else 0.0))


def uncorrected(found: Sequence[Comparison]) -> list[str]:
    """Says that intervals are not corrected, where one of these shows it."""
    return [UNCORRECTED] * any(apart_before(c) for c in found)


def same(found: Evaluation, a: str, b: str) -> bool:
    """True where two adapters made the same pictures to the last bit, and the same held-out errors."""
    known = {a, b} <= set(found.labels)
    return known and same_results(found.data, found.labels.index(a), found.labels.index(b))


def twins(found: Evaluation) -> list[list[str]]:
    """Models that are identical, each group by itself, the base model last in its own."""
    groups: list[list[str]] = []
    for label in (*found.adapters, BASE):
        first = found.copies.get(label)
        group = next((one for one in groups if one[0] == first or same(found, one[0], label)), None)
        if group is None:
            groups.append([label])
        else:
            group.append(label)
    return [one for one in groups if len(one) > 1]


def identical(found: Evaluation, names: Sequence[str]) -> Said:
    """The sentence on models that are identical, and which of them stands for the others in comparisons."""
    too = ", and every held-out error" if "validation_error" in found.data else ""
    bits = all(same(found, names[0], name) for name in names[1:])
    how = f"every picture is the same, bit by bit{too}" if bits else "their weights are the same"
    adapters = [name for name in names if name != BASE]
    once = f"; {names[0]} stands for {'both' if len(adapters) == 2 else 'all'} in comparisons and figures"
    shown = [model(name) for name in names]
    return Said(f"{listed(shown)} are identical: {how}{once * (len(adapters) > 1)}", "", "same")


def all_identical(found: Evaluation) -> list[Said]:
    """What is said of all models that are identical: copies of several adapters share a sentence."""
    groups = twins(found)
    copies = [names for names in groups if BASE not in names]
    if len(copies) < 2:
        return [identical(found, names) for names in groups]
    named = "; ".join(listed(names) for names in copies)
    claim = f"Identical adapters, of which the first stands for all in comparisons and figures: {named}"
    return [Said(claim, "", "same"), *(identical(found, names) for names in groups if BASE in names)]


def model(label: str) -> str:
    """The name of a model within a sentence."""
    return "the base model" if label == BASE else label


def unlike(found: Evaluation, compared: Sequence[P]) -> list[P]:
    """The comparisons of models that are not identical: between identical ones nothing was measured."""
    alike = {(a, b) for a, b in {(one.a, one.b) for one in compared} if same(found, a, b)}
    return [one for one in compared if (one.a, one.b) not in alike]


def chosen(found: Evaluation) -> str:
    """The model that a person chose to compare all with: by the name that was given, and by that of its original."""
    copy = f" and is identical to {found.against}" if found.asked in found.copies else ""
    return f"{model(found.asked)} alone, which was chosen{copy}"


def one_alone(found: Evaluation) -> str:
    """Says where not each adapter is compared with each, as they are many or one was chosen; empty where it is."""
    if not found.untested:
        return ""
    if found.against:
        return f"Each adapter is compared with {chosen(found)}."
    return f"Of so many adapters each is compared with the first, {found.adapters[0]}, alone."


def how_paired(found: Evaluation) -> str:
    """Which pairs the panels of a section compare, where it is not each with each; empty where it is."""
    based = [group for group in twins(found) if BASE in group]
    alike = no_panels([[model(name) for name in group if name not in found.copies] for group in based])
    return " ".join(part for part in (one_alone(found), alike) if part)


def would_show(c: Comparison) -> str:
    """What difference this comparison could have seen."""
    if c.blind:
        return f"{NONE}: too few {c.unit or 'repeats'}"
    if not np.isfinite(c.resolution):
        return "what could have been seen is not known"
    if c.resolution == 0:
        return f"every number is the same for both, n = {repeats(c)}"
    least = f"{number(float(f'{100 * c.resolution:.2g}'))} %" if c.kind == "ratio" else number(c.resolution)
    return f"with n = {repeats(c)} you could see differences above {least}"


def quiet(judged: Sequence[Comparison]) -> str:
    """In how many measures no difference was found, and in how many of these none could have shown, or hardly one."""
    silent = [c for c in judged if c.favours is None]
    coarse = unseeing([[c] for c in silent], "these")
    return f"{QUIET} in {len(silent)} of {count(len(judged), 'measure')}{f' ({coarse})' * bool(coarse)}"


def unseeing(silent: Sequence[Sequence[Comparison]], which: str) -> str:
    """In how many measures, of comparisons each, nothing could have shown or hardly anything; empty where in none."""
    coarse = [of for of in silent if all(c.coarse for c in of)]
    none = "none" if all(c.blind for of in coarse for c in of) else "hardly any"
    return f"in {len(coarse)} of {which} {none} could have shown" * bool(coarse)


def others(judged: Sequence[Comparison], name: str) -> str:
    """What the measures but one say of an adapter that no other beats: in how many nothing was found, or could be."""
    found: dict[str, list[Comparison]] = {}
    for c in judged:
        found.setdefault(c.name, []).append(c)
    rest = [of for measure, of in found.items() if measure != name]
    silent = [of for of in rest if not any(c.favours for c in of)]
    if not silent:
        return "; in no other measure is another better" * bool(rest)
    coarse = unseeing(silent, "which")
    how_many = f"any of {len(rest)}" if len(silent) == len(rest) else f"{len(silent)} of {len(rest)}"
    return f"; {QUIET} in {how_many} other measures{f', {coarse}' * bool(coarse)}"


def p_words(c: Comparison) -> str:
    """The corrected p."""
    if not np.isfinite(c.p_corrected):
        return "no p"
    return "corrected p < 0.001" if c.p_corrected < 0.001 else f"corrected p = {c.p_corrected:.2g}"


def changes(found: Sequence[Comparison]) -> str:
    """The first measures of several with what changed: `validation error 4.7 % lower, ... and 2 more`."""
    said = ", ".join(f"{c.title} {moved(c)}" for c in found[:NAMED])
    return said + (f" and {len(found) - NAMED} more" if len(found) > NAMED else "")
