"""How far prompts differ, drawn around their mean: an interval where there are enough of them, else each by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spectra.analysis import cluster_means, prompts_of
from spectra.plots.style import Array, Colour

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from matplotlib.axes import Axes

ENOUGH = 4  # prompts; with 3, Student's interval of a mean is 2.5 standard deviations wide to each side


def spread(ax: Axes, data: xr.DataArray, low: Array, high: Array, colours: Sequence[Colour]) -> None:
    """Around the means of `data` (run, step, band) over prompts: ribbons from `low` to `high` (step, band).

    With fewer than four prompts thin lines instead: a line a prompt, or a line a run where there is one prompt.
    """
    from matplotlib.collections import LineCollection

    prompts = prompts_of(data)
    x = np.arange(len(low))
    if len(set(prompts)) >= ENOUGH:
        for band, colour in enumerate(colours):
            ax.fill_between(x, low[:, band], high[:, band], color=colour, alpha=0.18, linewidth=0)
        return
    values = data.transpose("run", "step", "band").values.astype(np.float64)
    lines = cluster_means(values, prompts) if len(set(prompts)) > 1 else values
    if len(lines) == 1:
        return
    for band, colour in enumerate(colours):
        paths = np.stack([np.broadcast_to(x, lines.shape[:2]), lines[..., band]], -1)
        alpha = max(0.15, 0.6 / np.sqrt(len(lines) / 2))  # hundreds of runs are a cloud, not a block
        ax.add_collection(LineCollection(list(paths), colors=[colour], linewidths=0.7, alpha=alpha, zorder=2))
