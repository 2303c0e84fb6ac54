"""Errors over noise levels, from noise on the left to the picture on the right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from reports.figures import MUTED, SIZE, arm_colour, as_percent, dash, marker, multiples, over_levels, panel
from reports.panels.errors import log_ticks
from reports.panels.marks import Row, mark, no_difference, whiskers
from reports.panels.panel import made
from reports.sections import Mark, Panel
from reports.statistics import Array
from reports.words import signed

if TYPE_CHECKING:
    from reports.arms import Arm
    from reports.compare import Against


def noisiest_first(noise_levels: Array) -> NDArray[np.int64]:
    """The order of the horizontal axis."""
    return np.argsort(-noise_levels, kind="stable")


def level_errors(arms: Sequence[Arm], prefix: str = "") -> Panel:
    """Validation error of the base and of every arm at every noise level."""
    noise = arms[0].runs[0].metrics.noise_level.values
    levels = noisiest_first(noise)

    def draw(axes: Axes) -> None:
        x = np.arange(len(levels))
        untrained = arms[0].errors(at=0).mean(axis=(0, 2))[levels]
        axes.plot(x, untrained, color=MUTED, linewidth=1.2, linestyle=dash(-1))
        words: dict[str, Any] = {"xytext": (0, 6), "textcoords": "offset points", "ha": "right", "color": MUTED}
        axes.annotate("untrained", (x[-1], untrained[-1]), **words)
        for arm in arms:
            mean, i = arm.errors().mean(axis=(0, 2))[levels], arm.style
            axes.plot(x, mean, color=arm_colour(i), linestyle=dash(i), marker=marker(i), markersize=4.5)
        over_levels(axes, noise[levels])
        log_ticks(axes)
        axes.set_ylabel("validation error")

    text = "One line per arm over the noise levels, and the untrained model; logarithmic scale."
    return made(f"{prefix}levels", "Mean validation error", text, panel(draw))


def level_ratios(arms: Sequence[Arm], pair: Against, limits: tuple[float, float], prefix: str = "") -> Panel:
    """One arm against another at every noise level."""
    name = f"{prefix}level-{list(arms).index(pair.arm)}-{list(arms).index(pair.other)}"
    noise = arms[0].runs[0].metrics.noise_level.values
    rows = [(pair.arm.label, pair.arm.style, [mark(ratio) for ratio in pair.levels])]
    title = f"{pair.arm.label} against {pair.other.label}"
    return over_levels_marks(name, title, noise, rows, "change of error", 1.0, limits)


def over_levels_marks(
    name: str, title: str, noise_levels: Array, rows: Sequence[Row], axis: str, none: float | None = None,
    limits: tuple[float, float] | None = None, note: str = "",
) -> Panel:  # fmt: skip
    """Marks at every noise level: ratios in per cent where `none` is 1, else lines on a logarithmic scale."""
    levels = noisiest_first(np.asarray(noise_levels))
    noise = np.asarray(noise_levels)[levels]

    def draw(axes: Axes) -> None:
        for j, (_, style, marks) in enumerate(rows):
            shown = [marks[k] for k in levels]
            aside = 0.5 * (j - (len(rows) - 1) / 2) / max(len(rows) - 1, 1) if none is not None else 0.0
            whiskers(axes, np.arange(len(levels)) + aside, shown, style)
            if none is None:
                axes.plot([one.value for one in shown], color=arm_colour(style), linestyle=dash(style), linewidth=1.2)
        if none is None:
            log_ticks(axes)
        else:
            no_difference(axes, horizontal=True, at=none)
        over_levels(axes, noise)
        if limits is not None:
            axes.set_ylim(*limits)
        if none == 1:
            axes.yaxis.set_major_formatter(as_percent)
        axes.set_ylabel(axis)

    said = [f"{label}: " + by_level(noise, [marks[k] for k in levels], none) for label, _, marks in rows]
    return made(name, title, f"{axis} by noise level. {'; '.join(said)}.", panel(draw), note)


def by_level(noise: Array, marks: Sequence[Mark], none: float | None) -> str:
    """The values at all noise levels, for a screen reader."""
    return ", ".join(
        f"{level:.2g} {signed(one.value) if none == 1 else f'{one.value:.3g}'}"
        for level, one in zip(noise, marks, strict=True)
    )


def level_bands(
    name: str, title: str, noise_levels: Array, cells: Sequence[Sequence[Mark]], style: int,
    limits: Sequence[tuple[float, float]], note: str = "",
) -> Panel:  # fmt: skip
    """Small multiples of ratios (level, band): a row of axes per band, lowest band below, each with its own limits."""
    levels = noisiest_first(np.asarray(noise_levels))
    noise, bands = np.asarray(noise_levels)[levels], len(cells[0])

    def draw(axes: Sequence[Axes]) -> None:
        for row, band in zip(axes, reversed(range(bands)), strict=True):
            whiskers(row, np.arange(len(levels)), [cells[k][band] for k in levels], style)
            no_difference(row, horizontal=True)
            row.set_ylim(*limits[band])
            row.yaxis.set_major_formatter(as_percent)
            row.locator_params(axis="y", nbins=3)
            row.set_title(f"band {band}{edge(band, bands)}", loc="left", color=MUTED, fontsize=9.5, pad=2)
        over_levels(axes[-1], noise)

    said = [
        f"band {band}: " + by_level(noise, [cells[k][band] for k in levels], 1.0) for band in range(bands)
    ]  # fmt: skip
    figure = multiples(draw, bands, (SIZE[0], 0.75 + 0.78 * bands), share="col")
    return made(name, title, f"Change of error by band and noise level. {'; '.join(said)}.", figure, note)


def edge(band: int, bands: int) -> str:
    """Says which band is the lowest and which the highest."""
    return {0: ", lowest", bands - 1: ", highest"}.get(band, "")
