"""What guidance does: how alike the two predictions are, the optimal scale, and the energy that guidance adds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spectra.analysis import mean_over_prompts
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
    decades,
    steps_axis,
    text,
)

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def guidance(cube: xr.Dataset) -> Figure:
    """Three panels over the steps: the cosine of the velocities with and without the prompt, the scale s* of CFG-Zero*,
    and the energy of what guidance adds, per band, for CFG (lines) and for CFG-Zero* (dashed).

    Raises UserError where the cube did not record cond and uncond.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from spectra.guidance import cosine, guidance_energy, optimal_scale

    if "agreement" not in cube or not np.isfinite(cube.agreement.values[:, :-1]).any():
        raise UserError(
            "this cube has no predictions with and without the prompt: probe with guidance and the signals cond, "
            "uncond and guidance" + _why(cube)
        )
    with rc_context(STYLE):
        figure = Figure(figsize=(9.6, 6.6), dpi=150)
        grid = figure.add_gridspec(2, 2, left=LEFT, right=0.86, bottom=0.09, top=0.85, hspace=0.45, wspace=0.3)
        text(figure, LEFT, 0.975, "What guidance adds", fontsize=14, fontweight="bold", va="top")
        text(figure, LEFT, 0.925, subject(cube), fontsize=9, color=MUTED, va="top")
        _line(figure.add_subplot(grid[0, 0]), cube, cosine(cube), "Cosine of velocities with and without prompt")
        _line(figure.add_subplot(grid[0, 1]), cube, optimal_scale(cube), "Optimal scale s* of CFG-Zero*")
        energy = guidance_energy(cube)
        _energies(figure.add_subplot(grid[1, :]), cube, *(energy.sel(rule=rule) for rule in RULES))
    return figure


def _why(cube: xr.Dataset) -> str:
    """The first reason that the runs themselves give."""
    reasons = [str(one) for one in cube.split.values if one] if "split" in cube.coords else []
    return f" ({reasons[0]})" if reasons else ""


RULES = ("cfg", "cfg-zero-star")


def _over_prompts(values: xr.DataArray) -> tuple[Array, Array, Array]:
    """Mean and interval over prompts, (step, ...) without the last step, where there is no prediction."""
    found = mean_over_prompts(values.isel(step=slice(-1)))
    value, low, high = (found[name].transpose("step", ...).values for name in ("value", "low", "high"))
    return value, low, high


def _line(ax: Axes, cube: xr.Dataset, values: xr.DataArray, title: str) -> None:
    value, low, high = _over_prompts(values)
    x = np.arange(len(value))
    ax.set_title(title)
    ax.axhline(1, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    if np.isfinite(low).all():
        ax.fill_between(x, low, high, color="#3d3d3d", alpha=0.18, linewidth=0)
    ax.plot(x, value, color="#3d3d3d")
    steps_axis(ax, cube, cube.sizes["step"] - 1)


def _energies(ax: Axes, cube: xr.Dataset, plain: xr.DataArray, star: xr.DataArray) -> None:
    """Energies per band on a logarithmic axis."""
    ax.set_title("What each unit of guidance adds, by band (dashed: with CFG-Zero*)")
    lines = [_over_prompts(values)[0] for values in (plain, star)]
    x = np.arange(len(lines[0]))
    for band, colour in enumerate(band_colours(lines[0].shape[1])):
        for line, style in zip(lines, ("-", (0, (3, 2))), strict=True):
            ax.plot(x, line[:, band], color=colour, linestyle=style)
    ax.set_yscale("log")
    seen = np.concatenate(lines).ravel()
    decades(ax, seen[np.isfinite(seen) & (seen > 0)])
    ends = apart(np.log(lines[0][-1]), 0.07 * float(np.ptp(np.log(seen[seen > 0]))))
    for y, label, colour in zip(np.exp(ends), band_labels(cube), band_colours(len(ends)), strict=True):
        beside(ax, y, label, colour)
    steps_axis(ax, cube, cube.sizes["step"] - 1)
