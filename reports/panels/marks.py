"""Points with intervals, and the scales that figures of the same kind share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes

from reports.figures import INK, PAPER, arm_colour, marker
from reports.sections import Mark
from reports.statistics import Ratio

APART = 4.0
"""Panels share one scale unless one of them needs so many times the room of another."""

WIDE = (0.01, 0.1, 0.5, 1, 2, 10, 100)
FACTORS = (
    (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5), (0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.4, 1.6), (0.9, 0.95, 1, 1.05, 1.1),
    (0.97, 0.98, 0.99, 1, 1.01, 1.02, 1.03), (0.995, 1, 1.005), (0.999, 1, 1.001),
)  # fmt: skip
"""Ticks of ratios, from long axes to short ones."""

Row = tuple[str, int, Sequence[Mark]]
"""A label, a style (negative: the base model) and a mark for each place."""


def mark(ratio: Ratio) -> Mark:
    """A ratio as a point: filled where there is a difference after correction for all that is shown together."""
    return Mark(ratio.value, ratio.low, ratio.high, ratio.holds)


def bounded(one: Mark) -> bool:
    """True where there is an interval."""
    return bool(np.isfinite(one.low) and np.isfinite(one.high))


def whisker(axes: Axes, at: float, one: Mark, style: int, horizontal: bool = False) -> None:
    """One point with its interval at place `at`; hollow where no difference holds, the base model always filled."""
    colour = arm_colour(style)
    ends = (one.low, one.high) if bounded(one) else (one.value, one.value)
    axes.plot(*((ends, (at, at)) if horizontal else ((at, at), ends)), color=colour, linewidth=1.6)
    face = colour if one.holds or style < 0 else PAPER  # no line shows through: shapes stay plain
    size = 8.0 if style < 0 else 5.5 if style % 8 < 5 else 7.0
    point = (one.value, at) if horizontal else (at, one.value)
    axes.plot(*point, marker=marker(style), markersize=size, color=colour, markerfacecolor=face, linestyle="none")


def whiskers(axes: Axes, x: Iterable[float], marks: Sequence[Mark], style: int) -> None:
    """Points with intervals at the places `x`."""
    for at, one in zip(x, marks, strict=True):
        whisker(axes, float(at), one, style)


def no_difference(axes: Axes, horizontal: bool = False, at: float = 1.0) -> None:
    """The line of no difference."""
    line = axes.axhline if horizontal else axes.axvline
    line(at, color=INK, linewidth=0.9, zorder=0.5)


def ratio_scale(axes: Axes) -> None:
    """A logarithmic vertical axis of ratios, with ticks that people read as factors."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    choices = [[mark for mark in marks if low <= mark <= high] for marks in (WIDE, *FACTORS)[int(high / low <= 20) :]]
    ticks = next((choice for choice in choices if len(choice) > 2), [])
    if not ticks:  # a very short axis: 1 and two places that are near its ends
        reach = 0.8 * min(np.log(high), -np.log(low)) if low < 1 < high else 0.0
        ends = (np.exp(-reach), np.exp(reach)) if reach > 0 else (low, high)
        ticks = sorted({float(f"{ends[0]:.4g}"), *((1,) if low <= 1 <= high else ()), float(f"{ends[1]:.4g}")})
    axes.set_yticks(ticks, [f"× {mark:g}" for mark in ticks])
    axes.minorticks_off()


def limits_of_marks(marks: Iterable[Mark]) -> tuple[float, float]:
    """Shared limits for panels of ratios, 1 included; one very wide interval does not flatten the rest."""
    found = [one for one in marks if np.isfinite(one.value)]
    values = [one.value for one in found] + [1.0]
    ends = [end for one in found if bounded(one) for end in (one.low, one.high)]
    reach = 4 * max(abs(np.log(value)) for value in values) + 0.02
    low, high = min([*values, *ends]), max([*values, *ends])
    low, high = max(low, float(np.exp(-reach))), min(high, float(np.exp(reach)))
    pad = 0.06 * (high - low) + 1e-3
    return low - pad, high + pad


def limits_of(ratios: Iterable[Ratio]) -> tuple[float, float]:
    """Shared limits of ratios."""
    return limits_of_marks([mark(ratio) for ratio in ratios])


def scales(groups: Sequence[Sequence[Ratio]]) -> tuple[list[tuple[float, float]], str]:
    """Limits of the ratios of each panel, and a sentence: one scale, or each its own where one would flatten others."""
    own = [limits_of(group) for group in groups]
    widths = [high - low for low, high in own]
    if own and max(widths) > APART * min(widths):
        return own, "Each panel of ratios has a scale of its own, as one needs far more room than another."
    return [limits_of([ratio for group in groups for ratio in group])] * len(own), ""
