"""The figure of a plan: noise levels of training and sampling, the bands between them, and what the model draws now."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from spectra.plots.style import FAINT, INK, MUTED, STYLE, apart, band_colours, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from adapt.plan.plan import Plan

BLUE = "#2a6f97"


def write_figure(plan: Plan, path: Path | str) -> Path:
    """Draw a plan; the suffix of the path says the format. Raises UserError where it cannot be written."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        pictures = plan.pictures
        figure = Figure(figsize=(9.6, 3.7 if plan.bands is None else 5.4), layout="constrained")
        cast(Any, figure.get_layout_engine()).set(w_pad=0.1, h_pad=0.12, hspace=0.03)
        rows = 1 if plan.bands is None else 2
        columns = [2.2, 1.0] if pictures else [1.0]
        grid = figure.add_gridspec(rows, len(columns), width_ratios=columns)
        _levels(figure.add_subplot(grid[0, 0]), plan)
        if plan.bands is not None:
            _bands(figure.add_subplot(grid[1, 0]), plan)
        if pictures:
            inner = grid[:, 1].subgridspec(2, 1)
            for place, (title, picture) in enumerate(pictures):
                _picture(figure.add_subplot(inner[place]), title, picture)
        return save(figure, path)


def _levels(axes: Axes, plan: Plan) -> None:
    """Density of the training timesteps, and a tick for each step of the sampler."""
    levels = plan.levels
    top = max(1.5, float(levels.training.max()) * 1.1)
    axes.stairs(levels.training, levels.edges, fill=True, color=BLUE, alpha=0.16)
    axes.stairs(levels.training, levels.edges, color=BLUE, linewidth=1.6, baseline=None)
    axes.axhline(1.0, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    rug = -0.06 * top
    axes.plot(levels.sampler, np.full(len(levels.sampler), rug), "|", color=INK, markersize=7, clip_on=False)
    for y, words, colour in ((1.0, "evenly spread", MUTED), (rug, f"{len(levels.sampler)} sampler steps", INK)):
        _beside(axes, y, words, colour)
    axes.set(ylabel="density of training", ylim=(2 * rug, top))
    axes.set_title("Where training looks, and where sampling goes")
    _timesteps(axes, plan)


def _bands(axes: Axes, plan: Plan) -> None:
    """Share of each band in the probed latents."""
    assert plan.bands is not None
    timestep, shares = plan.bands
    colours = band_colours(shares.shape[1])
    for band, colour in enumerate(colours):
        axes.plot(timestep, shares[:, band], color=colour)
    for band, y in enumerate(apart(shares[-1], 0.07, 0.02, 0.98)):
        _beside(axes, y, _name(band, len(colours)), colours[band])
    axes.set(ylabel="share of the energy", ylim=(0, 1))
    axes.set_title("What the probe saw: the latents' bands")
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    _timesteps(axes, plan)


def _timesteps(axes: Axes, plan: Plan) -> None:
    axes.set_xlim(plan.levels.edges[-1], plan.levels.edges[0])
    axes.set_xlabel("timestep, from noise to the finished sample")


def _beside(axes: Axes, y: float, words: str, colour: Any) -> None:
    """Words to the right of the panel, at a height in its data."""
    axes.text(1.02, y, words, transform=axes.get_yaxis_transform(), color=colour, va="center", fontsize=8)


def _name(band: int, bands: int) -> str:
    return f"band {band}" + (" (coarse)" if band == 0 else " (fine)" if band == bands - 1 else "")


def _picture(axes: Axes, title: str, picture: Any) -> None:
    axes.imshow(np.asarray(picture), interpolation="lanczos")
    axes.set_title(title, fontsize=8.5, color=MUTED, fontweight="normal")
    axes.set_axis_off()
