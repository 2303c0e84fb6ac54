"""Numbers of an evaluation as points of figures, and the key to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reports import panels
from reports.arms import STYLES
from reports.evaluated import Evaluation
from reports.evaluation_tables import shown_as
from reports.metrics import Comparison, Measure
from reports.sections import Key, Mark
from reports.statistics import Ratio


def marks(ratios: Sequence[Ratio]) -> list[Mark]:
    """Ratios as points."""
    return [panels.mark(ratio) for ratio in ratios]


def keys(found: Evaluation) -> tuple[Key, ...]:
    """The key of figures that show all models of an evaluation."""
    return tuple(panels.style_key(shown_as(x), found.styles[x]) for x in found.shown)


def point(m: Measure, found: Evaluation) -> tuple[str, int, Mark]:
    """A measure of one model as a row of a figure: filled where it differs from the base model's."""
    holds = any(c.holds for c in found.to_base if c.name == m.name and c.a == m.adapter)
    low, high = (end if np.isfinite(end) else np.nan for end in (m.value.low, m.value.high))
    return shown_as(m.adapter), found.styles[m.adapter], Mark(m.value.value, low, high, holds)


def pair_styles(found: Evaluation, pairs: Sequence[tuple[str, str]]) -> list[int]:
    """A style for each pair (a, b): that of `a` where no pair before has it, else one that no adapter has.

    Eight pairs are told apart, as eight adapters are; of more, some share a mark.
    """
    taken: list[int] = []
    free = [style for style in range(STYLES) if style not in found.styles.values()]
    for a, _ in pairs:
        choices = [style for style in (found.styles[a], *free, *range(STYLES)) if style not in taken]
        taken.append(choices[0] if choices else found.styles[a])
    return taken


def ratio_mark(m: Measure | None) -> Mark:
    """A ratio to the held-out pictures as a point: filled where its own interval excludes a match."""
    if m is None:
        return Mark(np.nan)
    value = m.value
    low, high = (end if np.isfinite(end) and end > 0 else np.nan for end in (value.low, value.high))
    return Mark(value.value, low, high, not value.includes(1.0))


def compared_mark(c: Comparison) -> Mark:
    """A comparison as a point."""
    low, high = (end if np.isfinite(end) else np.nan for end in (c.difference.low, c.difference.high))
    return Mark(c.difference.value, low, high, c.holds)
