"""Measures of many kinds: how they stand to one another, and how near pictures come to those of the training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from reports.figures import MUTED, RULE, arm_colour, marker, panel, plain
from reports.panels.columns import columns
from reports.panels.marks import bounded
from reports.panels.panel import made
from reports.sections import Mark, Panel
from reports.statistics import Array

TICKS = "A tick per picture; the marker is the median."


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

    def draw(axes: Axes, places: Array) -> None:
        for at, (_, style, values) in zip(places, rows, strict=True):
            colour, filled = arm_colour(style), np.isfinite(values)
            row: dict[str, Any] = {"color": colour, "marker": "|", "markersize": 9, "linestyle": "none", "alpha": 0.7}
            axes.plot(values[filled], np.full(filled.sum(), at), **row)
            axes.plot(np.median(values[filled]), at, marker=marker(style), markersize=7, color=colour)
        if threshold is not None:
            axes.axvline(threshold, color=MUTED, linewidth=0.9, linestyle=(0, (2, 2)))
        axes.xaxis.set_major_formatter(plain)

    said = "; ".join(
        f"{label} median {np.nanmedian(values):.3g}, least {np.nanmin(values):.3g}" for label, _, values in rows
    )
    figure = columns([label for label, *_ in rows], [""] * len(rows), axis, draw)
    return made(name, title, f"{axis}: {said}.", figure, note)
