"""Names of arms for people, numbers with their intervals as text, and tables in markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.quality.contrasts import Steps
from benchmarks.quality.drawn import Difference
from benchmarks.quality.extra import IDEAS
from benchmarks.quality.numbers import Cell
from reports.statistics import Ratio
from reports.words import listed as listed

ARM_WORDS = {
    "lora": "LoRA", "fera-prior": "FeRA, start from the prior", "fera-random": "FeRA, random start",
    "fera-clock": "FeRA, clock instead of energies", "fera-uniform": "FeRA, uniform gates",
    "fera-fecl": "FeRA, prior and consistency loss", "fera-published": "FeRA, published mode", "dora": "DoRA",
    "adalora": "AdaLoRA", "loha": "LoHa", "ia3": "IA3", "fera-experts2": "FeRA, 2 experts",
    "fera-experts4": "FeRA, 4 experts", "fera-bands2": "FeRA, 2 bands", "fera-bands3": "FeRA, 3 bands",
    "fera-loha-clock": "FeRA, LoHa's kind, by a clock",
}  # fmt: skip
IDEA_WORDS = {idea.arm.name: idea.question for idea in IDEAS}


def named(arm: str) -> str:
    """An arm as people read it, with the name that `--arms` takes."""
    return f"{ARM_WORDS.get(arm, IDEA_WORDS.get(arm, ''))} (`{arm}`)"


def cell_name(cell: Cell) -> str:
    """A model and a task in words."""
    return f"{cell[0]}, {cell[1]}"


def ratio(found: Ratio | None, bold: bool = False) -> str:
    """A ratio with its interval; a dash where there is none."""
    if found is None:
        return "-"
    value = f"{found.value:.3f}"
    return f"{f'**{value}**' if bold else value} ({found.low:.3f} to {found.high:.3f})"


def probability(p: float) -> str:
    """A p value as it is printed."""
    if not math.isfinite(p):
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def steps(found: Steps | None) -> str:
    """Steps to a target as a share, with the ends of its confidence set; what lies beyond training is not known."""
    if found is None:
        return "-"
    if math.isinf(found.value):
        return "not reached" if math.isinf(found.low) else f"not reached ({found.low:.2f} at best)"
    high = f"to {found.high:.2f}" if math.isfinite(found.high) else "or more"
    return f"{found.value:.2f} ({found.low:.2f} {high})"


def difference(found: Difference, digits: int = 3) -> str:
    """A difference with its sign and interval; no interval where no pair of values differs."""
    if found.low == found.high == found.value == 0:
        return f"{0:+.{digits}f} (no pair differs)"
    return f"{found.value:+.{digits}f} ({found.low:+.{digits}f} to {found.high:+.{digits}f})"


def percent(share: float) -> str:
    """A small share in per cent, with a digit where it is needed."""
    return f"{100 * share:.1f} %" if share < 0.0995 else f"{100 * share:.0f} %"


def finding(found: Ratio, lower: str, higher: str) -> str:
    """What a ratio of errors says once it is corrected: which side is better and by how much, or what would show.

    An interval is not corrected; where it excludes 1 and the corrected p does not hold, that is said.
    """
    if not found.bounded:
        return "one seed or picture only: nothing can be said"
    side, by = (lower, 1 - found.value) if found.value < 1 else (higher, 1 - 1 / found.value)
    if found.holds:
        return f"{side} has the lower error, by {percent(by)}"
    power = f"with 80 % power, differences above {percent(math.expm1(found.resolution))} would show"
    if found.differs:
        return f"not settled: alone it speaks for {side}, by {percent(by)}, but not after correction; {power}"
    return f"no difference found; {power}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table; empty text where there are no rows."""
    if not rows:
        return ""
    lines = [heads, ["---"] + ["---"] * (len(heads) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
