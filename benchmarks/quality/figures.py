"""Figures of the results, as SVG files that read on light and dark pages: the background is white and stays so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.quality.contrasts import along_training, by_level, have
from benchmarks.quality.numbers import Array, Cell, cells, rows_of
from benchmarks.quality.summary import MAIN, REFERENCE, Compared
from benchmarks.quality.words import ARM_WORDS, cell_name
from reports.statistics import Ratio

STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "spectra-adapt", "font.family": "DejaVu Sans", "font.size": 9,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
    "grid.color": "#e3e3e3", "axes.edgecolor": "#666666", "text.color": "#222222", "axes.labelcolor": "#333333",
    "xtick.color": "#333333", "ytick.color": "#333333", "axes.titlesize": 9.5, "axes.titleweight": "bold",
    "axes.unicode_minus": True, "legend.frameon": False,
}  # fmt: skip
COLOURS = ("#1f2a44", "#0072b2", "#d55e00", "#009e73", "#aa4499", "#8c6d1f")
"""Okabe and Ito's, without the light ones; the first is LoRA's."""
MARKERS = ("o", "s", "D", "^", "v", "X")
SHOWN = ("lora", "fera-prior", "fera-random", "fera-clock", "fera-published", "loha")
"""Arms of the learning curves and of the errors by noise level."""
FAR = 0.1
"""A ratio so far from 1 is written at the frame's end: a frame that held it would flatten all others."""
TICKS = (0.005, 0.01, 0.02, 0.04, 0.05, 0.1, 0.2, 0.5)
"""How far from 1 the ticks of the forest may be."""


def write(figure: Figure, path: Path) -> None:
    """Save as SVG; equal numbers give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        figure.savefig(path, format="svg", metadata={"Date": None}, facecolor="white")


def canvas(count: int, columns: int, size: tuple[float, float], **shared: Any) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels in so many columns; places of the grid that are left over stay empty."""
    figure = Figure(figsize=size, layout="constrained")
    axes = list(figure.subplots(max(1, -(-count // columns)), columns, squeeze=False, **shared).flat)
    for axis in axes[count:]:
        axis.set_axis_off()
    return figure, axes[:count]


def reach(ratios: Sequence[Ratio]) -> float:
    """How far from 1 a frame goes: to the last end of an interval of a ratio that is not `FAR` from it."""
    near = [ratio for ratio in ratios if abs(ratio.value - 1) < FAR] or ratios
    apart = np.abs(np.array([[ratio.value, ratio.low, ratio.high] for ratio in near]) - 1)
    return max(1.06 * float(apart[np.isfinite(apart)].max()), 0.01)


def forest(compared: Sequence[Compared]) -> Figure:
    """Ratio of final errors to LoRA's: a panel over all cells, then one for each cell, a row for each arm."""
    with mpl.rc_context(STYLE):
        where = list(compared[0].each)
        columns = [[one.all for one in compared], *([one.each[cell] for one in compared] for cell in where)]
        size = 2.3 + 1.25 * len(columns), 1.1 + 0.25 * len(compared)
        figure, axes = canvas(len(columns), len(columns), size, sharey=True, sharex=True)
        most = reach([ratio for column in columns for ratio in column if ratio is not None])
        for axis, ratios, title in zip(axes, columns, ["all cells", *map(two_lines, where)], strict=True):
            forest_panel(axis, ratios, title, most)
        axes[0].set_facecolor("#f2f4f8")
        axes[0].set_yticks(range(len(compared)), [ARM_WORDS.get(one.a, one.a) for one in compared])
        axes[0].set_ylim(len(compared) - 0.5, -0.5)
        figure.supxlabel("final validation error over LoRA's (below 1 is better), 95 % intervals", fontsize=9)
        entries = {"differs from LoRA after correction": mark(True, "#222222"), "does not": mark(False, "#777777")}
        handles = [Line2D([], [], linewidth=1.6, **style) for style in entries.values()]
        figure.legend(handles, list(entries), loc="outside upper right", ncols=2, fontsize=8.5)
    return figure


def two_lines(cell: Cell) -> str:
    """The name of a cell for a narrow panel."""
    return cell_name(cell).replace(", ", ",\n")


def mark(holds: bool, colour: str) -> dict[str, Any]:
    """How a ratio is marked: filled where it holds after correction; small, so that short intervals are seen."""
    return {"color": colour, "marker": "o", "markersize": 3.6, "markerfacecolor": colour if holds else "white"}


def forest_panel(axis: Axes, ratios: Sequence[Ratio | None], title: str, most: float) -> None:
    """One column; a ratio beyond the frame is an arrow with its number."""
    axis.axvline(1, color="#666666", linewidth=0.9)
    for row, ratio in enumerate(ratios):
        if ratio is None:
            continue
        colour = "#777777" if not ratio.holds else COLOURS[1] if ratio.value < 1 else COLOURS[2]
        if abs(ratio.value - 1) > most:
            beyond(axis, ratio.value, row, most, colour)
            continue
        ends = np.clip([ratio.low, ratio.high], 1 - most, 1 + most)
        axis.plot(ends, [row, row], color=colour, linewidth=1.6, solid_capstyle="butt")
        for end, head in ((ends[0], "<"), (ends[1], ">")):
            if end in (1 - most, 1 + most):  # the interval goes on
                axis.plot([end], [row], color=colour, marker=head, markersize=3.6, clip_on=False)
        axis.plot([ratio.value], [row], **mark(ratio.holds, colour))
    axis.set_xlim(1 - most, 1 + most)
    step = max(step for step in TICKS if step <= 0.8 * most)
    axis.set_xticks([1 - step, 1, 1 + step], [f"{1 - step:g}", "1", f"{1 + step:g}"])
    axis.set_title(title)
    axis.grid(visible=False, axis="y")
    axis.tick_params(axis="y", length=0)


def beyond(axis: Axes, value: float, row: int, most: float, colour: str) -> None:
    """The number of a ratio that the frame does not reach, at the frame's end."""
    right = value > 1
    words = f"{value:.2f} →" if right else f"← {value:.2f}"
    place = (1 + most if right else 1 - most, row)
    axis.annotate(words, place, ha="right" if right else "left", va="center", color=colour, fontsize=8)


def learning_curves(numbers: xr.Dataset, arms: Sequence[str] = SHOWN) -> Figure:
    """Error over LoRA's at the same step, one panel a cell."""
    figure = panels(numbers, arms, curve_panel)
    figure.supxlabel("training steps", fontsize=9)
    figure.supylabel("error over LoRA's at the same step", fontsize=9)
    return figure


def levels(numbers: xr.Dataset, arms: Sequence[str] = SHOWN) -> Figure:
    """Ratio of final errors to LoRA's by noise level, one panel a cell."""
    figure = panels(numbers, arms, level_panel)
    figure.supxlabel("log SNR (noise on the left, almost finished on the right)", fontsize=9)
    figure.supylabel("final error over LoRA's", fontsize=9)
    return figure


def panels(
    numbers: xr.Dataset, arms: Sequence[str], panel: Callable[[Axes, xr.Dataset, Cell, list[str]], None]
) -> Figure:
    """A panel for each cell in which some arm can be compared with LoRA; each has a scale of its own."""
    with mpl.rc_context(STYLE):
        there = {
            cell: [arm for arm in arms if arm != REFERENCE and have(numbers, cell, arm, REFERENCE)]
            for cell in cells(numbers)
        }
        shown = {cell: found for cell, found in there.items() if found}
        columns = max(1, min(2, len(shown)))
        size = 0.6 + 3.8 * columns, 0.9 + 2.3 * -(-len(shown) // columns)
        figure, axes = canvas(len(shown), columns, size)
        for axis, (cell, found) in zip(axes, shown.items(), strict=True):
            axis.axhline(1, color="#666666", linewidth=0.9)
            panel(axis, numbers, cell, found)
            axis.set_title(cell_name(cell))
        legend(figure, axes)
    return figure


def curve_panel(axis: Axes, numbers: xr.Dataset, cell: Cell, arms: Sequence[str]) -> None:
    """Ratios along training, with the interval of the main arm as a band and those of the last step as bars."""
    for place, arm in enumerate(arms):
        steps, ratios = along_training(numbers, cell, arm, REFERENCE)
        value, low, high = ends_of(ratios)
        style = style_of(arm)
        axis.plot(steps, value, label=ARM_WORDS[arm], **style)
        if arm == MAIN:
            axis.fill_between(steps, low, high, color=style["color"], alpha=0.12, linewidth=0)
        beside = steps[-1] * (1.03 + 0.02 * place)  # beyond the last step, so that the bars do not cover each other
        axis.plot([beside, beside], [low[-1], high[-1]], color=style["color"], linewidth=1.6)
    axis.set_xticks(np.linspace(0, steps[-1], 4))


def level_panel(axis: Axes, numbers: xr.Dataset, cell: Cell, arms: Sequence[str]) -> None:
    """Ratios by noise level; a bar is a 95 % interval of its own."""
    for place, arm in enumerate(arms):
        ratios = by_level(numbers, cell, arm, REFERENCE)
        snr = numbers.log_snr.values[rows_of(numbers, cell, arm)[0]][: len(ratios)]
        value, low, high = ends_of(ratios)
        beside = snr + 0.12 * (place - (len(arms) - 1) / 2)  # so that the bars do not cover each other
        axis.errorbar(beside, value, [value - low, high - value], elinewidth=0.9, label=ARM_WORDS[arm], **style_of(arm))


def ends_of(ratios: Sequence[Ratio]) -> tuple[Array, Array, Array]:
    """Values and both ends of their intervals, as arrays."""
    value, low, high = np.array([(ratio.value, ratio.low, ratio.high) for ratio in ratios]).T
    return value, low, high


def style_of(arm: str) -> dict[str, Any]:
    """The line of an arm: the same in all figures."""
    place = SHOWN.index(arm)
    return {"color": COLOURS[place], "marker": MARKERS[place], "markersize": 3.5, "linewidth": 1.2}


def legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend of all panels, above them."""
    entries = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(entries.values(), entries.keys(), loc="outside upper center", ncols=3, fontsize=8.5)
