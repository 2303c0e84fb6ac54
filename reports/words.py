"""Numbers in words: every sentence names what was measured, its interval and how many repeats stand behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from reports.sections import Said
from reports.statistics import Ratio
from spectra.analysis.statistics import Estimate

FEW_SEEDS = 5
MOST_DIGITS = 3
"""Decimals of a per cent at most."""
Bounds = Ratio | Estimate
HARM = "At some noise levels the error is higher than that of the"
"""How a sentence begins that says where an adapter is worse than the base model, though it may be better in all."""


def count(n: int, noun: str) -> str:
    """`3 seeds`, `1 seed`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def capital(text: str) -> str:
    """The same text as the beginning of a sentence."""
    return text[:1].upper() + text[1:]


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def digits_of(*ratios: Bounds | float) -> int:
    """Decimals with which percentages that stand together are written: few, but no change becomes zero by them."""
    values = [v for r in ratios for v in ((r,) if isinstance(r, float) else (r.value, r.low, r.high))]
    changes = [abs(v - 1) * 100 for v in values if np.isfinite(v) and v <= 3 and v != 1]
    enough = 0 if max(changes, default=0) >= 19.95 else 1
    while enough < 2 and (any(round(change, enough) == 0 for change in changes) or alike(ratios, enough)):
        enough += 1
    return enough


def alike(ratios: Sequence[Bounds | float], digits: int) -> bool:
    """True where the two ends of an interval would be written as one number."""
    ends = [(r.low, r.high) for r in ratios if not isinstance(r, float) and np.isfinite([r.low, r.high]).all()]
    return any(low != high and signed(low, digits) == signed(high, digits) for low, high in ends)


def percent(ratio: float, digits: int | None = None) -> str:
    """A ratio as a change without sign: 0.953 is `4.7 %`; digits that mean something, or as many as are asked for."""
    size, digits = abs(ratio - 1) * 100, digits_of(ratio) if digits is None else digits
    while 0 < ratio < 1 and digits < MOST_DIGITS and round(size, digits) == 100:
        digits += 1  # something is left of it
    return f"{size:.{digits}f} %"


def factor(ratio: float, digits: int) -> str:
    """A large ratio in plain figures."""
    short = f"{ratio:.{digits}g}"
    return np.format_float_positional(float(short), trim="-") if ratio < 1e6 else short


def change(ratio: float, less: str = "lower", more: str = "higher", digits: int | None = None) -> str:
    """`4.7 % lower`; a large ratio is given as a factor."""
    if not np.isfinite(ratio):
        return "beyond measure"
    if ratio > 3:
        return f"{factor(ratio, 3)} times as {'high' if more == 'higher' else 'much'}"
    return f"{percent(ratio, digits)} {less if ratio < 1 else more}"


def signed(ratio: float, digits: int | None = None) -> str:
    """A ratio as a signed change for tables and axes: `−4.7 %`; from 3 on, a factor."""
    if not np.isfinite(ratio):
        return "–"
    if ratio > 3:
        return f"× {factor(ratio, 2)}"
    sign = "−" if ratio < 1 else "+"
    return f"{sign}{percent(ratio, digits)}"


def span(ratio: Ratio, digits: int | None = None) -> str:
    """An interval for tables: `−6.4 % to −3.0 %`."""
    digits = digits_of(ratio) if digits is None else digits
    return f"{signed(ratio.low, digits)} to {signed(ratio.high, digits)}" if ratio.bounded else "no interval"


def cells(ratio: Ratio) -> str:
    """The repeats behind a number, in short: `3 seeds × 16 samples`."""
    return f"{count(ratio.seeds, 'seed')} × {count(ratio.samples, 'sample')}"


def repeats(ratio: Ratio, paired: bool = True) -> str:
    """Which repeats an interval is over, in words."""
    how = "paired over " if paired else "over "
    if ratio.seeds == 1:
        samples = count(ratio.samples, "validation sample")
        return f"{how}{samples} of one training seed, so it says nothing of other seeds"
    return f"{how}{count(ratio.seeds, 'training seed')} and {count(ratio.samples, 'validation sample')}"


def at_levels(noise: Sequence[float], ratios: Sequence[Ratio]) -> list[str]:
    """Where ratios hold, each direction by itself: `higher at all 8 noise levels, most at 0.091 (+20 %)`."""
    told, total = [], count(len(ratios), "noise level")
    for word, lower in (("lower", True), ("higher", False)):
        found = [(level, r.value) for level, r in zip(noise, ratios, strict=True) if r.holds and (r.value < 1) == lower]
        if not found:
            continue
        level, value = max(found, key=lambda one: abs(np.log(one[1])))
        many = f"all {total}" if 1 < len(found) == len(ratios) else f"{len(found)} of {total}"
        told.append(f"{word} at {many}, {'most ' if len(found) > 1 else ''}at {level:.2g} ({signed(value)})")
    return told


def higher_at(noise: Sequence[float], ratios: Sequence[Ratio]) -> str:
    """At which noise levels errors are higher, of what holds after correction: `0.96 (+7.4 %) and 0.87 (+3.1 %)`."""
    found = [(level, r.value) for level, r in zip(noise, ratios, strict=True) if r.holds and r.value > 1]
    return listed([f"{level:.2g} ({signed(value)})" for level, value in found]) if found else ""


def interval(ratio: Ratio, less: str = "lower", more: str = "higher") -> str:
    """`95 % interval 3.0 % to 6.4 % lower`."""
    if not ratio.bounded:
        return "no interval"
    return f"95 % interval {between(ratio, less, more)}"


def between(ratio: Bounds, less: str = "lower", more: str = "higher") -> str:
    """The ends of an interval of a ratio, one direction said once: `3.0 % to 6.4 % lower`."""
    low, high, digits = ratio.low, ratio.high, digits_of(ratio)
    if (low < 1) == (high < 1) and high <= 3:
        near, far = sorted((low, high), key=lambda end: abs(end - 1))
        return f"{percent(near, digits)} to {percent(far, digits)} {less if low < 1 else more}"
    return f"{change(low, less, more, digits)} to {change(high, less, more, digits)}"


def no_panels(groups: Sequence[Sequence[str]]) -> str:
    """What a section with panels of pairs says of models that are identical; empty where none are."""
    return " ".join(f"{listed(names)} are identical, so no panel compares them." for names in groups)


def with_ends(found: Estimate, digits: int = 2) -> str:
    """A number with its interval: `0.21 (0.14 to 0.28)`."""
    if not (np.isfinite(found.low) and np.isfinite(found.high)):
        return f"{found.value:.{digits}f} (no interval)"
    return f"{found.value:.{digits}f} ({found.low:.{digits}f} to {found.high:.{digits}f})"


def brief(said: Sequence[Said]) -> list[Said]:
    """The same sentences, each with its short support where one of its kind came before."""
    kinds = [one.kind for one in said]
    again = [bool(one.short) and one.kind in kinds[:i] for i, one in enumerate(said)]
    return [
        replace(one, support=one.short) if said_before else one for one, said_before in zip(said, again, strict=True)
    ]
