"""One measure for many models: a point with its interval in each row, its name before it and its number behind it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.figures import MUTED, as_percent, plain
from reports.panels.columns import columns
from reports.panels.marks import bounded, limits_of_marks, whisker
from reports.panels.panel import made
from reports.sections import Mark, Panel
from reports.statistics import Array
from reports.words import signed

Named = tuple[str, int, Mark]
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


def worded(axis: str, better: str) -> str:
    """The words of an axis and which side of it is better."""
    side = BETTER[better]
    return f"{axis} ({side})" if axis and side else axis or side


def rows_of(
    rows: Sequence[Named | str], numbers: Sequence[str], axis: str, none: float | None = None, percent: bool = False
) -> Figure:
    """A row for each model, and a title for each string among them; a line at no difference, below the marks."""
    models = [None if isinstance(row, str) else row for row in rows]

    def draw(axes: Axes, places: Array) -> None:
        if none is not None:
            axes.axvline(none, color=MUTED, linewidth=1.2, zorder=0.9)
        for at, row in zip(places, models, strict=True):
            if row is not None and np.isfinite(row[2].value):
                whisker(axes, float(at), row[2], row[1], horizontal=True)
        if percent:
            axes.set_xlim(*limits_of_marks([row[2] for row in models if row is not None]))
        axes.margins(x=0.04)
        axes.xaxis.set_major_formatter(as_percent if percent else plain)

    labels = [row if isinstance(row, str) else row[0] for row in rows]
    return columns(labels, numbers, axis, draw, [at for at, row in enumerate(rows) if isinstance(row, str)])


def forest(
    name: str, title: str, rows: Sequence[Named], better: str = "lower", none: float | None = None, axis: str = "",
    percent: bool = False, note: str = "",
) -> Panel:  # fmt: skip
    """One measure for all models, with intervals: hollow where no difference holds, the base model in grey."""
    figure = rows_of(rows, [number(one, percent) for *_, one in rows], worded(axis, better), none, percent)
    return made(name, title, f"{worded('Points with intervals', better)}: {told(rows, percent)}.", figure, note)


def overview(
    name: str, title: str, tasks: Sequence[tuple[str, Sequence[Named]]], axis: str = "", percent: bool = True,
    none: float | None = 1.0, note: str = "",
) -> Panel:  # fmt: skip
    """The same measure on several tasks, a block of rows each, on one scale."""
    rows: list[Named | str] = []
    for task, block in tasks:
        rows += [task, *block]
    numbers = ["" if isinstance(row, str) else number(row[2], percent) for row in rows]
    text = " ".join(f"{task}: {told(block, percent)}." for task, block in tasks)
    return made(name, title, text, rows_of(rows, numbers, axis, none, percent), note)
