"""Small multiples: the share of each band in the energy of each signal over the noise level, with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spectra.analysis import mean_over_prompts, shares
from spectra.errors import UserError
from spectra.plots.page import subject
from spectra.plots.style import (
    LEFT,
    MUTED,
    STYLE,
    Array,
    apart,
    band_colours,
    band_labels,
    beside,
    level_axis,
    text,
)

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = {
    "latent": "Latent",
    "x0": "Predicted clean sample (x0)",
    "eps": "Predicted noise (eps)",
    "prediction": "Prediction as the scheduler gets it",
    "cond": "Prediction with the prompt",
    "uncond": "Prediction without the prompt",
    "guidance": "Their difference (guidance)",
}
GIVEN = {"latent": "Latent", "x0": "Clean latent (x0)", "eps": "Noise (eps)"}  # nothing is predicted of data


def multiples(cube: xr.Dataset) -> Figure:
    """A panel per signal: the share of each band over the noise level, mean over prompts with its 95 % interval.

    Raises UserError where there is no complete run.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    if cube.sizes["run"] == 0:
        raise UserError("this cube has no complete run to draw: probe first")
    names = [str(name) for name in cube.signal.values]
    rows = (len(names) + 1) // 2
    with rc_context(STYLE):
        height = 1.1 + 2.9 * rows
        figure = Figure(figsize=(9.6, height), dpi=150)
        top = 1 - 0.98 / height
        grid = figure.add_gridspec(
            rows, 2, left=LEFT, right=0.88, bottom=0.55 / height, top=top, hspace=0.5, wspace=0.42
        )
        text(
            figure,
            LEFT,
            1 - 0.16 / height,
            "Where each signal has its energy",
            fontsize=14,
            fontweight="bold",
            va="top",
        )
        text(figure, LEFT, 1 - 0.48 / height, subject(cube), fontsize=9, color=MUTED, va="top")
        for i, name in enumerate(names):
            share_lines(figure.add_subplot(grid[i // 2, i % 2]), cube, name)
    return figure


def share_lines(ax: Axes, cube: xr.Dataset, signal: str) -> None:
    """Shares of the bands in one signal as lines over the noise level, each with its ribbon and its name."""
    known = GIVEN if cube.attrs.get("sampler") == "forward" else NAMES
    ax.set_title(known.get(signal, signal))
    found = mean_over_prompts(shares(cube, signal))
    value, low, high = (found[name].transpose("step", "band").values for name in ("value", "low", "high"))
    seen = np.isfinite(value).all(1)
    x = level_axis(ax, cube)
    for band, colour in enumerate(band_colours(value.shape[1])):
        if found.attrs["n"] > 1:
            ax.fill_between(x[seen], low[seen, band], high[seen, band], color=colour, alpha=0.2, linewidth=0)
        ax.plot(x[seen], value[seen, band], color=colour)
    ax.set_ylim(0, 1)
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    _names(ax, cube, value[seen])


def _names(ax: Axes, cube: xr.Dataset, value: Array) -> None:
    if not len(value):
        text(ax, 0.5, 0.5, "not available in these runs", transform=ax.transAxes, color=MUTED, ha="center")
        return
    for y, label, colour in zip(
        _within(apart(value[-1], 0.085)), band_labels(cube), band_colours(value.shape[1]), strict=True
    ):
        beside(ax, y, label, colour)


def _within(positions: Array) -> Array:
    """Positions moved together until they are inside the axes: below them are the ticks."""
    return positions + max(0.03 - float(positions.min()), 0.0) - max(float(positions.max()) - 0.97, 0.0)
