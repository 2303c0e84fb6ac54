"""The picture of a comparison: by how much each band differs at each step, and where that is beyond doubt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spectra.plots.style import LEFT, MUTED, STYLE, Array, band_labels, steps_axis, text

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HATCH = "#8a8a8a"
COLOURS = "RdBu_r"  # blue: less, red: more; the signs stay apart for every common kind of colour blindness


def heatmap(compared: xr.Dataset, title: str = "", about: str = "") -> Figure:
    """A band by step map for each signal of `spectra.analysis.compare`: log ratios (signal, step, band).

    Cells whose interval, which holds for all cells together, includes no difference are hatched, so that colour alone
    never says that something differs.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    signals = [str(name) for name in np.atleast_1d(compared.signal.values)]
    with rc_context(STYLE | {"hatch.linewidth": 0.5}):
        each = 0.8 + 0.3 * compared.sizes["band"]
        height = 1.55 + each * len(signals)
        figure = Figure(figsize=(8.2, height), dpi=150)
        sides = {"left": 0.12, "right": 0.97, "bottom": 1.1 / height, "top": 1 - 0.85 / height}
        grid = figure.add_gridspec(len(signals), 1, hspace=0.55, **sides)
        text(figure, LEFT, 1 - 0.13 / height, title or "How the bands differ", fontsize=13, fontweight="bold", va="top")
        text(figure, LEFT, 1 - 0.42 / height, about, fontsize=8.5, color=MUTED, va="top")
        values = [compared.sel(signal=name) if "signal" in compared.dims else compared for name in signals]
        reach = _reach(np.concatenate([part.value.values.ravel() for part in values]))
        for i, (name, part) in enumerate(zip(signals, values, strict=True)):
            _map(figure.add_subplot(grid[i]), part, name, reach, last=i == len(signals) - 1)
        _key(figure, reach, 0.34 / height, 0.1 / height)
    return figure


def _reach(values: Array) -> float:
    """Half the range of the colours: the largest difference, at least half a per cent."""
    found = np.abs(values[np.isfinite(values)])
    return max(float(found.max()) if found.size else 0.0, 0.005)


def _map(ax: Axes, part: xr.Dataset, name: str, reach: float, last: bool) -> None:
    value, low, high = (part[key].transpose("band", "step").values for key in ("value", "low_all", "high_all"))
    bands, steps = value.shape
    edges = (np.arange(steps + 1) - 0.5, np.arange(bands + 1) - 0.5)
    ax.pcolormesh(*edges, value, cmap=COLOURS, vmin=-reach, vmax=reach)
    _hatch(ax, np.argwhere(np.isfinite(value) & (low <= 0) & (high >= 0)))
    ax.set_title(name)
    ax.set_yticks(range(bands), band_labels(part))
    ax.tick_params(left=False)
    steps_axis(ax, part, steps - 1)
    ax.set_xlim(-0.5, steps - 0.5)
    if not last:
        ax.set_xlabel("")


def _hatch(ax: Axes, cells: NDArray[np.intp]) -> None:
    """Hatch the cells (band, step), each as a unit square around its centre."""
    from matplotlib.collections import PolyCollection

    corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    squares = cells[:, None, ::-1] + corners
    ax.add_collection(PolyCollection(list(squares), facecolors="none", edgecolors=HATCH, hatch="////", linewidths=0))


def _key(figure: Figure, reach: float, bottom: float, height: float) -> None:
    """The colours as ratios in per cent, and what hatching means."""
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    ax = figure.add_axes((0.12, bottom, 0.4, height))
    ends = np.linspace(-reach, reach, 129)
    ax.pcolormesh(ends, [0, 1], ends[None, :-1], cmap=colormaps[COLOURS], norm=Normalize(-reach, reach))
    ticks = [-reach, 0.0, reach]
    ax.set_xticks(ticks, ["equal" if t == 0 else f"{100 * np.expm1(t):+.2g} %" for t in ticks])
    ax.set_yticks([])
    text(
        figure,
        0.56,
        bottom + height / 2,
        "hatched: no difference shown (95 %, all cells together)",
        va="center",
        fontsize=8.5,
    )
