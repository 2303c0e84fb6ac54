"""What guidance does: how alike the two predictions are, the optimal scale, and the energy that guidance adds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spectra.analysis import mean_over_prompts
from spectra.errors import UserError
from spectra.plots.page import refuse_empty, subject
from spectra.plots.spread import spread
from spectra.plots.style import (
    MUTED,
    STYLE,
    Array,
    apart,
    band_colours,
    band_labels,
    beside,
    decades,
    headline,
    say,
    steps_axis,
)

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREY = (0.24, 0.24, 0.24, 1.0)
NOISE = 1e-6  # of the power of a velocity, which is stored in float32: a difference of less is rounding


def guidance(cube: xr.Dataset) -> Figure:
    """Three panels over the steps: the cosine of the velocities with and without the prompt, the scale s* of CFG-Zero*,
    and the energy of what guidance adds, per band, for CFG (lines) and for CFG-Zero* (dashed).

    Raises UserError where there is no complete run, or the cube did not record cond and uncond.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from spectra.guidance import cosine, guidance_energy, optimal_scale

    refuse_empty(cube)
    if "agreement" not in cube or not np.isfinite(cube.agreement.values[:, :-1]).any():
        raise UserError(
            "this cube has no predictions with and without the prompt: probe with guidance and the signals cond, "
            "uncond and guidance" + _why(cube)
        )
    with rc_context(STYLE):
        figure = Figure(figsize=(9.6, 6.6), dpi=150)
        grid = figure.add_gridspec(2, 2, left=0.105, right=0.86, bottom=0.09, top=0.835, hspace=0.45, wspace=0.3)
        headline(figure, "What guidance adds", subject(cube))
        _line(figure.add_subplot(grid[0, 0]), cube, cosine(cube), "Cosine of velocities with and without prompt")
        _line(figure.add_subplot(grid[0, 1]), cube, optimal_scale(cube), "Optimal scale s* of CFG-Zero*")
        _energies(figure.add_subplot(grid[1, :]), cube, guidance_energy(cube))
    return figure


def _why(cube: xr.Dataset) -> str:
    """The first reason that the runs themselves give."""
    reasons = [str(one) for one in cube.split.values if one] if "split" in cube.coords else []
    return f" ({reasons[0]})" if reasons else ""


def _over_prompts(values: xr.DataArray) -> tuple[Array, Array, Array]:
    """Mean and interval over prompts, (step, ...) without the last step, where there is no prediction."""
    found = mean_over_prompts(values.isel(step=slice(-1)))
    value, low, high = (found[name].transpose("step", ...).values for name in ("value", "low", "high"))
    return value, low, high


def _line(ax: Axes, cube: xr.Dataset, values: xr.DataArray, title: str) -> None:
    value, low, high = _over_prompts(values)
    ax.set_title(title)
    ax.axhline(1, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    spread(ax, values.isel(step=slice(-1)).expand_dims("band", -1), low[:, None], high[:, None], [GREY])
    ax.plot(np.arange(len(value)), value, color=GREY)
    steps_axis(ax, cube, cube.sizes["step"] - 1)


def _energies(ax: Axes, cube: xr.Dataset, energy: xr.DataArray) -> None:
    """Energies per band on a logarithmic axis, as far as they can be told from the rounding of the velocities."""
    ax.set_title("What each unit of guidance adds, by band (dashed: with CFG-Zero*)")
    velocity = _over_prompts(cube.agreement.isel(pair=-1))[0]
    means = (_over_prompts(energy.sel(rule=rule))[0] for rule in ("cfg", "cfg-zero-star"))
    lines = [np.where(mean > NOISE * velocity, mean, np.nan) for mean in means]
    seen = np.concatenate(lines)[np.isfinite(np.concatenate(lines))]
    if not seen.size:
        return say(ax, "nothing that could be told from rounding")
    x, colours = np.arange(len(lines[0])), band_colours(lines[0].shape[1])
    for line, style in zip(lines, ("-", (0, (3, 2))), strict=True):
        for values, colour in zip(line.T, colours, strict=True):
            ax.plot(x, values, color=colour, linestyle=style)
    ax.set_yscale("log")
    ax.set_ylabel("power of the\ndifference of velocities,\nchannels summed, per run")
    decades(ax, seen)
    _names(ax, cube, lines[0])
    steps_axis(ax, cube, cube.sizes["step"] - 1)
    return None


def _names(ax: Axes, cube: xr.Dataset, line: Array) -> None:
    """The bands beside the ends of their lines (step, band), inside the axes."""
    low, high = np.log(ax.get_ylim())
    drawn = np.flatnonzero(np.isfinite(line).any(0))
    last = np.array([values[np.isfinite(values)][-1] for values in line.T[drawn]])
    labels, colours = band_labels(cube), band_colours(line.shape[1])
    margin = 0.04 * (high - low)
    for band, y in zip(drawn, np.exp(apart(np.log(last), 2 * margin, low + margin, high - margin)), strict=True):
        beside(ax, y, labels[band], colours[band])
