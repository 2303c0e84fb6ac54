"""How sure a comparison of an evaluation is, in words: its size, interval, corrected p, and what stands behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np

from reports.evaluated import BASE, Evaluation
from reports.metrics import Comparison
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
    """What p values are corrected for."""
    return f"p by Holm’s correction over {count(len(found), 'comparison')}"


def same(found: Evaluation, a: str, b: str) -> bool:
    """True where two adapters made the same pictures to the last bit, and the same held-out errors."""
    if not {a, b} <= set(found.labels):
        return False
    rows = [found.labels.index(label) for label in (a, b)]
    kept = [name for name in ("energy", "validation_error", "image") if name in found.data]  # the small ones first
    values = [found.data[name].transpose("adapter", ...).values for name in kept]
    return all(np.array_equal(v[rows[0]], v[rows[1]], equal_nan=v.dtype.kind == "f") for v in values)


def twins(found: Evaluation) -> list[list[str]]:
    """Models that are identical, each group by itself, the base model last in its own."""
    groups: list[list[str]] = []
    for label in (*found.adapters, BASE):
        group = next((one for one in groups if same(found, one[0], label)), None)
        if group is None:
            groups.append([label])
        else:
            group.append(label)
    return [one for one in groups if len(one) > 1]


def identical(found: Evaluation, names: Sequence[str]) -> Said:
    """The sentence on models that are identical."""
    too = ", and every held-out error" if "validation_error" in found.data else ""
    shown = [model(name) for name in names]
    return Said(f"{listed(shown)} are identical: every picture is the same, bit by bit{too}", "", "same")


def model(label: str) -> str:
    """The name of a model within a sentence."""
    return "the base model" if label == BASE else label


def unlike(found: Evaluation, compared: Sequence[P]) -> list[P]:
    """The comparisons of models that are not identical: between identical ones nothing was measured."""
    alike = {(a, b) for a, b in {(one.a, one.b) for one in compared} if same(found, a, b)}
    return [one for one in compared if (one.a, one.b) not in alike]


def first_alone(found: Evaluation) -> str:
    """Says where adapters are too many to compare each with each; empty where they are not."""
    return f"Of so many adapters each is compared with the first, {found.adapters[0]}, alone." * found.with_first


def how_paired(found: Evaluation) -> str:
    """Which pairs the panels of a section compare, where it is not each with each; empty where it is."""
    alike = no_panels([[model(name) for name in group] for group in twins(found)])
    return " ".join(part for part in (first_alone(found), alike) if part)


def would_show(c: Comparison) -> str:
    """What difference this comparison could have seen."""
    if not np.isfinite(c.resolution):
        return "what could have been seen is not known"
    if c.resolution == 0:
        return f"every number is the same for both, n = {repeats(c)}"
    least = f"{number(float(f'{100 * c.resolution:.2g}'))} %" if c.kind == "ratio" else number(c.resolution)
    return f"with n = {repeats(c)} you could see differences above {least}"


def p_words(c: Comparison) -> str:
    """The corrected p."""
    if not np.isfinite(c.p_corrected):
        return "no p"
    return "corrected p < 0.001" if c.p_corrected < 0.001 else f"corrected p = {c.p_corrected:.2g}"


def changes(found: Sequence[Comparison]) -> str:
    """The first measures of several with what changed: `validation error 4.7 % lower, ... and 2 more`."""
    said = ", ".join(f"{c.title} {moved(c)}" for c in found[:NAMED])
    return said + (f" and {len(found) - NAMED} more" if len(found) > NAMED else "")
