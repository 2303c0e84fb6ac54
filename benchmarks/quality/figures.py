"""Figures of the results, as SVG files that read on light and dark pages: the background is white and stays so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.quality.contrasts import by_level, have
from benchmarks.quality.numbers import Cell, arms_of, cells, curve_of, rows_of
from benchmarks.quality.summary import REFERENCE, Compared
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
SHOWN = ("lora", "fera-prior", "fera-random", "fera-clock", "fera-published", "dora")
"""Arms of the learning curves and of the errors by noise level."""


def write(figure: Figure, path: Path) -> None:
    """Save as SVG; equal numbers give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        figure.savefig(path, format="svg", metadata={"Date": None}, facecolor="white")


def canvas(columns: int, size: tuple[float, float], **shared: Any) -> tuple[Figure, list[Axes]]:
    """A figure with a row of panels."""
    figure = Figure(figsize=size, layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False, **shared)[0])


def forest(compared: Sequence[Compared]) -> Figure:
    """Ratio of final errors to LoRA's: a panel over all cells, then one for each cell, a row for each arm."""
    with mpl.rc_context(STYLE):
        where = list(compared[0].each)
        figure, axes = canvas(1 + len(where), (2.3 + 1.75 * (1 + len(where)), 0.9 + 0.27 * len(compared)), sharey=True)
        columns = [[one.all for one in compared], *([one.each[cell] for one in compared] for cell in where)]
        titles = ["all cells", *(cell_name(cell) for cell in where)]
        for axis, ratios, title in zip(axes, columns, titles, strict=True):
            forest_panel(axis, ratios, title)
        axes[0].set_yticks(range(len(compared)), [ARM_WORDS.get(one.a, one.a) for one in compared])
        axes[0].set_ylim(len(compared) - 0.5, -0.5)
        figure.supxlabel("final validation error, ratio to LoRA's (below 1 is better), 95 % intervals", fontsize=9)
    return figure


def forest_panel(axis: Axes, ratios: Sequence[Ratio | None], title: str, most: float = 1.12) -> None:
    """One column; what lies beyond the frame is an arrow with its number."""
    least = 2 - most
    axis.axvline(1, color="#666666", linewidth=0.9)
    for row, ratio in enumerate(ratios):
        if ratio is None:
            continue
        colour = "#888888" if not ratio.holds else COLOURS[1] if ratio.value < 1 else COLOURS[2]
        if ratio.value > most:
            axis.annotate(f"{ratio.value:.2f} →", (most, row), ha="right", va="center", color=colour, fontsize=8)
            continue
        ends = np.clip([ratio.low, ratio.high], least, most)
        axis.plot(ends, [row, row], color=colour, linewidth=1.8, solid_capstyle="butt")
        axis.plot([ratio.value], [row], marker="o" if ratio.holds else "d", markersize=4.5, color=colour)
    axis.set_xlim(least, most)
    axis.set_title(title)
    axis.grid(visible=False, axis="y")
    axis.tick_params(axis="y", length=0)


def learning_curves(numbers: xr.Dataset, arms: Sequence[str] = SHOWN) -> Figure:
    """Error over LoRA's final error along training, one panel a cell: means over seeds and pictures."""
    with mpl.rc_context(STYLE):
        where = [cell for cell in cells(numbers) if len(rows_of(numbers, cell, REFERENCE))]
        figure, axes = canvas(len(where), (1.2 + 2.1 * len(where), 2.9), sharey=True)
        for axis, cell in zip(axes, where, strict=True):
            curve_panel(axis, numbers, cell, arms)
        axes[0].set_ylabel("error over LoRA's final error")
        figure.supxlabel("training steps", fontsize=9)
        legend(figure, axes)
    return figure


def curve_panel(axis: Axes, numbers: xr.Dataset, cell: Cell, arms: Sequence[str]) -> None:
    """Learning curves of the arms in one cell, from the first evaluation after the start."""
    final = float(curve_of(numbers, rows_of(numbers, cell, REFERENCE))[1][:, -1].mean())
    last = 0.0
    for place, arm in enumerate(arms):
        rows = rows_of(numbers, cell, arm)
        if not len(rows):
            continue
        steps, curve = curve_of(numbers, rows)
        last = max(last, float(steps[-1]))
        axis.plot(steps[1:], curve.mean((0, 2))[1:] / final, color=COLOURS[place], marker=MARKERS[place],
                  markersize=3.5, linewidth=1.3, label=ARM_WORDS[arm])  # fmt: skip
    axis.axhline(1, color="#666666", linewidth=0.9)
    axis.set_ylim(0.95, 1.6)
    axis.set_xticks(np.linspace(0, last, 4)[1:])
    axis.set_title(cell_name(cell))


def levels(numbers: xr.Dataset, arms: Sequence[str] = SHOWN) -> Figure:
    """Ratio of final errors to LoRA's by noise level, one panel a cell."""
    with mpl.rc_context(STYLE):
        shown = [arm for arm in arms if arm != REFERENCE and arm in arms_of(numbers)]
        where = [cell for cell in cells(numbers) if any(have(numbers, cell, arm, REFERENCE) for arm in shown)]
        figure, axes = canvas(len(where), (1.2 + 2.1 * len(where), 2.9), sharey=True)
        for axis, cell in zip(axes, where, strict=True):
            level_panel(axis, numbers, cell, [arm for arm in shown if have(numbers, cell, arm, REFERENCE)])
        axes[0].set_ylabel("error over LoRA's")
        figure.supxlabel("log SNR (noise on the left, almost finished on the right)", fontsize=9)
        legend(figure, axes)
    return figure


def level_panel(axis: Axes, numbers: xr.Dataset, cell: Cell, arms: Sequence[str]) -> None:
    """Ratios by noise level of the arms in one cell; a bar is a 95 % interval of its own."""
    axis.axhline(1, color="#666666", linewidth=0.9)
    for arm in arms:
        place = SHOWN.index(arm) if arm in SHOWN else 1
        ratios = by_level(numbers, cell, arm, REFERENCE)
        snr = numbers.log_snr.values[rows_of(numbers, cell, arm)[0]][: len(ratios)]
        value, low, high = (np.array([getattr(r, end) for r in ratios]) for end in ("value", "low", "high"))
        style: Any = {"color": COLOURS[place], "marker": MARKERS[place], "markersize": 3.5, "linewidth": 1.2}
        beside = snr + 0.12 * (place - 2)  # so that the bars of arms do not cover each other
        axis.errorbar(beside, value, [value - low, high - value], elinewidth=0.8, label=ARM_WORDS[arm], **style)
    axis.set_ylim(0.9, 1.15)
    axis.set_title(cell_name(cell))


def legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend of all panels, above them."""
    entries = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(entries.values(), entries.keys(), loc="outside upper center", ncols=3, fontsize=8.5)
