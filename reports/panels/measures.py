"""Measures of many kinds: one small figure each, and how they stand to one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from reports.figures import MUTED, PAPER, RULE, SIZE, arm_colour, as_percent, marker, panel, plain
from reports.panels.marks import bounded, limits_of_marks, whisker
from reports.panels.panel import FULL, fitting, made
from reports.sections import Mark, Panel
from reports.statistics import Array
from reports.words import signed

Named = tuple[str, int, Mark]
TICKS = "A tick per picture; the marker is the median."
ROOM = 34
"""Letters of a label that stand beside a number in one row."""
BETTER = {"lower": "left is better", "higher": "right is better", "neutral": ""}


def number(one: Mark, percent: bool) -> str:
    """A value as it is written beside its point."""
    if not np.isfinite(one.value):
        return "–"
    return signed(one.value) if percent else f"{one.value:#.3g}".rstrip(".").replace("-", "−")


def told(rows: Sequence[Named], percent: bool) -> str:
    """All rows in words."""
    said = []
    for label, _, one in rows:
        low, high = (number(Mark(end), percent) for end in (one.low, one.high))
        said.append(f"{label} {number(one, percent)}" + (f" ({low} to {high})" if bounded(one) else ""))
    return "; ".join(said)


def draw_rows(axes: Axes, rows: Sequence[Named], places: Sequence[float], percent: bool, none: float | None) -> None:
    """One whisker per row, its label above it on the left and its number on the right; a tick at no difference."""
    across = axes.get_yaxis_transform()
    for at, (label, style, one) in zip(places, rows, strict=True):
        if none is not None:
            axes.plot([none, none], [at - 0.24, at + 0.16], color=MUTED, linewidth=0.9, zorder=0.5)
        if np.isfinite(one.value):
            whisker(axes, at, one, style, horizontal=True)
        words, size = fitting(label, ROOM)
        under = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.8}  # so that no line of the grid runs through
        axes.text(0.0, at + 0.2, words, transform=across, va="bottom", fontsize=size, bbox=under)
        said = number(one, percent)
        axes.text(1.0, at + 0.2, said, transform=across, va="bottom", ha="right", fontsize=FULL, bbox=under)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=RULE)


def bare_rows(axes: Axes, marks: Sequence[Mark], axis: str, percent: bool) -> None:
    """The horizontal axis of rows of whiskers."""
    if percent:
        axes.set_xlim(*limits_of_marks(marks))
    axes.margins(x=0.04)
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter(as_percent if percent else plain)
    axes.set_xlabel(axis)


def worded(axis: str, better: str) -> str:
    """The words of an axis and which side of it is better."""
    side = BETTER[better]
    return f"{axis} ({side})" if axis and side else axis or side


def forest(
    name: str, title: str, rows: Sequence[Named], better: str = "lower", none: float | None = None, axis: str = "",
    percent: bool = False, note: str = "",
) -> Panel:  # fmt: skip
    """One measure for all models, with intervals: hollow where no difference holds, the base model in grey."""

    def draw(axes: Axes) -> None:
        draw_rows(axes, rows, np.arange(len(rows), dtype=np.float64)[::-1].tolist(), percent, none)
        axes.set_ylim(-0.45, len(rows) - 0.25)
        bare_rows(axes, [one for *_, one in rows], worded(axis, better), percent)

    figure = panel(draw, (SIZE[0], 0.75 + 0.44 * len(rows)))
    return made(name, title, f"{worded('Points with intervals', better)}: {told(rows, percent)}.", figure, note)


def overview(
    name: str, title: str, tasks: Sequence[tuple[str, Sequence[Named]]], axis: str = "", percent: bool = True,
    none: float | None = 1.0, note: str = "",
) -> Panel:  # fmt: skip
    """The same measure on several tasks, a block of rows each, on one scale."""
    rows = [row for _, block in tasks for row in block]
    heights = np.cumsum([0.0, *(len(block) + 0.9 for _, block in tasks)])

    def draw(axes: Axes) -> None:
        for (task, block), top in zip(tasks, heights, strict=False):
            words, size = fitting(task)
            across = axes.get_yaxis_transform()
            axes.text(0.0, -top + 0.15, words, transform=across, va="bottom", fontsize=size, fontweight="bold")
            draw_rows(axes, block, [-top - 0.85 - i for i in range(len(block))], percent, none)
        axes.set_ylim(-heights[-1] + 0.4, 0.9)
        bare_rows(axes, [one for *_, one in rows], axis, percent)

    figure = panel(draw, (SIZE[0], 0.75 + 0.44 * float(heights[-1])))
    text = " ".join(f"{task}: {told(block, percent)}." for task, block in tasks)
    return made(name, title, text, figure, note)


def tradeoff(
    name: str, title: str, x_axis: str, y_axis: str, points: Sequence[tuple[str, int, Mark, Mark]], note: str = ""
) -> Panel:
    """Two measures against each other, with both intervals; the key says which model is which."""

    def draw(axes: Axes) -> None:
        for _, style, x, y in points:
            colour, base = arm_colour(style), style < 0
            across, up = ((m.low, m.high) if bounded(m) else (m.value, m.value) for m in (x, y))
            axes.plot(across, [y.value] * 2, color=colour, linewidth=1.3)
            axes.plot([x.value] * 2, up, color=colour, linewidth=1.3)
            size = 9.0 if base else 7.0
            axes.plot(x.value, y.value, marker=marker(style), markersize=size, color=colour, linestyle="none")
        axes.grid(axis="x", color=RULE)
        axes.margins(0.08)
        axes.xaxis.set_major_formatter(plain)
        axes.yaxis.set_major_formatter(plain)
        axes.set_xlabel(x_axis)
        axes.set_ylabel(y_axis)

    said = "; ".join(f"{label} {x.value:.3g} and {y.value:.3g}" for label, _, x, y in points)
    return made(name, title, f"{x_axis} and {y_axis}: {said}.", panel(draw), note)


def nearest(
    name: str, title: str, rows: Sequence[tuple[str, int, Array]], threshold: float | None = None,
    axis: str = "distance to the nearest training picture", note: str = TICKS,
) -> Panel:  # fmt: skip
    """A dot per picture at its distance to the nearest training picture; the bar is the median of its row.

    Held-out pictures (a negative style) show how near pictures come that no training saw; `threshold` is drawn dashed.
    """

    def draw(axes: Axes) -> None:
        across = axes.get_yaxis_transform()
        for at, (label, style, values) in zip(range(len(rows))[::-1], rows, strict=True):
            colour, filled = arm_colour(style), np.isfinite(values)
            row: dict[str, Any] = {"color": colour, "marker": "|", "markersize": 9, "linestyle": "none", "alpha": 0.7}
            axes.plot(values[filled], np.full(filled.sum(), at - 0.08), **row)
            axes.plot(np.median(values[filled]), at - 0.08, marker=marker(style), markersize=7, color=colour)
            words, size = fitting(label)
            axes.text(0.0, at + 0.2, words, transform=across, va="bottom", fontsize=size)
        if threshold is not None:
            axes.axvline(threshold, color=MUTED, linewidth=0.9, linestyle=(0, (2, 2)))
        axes.set(yticks=[], ylim=(-0.5, len(rows) - 0.25), xlabel=axis)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_formatter(plain)

    said = "; ".join(
        f"{label} median {np.nanmedian(values):.3g}, least {np.nanmin(values):.3g}" for label, _, values in rows
    )
    return made(name, title, f"{axis}: {said}.", panel(draw, (SIZE[0], 0.75 + 0.5 * len(rows))), note)
