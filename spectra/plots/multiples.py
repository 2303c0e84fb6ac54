"""Small multiples: the share of each band in the energy of each signal over the steps, with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spectra.analysis import mean_over_prompts, shares
from spectra.plots.page import by_picture, refuse_empty, subject
from spectra.plots.spread import spread
from spectra.plots.style import (
    LEFT,
    MUTED,
    STYLE,
    Array,
    apart,
    band_colours,
    band_labels,
    beside,
    headline,
    of_data,
    steps_axis,
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
    """A panel per signal: the share of each band over the steps, mean over prompts with its 95 % interval.

    The axis counts steps and says the noise levels at them: over the levels themselves, and over their log SNR, most of
    the steps of one model or the other would share a sliver of the width.  With fewer than four prompts each of them is
    a thin line instead.

    Raises UserError where there is no complete run.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    refuse_empty(cube)
    cube = by_picture(cube)
    names = [str(name) for name in cube.signal.values]
    rows = (len(names) + 1) // 2
    with rc_context(STYLE):
        height = 1.2 + 2.9 * rows
        figure = Figure(figsize=(9.6, height), dpi=150)
        sides = {"left": LEFT, "right": 0.88, "bottom": 0.62 / height, "top": 1 - 1.08 / height}
        grid = figure.add_gridspec(rows, 2, hspace=0.55, wspace=0.42, **sides)
        headline(figure, "Where each signal has its energy", subject(cube))
        for i, name in enumerate(names):
            share_lines(figure.add_subplot(grid[i // 2, i % 2]), cube, name)
    return figure


def share_lines(ax: Axes, cube: xr.Dataset, signal: str) -> None:
    """Shares of the bands in one signal as lines over the steps, each with its spread and its name."""
    known = GIVEN if of_data(cube) else NAMES
    ax.set_title(known.get(signal, signal))
    share = shares(cube, signal)
    found = mean_over_prompts(share)
    value, low, high = (found[name].transpose("step", "band").values for name in ("value", "low", "high"))
    seen = np.isfinite(value).all(1)
    spread(ax, share, low, high, band_colours(value.shape[1]))
    for band, colour in enumerate(band_colours(value.shape[1])):
        ax.plot(np.flatnonzero(seen), value[seen, band], color=colour)
    steps_axis(ax, cube, cube.sizes["step"] - 1)
    ax.set_ylim(0, 1)
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    _names(ax, cube, value[seen])


def _names(ax: Axes, cube: xr.Dataset, value: Array) -> None:
    if not len(value):
        text(ax, 0.5, 0.5, "not available in these runs", transform=ax.transAxes, color=MUTED, ha="center")
        return
    places = apart(value[-1], 0.085, 0.03, 0.97)  # inside the axes: below them are the ticks
    for y, label, colour in zip(places, band_labels(cube), band_colours(value.shape[1]), strict=True):
        beside(ax, y, label, colour)
