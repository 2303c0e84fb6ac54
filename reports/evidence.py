"""How sure a comparison of an evaluation is, in words: its size, interval, corrected p, and what stands behind it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reports.evaluated import Evaluation
from reports.metrics import Comparison
from reports.words import change, count, percent
from spectra.analysis.statistics import Estimate

NAMED = 3
"""How many measures a sentence names."""


def number(value: float) -> str:
    """A number with three digits and a true minus sign."""
    short = f"{value:.3g}"
    if "e" in short and 1e-9 <= abs(value) < 1e9:
        short = np.format_float_positional(float(short), trim="-")
    return short.replace("-", "−") if np.isfinite(value) else "–"


def capital(text: str) -> str:
    """The same text as the beginning of a sentence."""
    return text[:1].upper() + text[1:]


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
    low, high = (change(found.low), change(found.high)) if ratio else (number(found.low), number(found.high))
    none = 1.0 if ratio else 0.0
    if (found.low < none) == (found.high < none) and found.high <= 3:  # one direction, said once
        near, far = sorted((found.low, found.high), key=lambda end: abs(end - none))
        word = "lower" if found.low < none else "higher"
        low, high = (percent(near), percent(far)) if ratio else (number(abs(near)), number(abs(far)))
        high = f"{high} {word}"
    return f"{found.confidence * 100:g} % interval {low} to {high}"


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
    kept = [name for name in ("image", "energy", "validation_error") if name in found.data]
    values = [found.data[name].transpose("adapter", ...).values for name in kept]
    return all(np.array_equal(v[rows[0]], v[rows[1]], equal_nan=v.dtype.kind == "f") for v in values)


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


def listed(found: Sequence[Comparison]) -> str:
    """The first measures of several with what changed: `validation error 4.7 % lower, ... and 2 more`."""
    said = ", ".join(f"{c.title} {moved(c)}" for c in found[:NAMED])
    return said + (f" and {len(found) - NAMED} more" if len(found) > NAMED else "")


def series(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
