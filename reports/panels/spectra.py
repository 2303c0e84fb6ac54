"""Spectra of generated pictures against those of held-out pictures, by band and by radius."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from reports.figures import RULE, arm_colour, dash, panel
from reports.panels.marks import Row, mark, no_difference, ratio_scale, whiskers
from reports.panels.panel import made
from reports.sections import Panel
from reports.spectral import against_heldout
from reports.statistics import Array

if TYPE_CHECKING:
    from reports.arms import Arm

CYCLES = "frequency, cycles per latent pixel"
OVER = "generated / held-out"


def band_ratios(arms: Sequence[Arm], prefix: str = "") -> Panel:
    """Energy per band, generated over held-out, for the base and every arm."""
    named = [("base model", -1), *((arm.label, arm.style) for arm in arms)]
    rows = [(*name, [mark(r) for r in ratios]) for name, ratios in zip(named, against_heldout(arms), strict=True)]
    return over_bands(f"{prefix}band-ratios", "Band energies, generated over held-out", rows, OVER)


def over_bands(name: str, title: str, rows: Sequence[Row], axis: str = OVER, note: str = "") -> Panel:
    """Ratios per band side by side on a logarithmic scale; 1 is a match."""
    bands = len(rows[0][2])

    def draw(axes: Axes) -> None:
        for j, (_, style, marks) in enumerate(rows):
            aside = 0.6 * (j - (len(rows) - 1) / 2) / max(len(rows) - 1, 1)
            whiskers(axes, np.arange(bands) + aside, marks, style)
        for between in np.arange(bands - 1) + 0.5:
            axes.axvline(between, color=RULE, linewidth=0.8)
        no_difference(axes, horizontal=True)
        ratio_scale(axes)
        axes.set_xticks(range(bands), [f"band {k}" if bands < 7 else str(k) for k in range(bands)])
        axes.set_xlim(-0.5, bands - 0.5)
        axes.set_ylabel(axis)

    told = "; ".join(f"{label} " + ", ".join(f"{one.value:.2f}" for one in marks) for label, _, marks in rows)
    return made(name, title, f"1 is a match. By band from low to high: {told}.", panel(draw), note)


def spectra(arms: Sequence[Arm], prefix: str = "") -> Panel:
    """Radial spectrum over that of the held-out pictures."""

    def mean(arm: Arm, source: str) -> Array:
        found = [run.evaluation.spectrum.sel(source=source).mean("sample").values for run in arm.runs]
        return np.asarray(np.mean(found, axis=0), np.float64)

    real = np.maximum(mean(arms[0], "reference"), 1e-12)
    store = arms[0].runs[0].evaluation
    known = "radius" in store.coords
    x = store.radius.values if known else (np.arange(len(real)) + 0.5) / len(real)
    lines = [("base model", -1, mean(arms[0], "base") / real)]
    lines += [(arm.label, arm.style, mean(arm, "adapter") / real) for arm in arms]
    words = CYCLES if known else "frequency, relative to the highest"
    return radial_spectra(f"{prefix}radial-spectra", "Radial spectra, generated over held-out", x, lines, words)


def radial_spectra(
    name: str,
    title: str,
    radius: Array,
    lines: Sequence[tuple[str, int, Array]],
    axis: str = CYCLES,
    note: str = "",
    over: str = OVER,
) -> Panel:
    """Ratios of radial spectra to the held-out spectrum, one line per model, dotted for the base; 1 is a match.

    `over` says what the ratios are of, where that is something else.
    """

    def draw(axes: Axes) -> None:
        for j, (_, style, ratio) in enumerate(lines):  # later lines are thinner: equal ones are seen below each other
            width, above = (1.2, 3.0) if style < 0 else (max(3.4 - 0.6 * j, 1.2), 2.0)
            axes.plot(
                radius, ratio, color=arm_colour(style), linestyle=dash(style), linewidth=width, zorder=above + j / 100
            )
        no_difference(axes, horizontal=True)
        ratio_scale(axes)
        axes.set_xlabel(axis)
        axes.set_ylabel(over)

    told = "; ".join(
        f"{label} from {ratio[0]:.2f} at the lowest to {ratio[-1]:.2f} at the highest frequency"
        for label, _, ratio in lines
    )
    return made(name, title, f"Ratios of mean spectra; 1 is a match. {told}.", panel(draw), note)
