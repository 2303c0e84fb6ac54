"""The picture of a comparison: by how much each band differs at each step, and where that is beyond doubt."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spectra.plots.style import STYLE, Array, band_labels, headline, steps_axis, text

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

HATCH = "#303030"
LEAST, USUAL, FAR = (
    0.005,
    0.98,
    2.5,
)  # a scale's least reach; the quantile that is usual, and how many times it is far beyond
SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
PANEL, BETWEEN, ABOVE, BELOW = 0.28, 0.72, 1.05, 0.95  # inches: a band's row; between, above and below the maps


def heatmap(compared: xr.Dataset, title: str = "", about: str = "") -> Figure:
    """A band by step map for each signal of `spectra.analysis.compare`: log ratios (signal, step, band).

    Each signal has a scale of its own; where a few cells are far beyond all others, it ends before them, and they carry
    a dot.  Cells whose interval, which holds for all cells together, includes no difference are hatched, so that colour
    alone never says that something differs.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    signals = [str(name) for name in np.atleast_1d(compared.signal.values)]
    with rc_context(STYLE | {"hatch.linewidth": 0.5}):
        panel = PANEL * max(compared.sizes["band"], 2)
        height = ABOVE + BELOW + panel * len(signals) + BETWEEN * (len(signals) - 1)
        figure = Figure(figsize=(8.2, height), dpi=150)
        sides = {"left": 0.12, "right": 0.85, "bottom": BELOW / height, "top": 1 - ABOVE / height}
        grid = figure.add_gridspec(len(signals), 1, hspace=BETWEEN / panel, **sides)
        headline(figure, title or "How the bands differ", about)
        values = [compared.sel(signal=name) if "signal" in compared.dims else compared for name in signals]
        beyond = False
        for i, (name, part) in enumerate(zip(signals, values, strict=True)):
            beyond |= _map(figure.add_subplot(grid[i]), part, name, last=i == len(signals) - 1)
        _key(figure, beyond, 0.2 / height)
    return figure


def _colours() -> Colormap:
    """Blue: less, red: more; the signs stay apart for every common kind of colour blindness.

    Without the darkest tones, on which hatching could not be seen.
    """
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps["RdBu_r"](np.linspace(0.1, 0.9, 257)))


def _reach(values: Array) -> float:
    """Half the range of the colours: the largest difference, without the few per cent that are far beyond all others.

    At least half a per cent.
    """
    found = np.abs(values[np.isfinite(values)])
    if not found.size:
        return LEAST
    usual = max(float(np.quantile(found, USUAL, method="lower")), LEAST)
    return max(float(found[found <= FAR * usual].max()), LEAST)


def _map(ax: Axes, part: xr.Dataset, name: str, last: bool) -> bool:
    """Draw one signal with its scale; True where some of its cells are beyond it."""
    value, low, high = (part[key].transpose("band", "step").values for key in ("value", "low_all", "high_all"))
    (bands, steps), reach = value.shape, _reach(value)
    beyond = np.argwhere(np.abs(np.nan_to_num(value)) > reach * (1 + 1e-9))
    edges = (np.arange(steps + 1) - 0.5, np.arange(bands + 1) - 0.5)
    ax.pcolormesh(*edges, value, cmap=_colours(), vmin=-reach, vmax=reach)
    _hatch(ax, np.argwhere(np.isfinite(value) & (low <= 0) & (high >= 0)))
    ax.plot(*beyond.T[::-1], ".", color=HATCH, markersize=4, linestyle="none")
    _scale(ax, reach, *(bool((side > reach * (1 + 1e-9)).any()) for side in (-value, value)))
    ax.set_title(name)
    ax.set_yticks(range(bands), band_labels(part))
    ax.tick_params(left=False)
    steps_axis(ax, part, steps - 1)
    ax.set_xlim(-0.5, steps - 0.5)
    if not last:
        ax.set_xlabel("")
    return bool(len(beyond))


def _hatch(ax: Axes, cells: NDArray[np.intp]) -> None:
    """Hatch the cells (band, step), each as a unit square around its centre."""
    from matplotlib.collections import PolyCollection

    corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    squares = cells[:, None, ::-1] + corners
    ax.add_collection(PolyCollection(list(squares), facecolors="none", edgecolors=HATCH, hatch="////", linewidths=0))


def _scale(ax: Axes, reach: float, below: bool, above: bool) -> None:
    """The colours right of a map, with the ratios at their ends; "from" says that some cells are beyond that end."""
    from matplotlib.colors import Normalize

    bar = ax.inset_axes((1.02, 0.0, 0.018, 1.0))
    ends = np.linspace(-reach, reach, 129)
    bar.pcolormesh([0, 1], ends, ends[:-1, None], cmap=_colours(), norm=Normalize(-reach, reach))
    ends_said = ("from " * below + ratio(-reach), "equal", "from " * above + ratio(reach))
    bar.set_yticks([-reach, 0.0, reach], ends_said)
    bar.tick_params(right=True, labelright=True, left=False, labelleft=False)
    bar.set_xticks([])


def _key(figure: Figure, beyond: bool, bottom: float) -> None:
    """What hatching and dots mean."""
    words = "hatched: no difference shown (95 %, all cells together)" + "; dot: beyond the ends of its scale" * beyond
    text(figure, 0.12, bottom, words, va="center", fontsize=8.5)


def ratio(log: float) -> str:
    """A log ratio in words: per cent up to a factor of 2, then the factor to two digits."""
    if abs(log) < math.log(1.994):
        return f"{100 * math.expm1(log):+.2g} %".replace("-", "−")
    sign, factor = "×" if log > 0 else "÷", math.exp(min(abs(log), 700.0))
    mantissa, power = f"{factor:.1e}".split("e")
    if int(power) < 5:
        return f"{sign}{float(f'{factor:.2g}'):g}"
    digits = "" if mantissa == "1.0" else f"{float(mantissa):g}·"
    return f"{sign}{digits}10" + str(int(power)).translate(SUPERSCRIPT)
