"""A comparison in words: what holds, or what would have shown.  Never that two adapters are the same."""

from __future__ import annotations

import math
from dataclasses import replace

from reports.metrics.results import Comparison

CORRECTED = {"holm": "Holm", "benjamini-hochberg": "Benjamini-Hochberg"}

NONE = "no difference of any size that matters could have shown"


def said(found: Comparison, unit: str, family: int, correction: str) -> Comparison:
    """The comparison with its words; `unit` are the clusters, `family` the number of comparisons looked at."""
    n = found.difference.n
    if n < 2:
        words = f"no answer: one of the {unit} alone says nothing about others"
    elif found.holds:
        words = _found(found, unit, family, correction)
    elif _same(found):
        words = f"no difference found; every number is the same for both, with n = {n} {unit}"
    else:
        words = _not_found(found, unit, family, correction)
    return replace(found, words=words)


def number(x: float) -> str:
    """Two or three figures, never with more than they need: 0.031, 12, 4.1e-05."""
    return f"{x:.2g}" if abs(x) < 100 else f"{x:.0f}"


def _found(found: Comparison, unit: str, family: int, correction: str) -> str:
    """`a is lower than b in X by 0.1 [0.05, 0.15], which is better (p = ..., n = 16 prompts)`."""
    up = found.difference.value > (1 if found.kind == "ratio" else 0)
    better = "" if found.favours is None else f", which is {'better' if found.favours == found.a else 'worse'}"
    p = f"p = {found.p_corrected:.2g}" if found.p_corrected >= 1e-4 else "p < 0.0001"
    counted = _counted(family, correction)
    direction = "higher" if up else "lower"
    return (f"{found.a} is {direction} than {found.b} in {found.title} by {_size(found)}{better} "
            f"({p}{counted}, n = {found.difference.n} {unit})")  # fmt: skip


def _not_found(found: Comparison, unit: str, family: int, correction: str) -> str:
    """What would have shown; a difference that only the correction takes away is said as such."""
    nearly = not found.difference.includes(1 if found.kind == "ratio" else 0)
    counted = f" (p = {found.p:.2g} by itself{_counted(family, correction, found.p_corrected)})" * nearly
    n = f"with n = {found.difference.n} {unit}"
    if found.blind:
        return f"no difference found{counted}; {n} {NONE}: too few {unit}"
    return f"no difference found{counted}; {n} differences above {_resolution(found)} would show"


def _counted(family: int, correction: str, p: float | None = None) -> str:
    if correction not in CORRECTED or family < 2:
        return ""
    corrected = f"{p:.2g} " if p is not None else ""
    return f", {corrected}after {CORRECTED[correction]}'s correction for {family} comparisons"


def _size(found: Comparison) -> str:
    """The size of a difference without its sign, with the interval: `0.10 [0.05, 0.15]`, `3.1 % [2.8, 3.4]`."""
    ends, null = (found.difference.value, found.difference.low, found.difference.high), 0.0
    unit, factor = "", 1.0
    if found.kind == "ratio":
        null, unit, factor = 1.0, " %", 100.0
    sign = 1 if ends[0] >= null else -1
    size, low, high = (sign * factor * (end - null) for end in (ends[0], *ends[1:][::sign]))
    figures = max(0, 1 - math.floor(math.log10(high - low))) if high > low else 2
    return f"{size:.{figures}f}{unit} [{low:.{figures}f}, {high:.{figures}f}]"


def _resolution(found: Comparison) -> str:
    """A difference, a change in percent, or a factor."""
    if found.kind == "difference":
        return number(found.resolution)
    return (
        f"{number(100 * found.resolution)} %" if found.resolution < 2 else f"a factor of {number(1 + found.resolution)}"
    )


def _same(found: Comparison) -> bool:
    """Neither a difference nor any spread of it."""
    return found.difference.low == found.difference.high
