"""Figures of a cube, drawn with matplotlib's own objects: no pyplot, no global state, no display needed.

Bands have one colour each throughout, from dark (low) to light (high): ordered in lightness, so the order survives
colour blindness and grey printing.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spectra.analysis import DECIDED, cluster_means, emergence, interval, prompts_of, select, shares
from spectra.bands import radial_modes
from spectra.errors import UserError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
Colour = tuple[float, float, float, float]

INK, MUTED, FAINT = "#1c1c1c", "#6b6b6b", "#dcdcdc"
LEFT = 0.065
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 9, "text.color": INK, "figure.facecolor": "white",
    "axes.labelcolor": MUTED, "axes.edgecolor": "#9a9a9a", "axes.linewidth": 0.7, "axes.facecolor": "white",
    "axes.spines.top": False, "axes.spines.right": False, "axes.labelsize": 8.5,
    "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlepad": 8,
    "xtick.color": MUTED, "xtick.labelsize": 8, "xtick.major.width": 0.7, "xtick.major.size": 3, "xtick.minor.size": 0,
    "ytick.color": MUTED, "ytick.labelsize": 8, "ytick.major.width": 0.7, "ytick.major.size": 3, "ytick.minor.size": 0,
    "lines.linewidth": 1.9, "lines.solid_capstyle": "round",
}  # fmt: skip


def overview(cube: xr.Dataset) -> Figure:
    """What one cube shows, on a page: when bands are decided, what x and x0 are made of, and the radial spectrum.

    Means are over prompts (runs averaged within each), ribbons and bars are 95 % intervals over prompts.  Parts that
    the cube did not record are replaced by a sentence that says so.

    Raises UserError where there is no complete run.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    if cube.sizes["run"] == 0:
        raise UserError("this cube has no complete run to draw: probe first")
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 8.2), dpi=150)
        heights, edges = (1.0, 0.1 + 0.085 * cube.sizes["band"], 1.0), (LEFT, 0.89, 0.075, 0.855)
        sides = dict(zip(("left", "right", "bottom", "top"), edges, strict=True))
        grid = figure.add_gridspec(3, 2, height_ratios=heights, hspace=0.45, wspace=0.46, **sides)
        decided = figure.add_subplot(grid[0, 0])
        _headline(figure, cube)
        coherence_panel(decided, cube)
        emergence_panel(figure.add_subplot(grid[1, 0], sharex=decided), cube)
        spectrum_panel(figure.add_subplot(grid[:2, 1]), cube)
        shares_panel(figure.add_subplot(grid[2, 0], sharex=decided), cube, "latent")
        shares_panel(figure.add_subplot(grid[2, 1]), cube, "x0")
    return figure


def save(figure: Figure, path: Path | str, dpi: int = 150) -> Path:
    """Write a figure in the format of the suffix, the same bytes each time; UserError where that is not possible."""
    from matplotlib import rc_context

    path = Path(path)
    stamps: dict[str, Any] = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    try:
        with rc_context({"svg.hashsalt": "spectra"}):
            figure.savefig(path, dpi=dpi, metadata=stamps.get(path.suffix.lower()))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write a figure to {path}: {error}") from None
    return path


def band_colours(bands: int) -> list[Colour]:
    """One colour per band, dark for low frequencies to light for high ones."""
    from matplotlib import colormaps

    return [colormaps["plasma"](v) for v in np.linspace(0.04, 0.8, bands)]


def band_labels(cube: xr.Dataset) -> list[str]:
    """Per band, the range of its Gaussian scales in latent pixels."""
    return [_range(low, high) for low, high in zip(cube.scale_low.values, cube.scale_high.values, strict=True)]


def coherence_panel(ax: Axes, cube: xr.Dataset) -> None:
    """Coherence of x0 with the finished sample over steps, a line per band, with the step at which each is decided."""
    ax.set_title("Coherence of x0 with the finished sample")
    if not _has_coherence(cube):
        return _say(ax, "not recorded")
    values = cube.coherence.transpose("run", "step", "band").values.astype(np.float64)[:, :-1]
    means = cluster_means(values, prompts_of(cube))
    value, low, high = interval(means, 0.95, "t", 0, 0)
    step, found = cube.step.values[:-1], emergence(cube).step.values
    ax.axhline(DECIDED, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    _text(ax, step[-1], DECIDED - 0.02, f"decided: {DECIDED:g}", color=MUTED, ha="right", va="top", fontsize=8)
    for band, colour in reversed(list(enumerate(band_colours(values.shape[-1])))):
        if len(means) > 1:
            ax.fill_between(step, low[:, band], high[:, band].clip(max=1), color=colour, alpha=0.15, linewidth=0)
        ax.plot(step, value[:, band], color=colour, zorder=3)
        if np.isfinite(found[band]):
            i = int(found[band])
            ax.plot(step[i], value[i, band], "o", color=colour, markersize=6.5, markeredgecolor="white", zorder=4)
    ax.set_ylim(min(0.0, float(value.min()) - 0.03), 1.03)
    ax.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    _steps(ax, cube, cube.sizes["step"] - 1)
    return None


def emergence_panel(ax: Axes, cube: xr.Dataset) -> None:
    """Per band, low to high from the top: the first step with lasting coherence, with its interval, named directly."""
    bands, last = cube.sizes["band"], cube.sizes["step"] - 1
    ax.set_ylim(bands - 0.4, -0.6)
    ax.set_yticks([])
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    ax.tick_params(axis="x", bottom=False, labelbottom=False)
    if not _has_coherence(cube):
        return
    title = "Step from which on each band stays decided, low to high"
    _text(ax, 0, 1.0, title, transform=ax.transAxes, fontsize=8.5, color=MUTED)
    found = emergence(cube)
    for band, (colour, label) in enumerate(zip(band_colours(bands), band_labels(cube), strict=True)):
        first, low, high = (float(found[name].values[band]) for name in ("step", "low", "high"))
        ax.plot([0, last], [band, band], color=FAINT, linewidth=0.7, zorder=1)
        if found.attrs["n"] > 1:
            ax.plot([low, min(high, last)], [band, band], color=colour, linewidth=5, alpha=0.3, zorder=2)
        if math.isfinite(first):
            ax.plot(first, band, "o", color=colour, markersize=6.5, markeredgecolor="white", zorder=3, clip_on=False)
        words = f"{label}   {first:.0f}" if math.isfinite(first) else f"{label}   later"
        _beside(ax, band, words, colour)


def shares_panel(ax: Axes, cube: xr.Dataset, signal: str) -> None:
    """Shares of the bands in the energy of a signal over steps, stacked from low to high."""
    ax.set_title({"latent": "Energy of the latent by band", "x0": "Energy of x0 by band"}.get(signal, signal))
    if signal not in cube.signal.values:
        return _say(ax, "not recorded")
    values = cluster_means(shares(cube, signal).values.astype(np.float64), prompts_of(cube)).mean(0)
    seen = np.isfinite(values).all(1)
    step, values = cube.step.values[seen], values[seen]
    colours = band_colours(values.shape[1])
    ax.stackplot(step, values.T, colors=colours, linewidth=0.6, edgecolor="white", alpha=0.92)
    ax.set_ylim(0, 1)
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    middle = values[-1].cumsum() - values[-1] / 2
    words = [f"{label}  {100 * v:.0f} %" for label, v in zip(band_labels(cube), values[-1], strict=True)]
    for y, word, colour in zip(apart(middle, 0.085), words, colours, strict=True):
        _beside(ax, y, word, colour)
    _steps(ax, cube, int(step[-1]))
    return None


def energy_per_mode(cube: xr.Dataset) -> tuple[Array, Array] | None:
    """Radial frequencies (radius,) and the latent's energy per DCT mode and channel (step, radius); None if unrecorded.

    Unit white noise is flat at 1.  Means are over prompts; radii that hold no mode of the grid are left out.
    """
    grid = json.loads(cube.attrs.get("grid", "null"))
    if "latent" not in cube.signal.values or grid is None:
        return None
    modes = radial_modes(cube.sizes["radius"], *grid)
    spectrum = select(cube, "latent").spectrum.transpose("run", "step", "radius").values.astype(np.float64)
    fields = cube.sizes["channel"] * cube.sizes.get("frame", 1)
    power = cluster_means(spectrum, prompts_of(cube)).mean(0)[:, modes > 0] / modes[modes > 0] / fields
    return cube.radius.values[modes > 0].astype(np.float64), power


def spectrum_panel(ax: Axes, cube: xr.Dataset, lines: int = 6) -> None:
    """Energy of the latent per DCT mode and channel over radial frequency, from the initial noise to the sample."""
    from matplotlib import colormaps

    ax.set_title("Radial spectrum of the latent, noise to sample")
    found, last = energy_per_mode(cube), cube.sizes["step"] - 1
    if found is None:
        return _say(ax, "not recorded")
    radius, power = found
    for i in np.unique(np.linspace(0, last, lines).round().astype(int)):
        at = i / max(last, 1)
        ends = i in (0, last)
        ax.plot(radius, power[i], color=colormaps["Greys"](0.35 + 0.6 * at), linewidth=2.2 if ends else 1.0)
    ax.set_yscale("log")
    ax.set_xscale("log")
    _spectrum_labels(ax, cube, radius, power)
    return None


def _spectrum_labels(ax: Axes, cube: xr.Dataset, radius: Array, power: Array) -> None:
    ax.set_xlim(radius[0] * 0.9, radius[-1] * 1.05)
    ticks = [t for t in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if radius[0] * 0.9 <= t <= radius[-1] * 1.05]
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.set_xticks([], minor=True)
    _decades(ax, power[power > 0])
    ax.set_xlabel("radial frequency, cycles per latent pixel")
    ax.set_ylabel("energy per mode")
    ends = apart(np.log([power[0, -1], power[-1, -1]]), 0.05 * float(np.ptp(np.log(power[power > 0]))))
    for y, word, colour in zip(np.exp(ends), ("noise", "sample"), ("#8c8c8c", INK), strict=True):
        _text(ax, radius[-1] * 1.08, y, word, color=colour, va="center", fontsize=8.5, fontweight="bold")
    _band_strip(ax, cube, radius[0] * 0.9, radius[-1] * 1.05)


def _decades(ax: Axes, power: Array) -> None:
    """Plain numbers on a logarithmic axis: decades, and 2 and 5 between them where there are few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    few = power.max() / power.min() < 300
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_locator(NullLocator())


def _band_strip(ax: Axes, cube: xr.Dataset, left: float, right: float) -> None:
    """The bands as ranges of frequency: neighbours meet where the Gaussian between them has fallen to one half."""
    half = math.sqrt(2 * math.log(2)) / (2 * math.pi)
    limits = np.clip([left, *(half / s for s in cube.scale_low.values[1:]), right], left, right)
    for start, end, colour in zip(limits, limits[1:], band_colours(cube.sizes["band"]), strict=False):
        ax.axvspan(start, end, ymax=0.018, color=colour, linewidth=0)
    _text(ax, 0.01, 0.028, "bands", transform=ax.transAxes, fontsize=8, color=MUTED, va="bottom")


def _headline(figure: Figure, cube: xr.Dataset) -> None:
    ordered = _has_coherence(cube) and _rises(emergence(cube))
    title = "Bands are decided from low to high frequency" if ordered else "Frequency bands during sampling"
    _text(figure, LEFT, 0.965, title, fontsize=15, fontweight="bold", va="top")
    _text(figure, LEFT, 0.925, _subject(cube), fontsize=9, color=MUTED, va="top")


def _rises(found: xr.Dataset) -> bool:
    """True where higher bands are decided later: never earlier, most of them later, and the ends beyond doubt."""
    step, apart = np.minimum(found.step.values, 1e9), found.low.values[-1] > found.high.values[0]
    return bool(apart and (np.diff(step) >= 0).all() and 2 * len(set(step)) > len(step))


def _subject(cube: xr.Dataset) -> str:
    """The model and what was sampled, in a line."""
    runs, prompts = cube.sizes["run"], len(set(prompts_of(cube)))
    words = [_plain(str(cube.attrs["model"]))] if "model" in cube.attrs else []
    words.append(f"{runs} runs of {prompts} prompts" if prompts > 1 else f"{runs} run{'s' * (runs > 1)} of one prompt")
    words.append(f"{cube.sizes['step'] - 1} steps")
    scales = cube.guidance_scale.values if "guidance_scale" in cube.coords else []
    guidance = sorted({float(g) for g in scales if math.isfinite(g)})
    if guidance:
        words.append("no guidance" if guidance == [1.0] else f"guidance {', '.join(f'{g:g}' for g in guidance)}")
    return "  ·  ".join([*words, "mean and 95 % interval over prompts" if prompts > 1 else "mean"])


def _steps(ax: Axes, cube: xr.Dataset, last: int) -> None:
    """Ticks up to a last step that say the step and the noise level there."""
    every = next(n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500, last) if last / n <= 7)
    at = np.arange(0, last + 1, max(every, 1))
    ax.set_xlim(0, max(last, 1))
    ax.set_xticks(at, [f"{i}\n{cube.noise_level.values[i]:.2g}" for i in at])
    ax.set_xlabel("step, noise level below", labelpad=3)


def _range(low: float, high: float) -> str:
    wide, narrow = (f"{round(scale, 2 if scale < 1 else 1):g}" for scale in (low, high))
    if math.isinf(low):
        return f"> {narrow} px" if high else "all"
    return f"{narrow}–{wide} px" if high else f"< {wide} px"


def _has_coherence(cube: xr.Dataset) -> bool:
    return bool(np.isfinite(cube.coherence.values[:, :-1]).all()) and cube.sizes["step"] > 1


def apart(positions: Array, gap: float) -> Array:
    """Ascending or descending positions, moved as little as is simple until neighbours are `gap` apart."""
    order = np.argsort(positions, kind="stable")
    y = np.asarray(positions, np.float64)[order]
    for _ in range(50):
        short = np.maximum(gap - np.diff(y), 0) / 2
        if not short.any():
            break
        y[:-1] -= short
        y[1:] += short
    return y[np.argsort(order, kind="stable")]


def _say(ax: Axes, words: str) -> None:
    ax.tick_params(bottom=False, labelbottom=False, left=False, labelleft=False)
    _text(ax, 0.5, 0.5, words, transform=ax.transAxes, color=MUTED, ha="center", va="center")


def _text(on: Axes | Figure, x: float, y: float, words: str, **style: object) -> None:
    """Text taken literally: a `$` in a name is a dollar sign."""
    on.text(x, y, words, parse_math=False, **style)  # type: ignore[arg-type]


def _beside(ax: Axes, y: float, words: str, colour: Colour) -> None:
    """A label right of the axes at height y, in a darker tone of the colour so that thin letters can be read."""
    tone = tuple(0.75 * part for part in colour[:3])
    _text(ax, 1.02, y, words, transform=ax.get_yaxis_transform(), color=tone, va="center", fontsize=8)


def _plain(name: str, longest: int = 60) -> str:
    """A name that fits on a line: printable, and shortened at its beginning."""
    line = "".join(c if c.isprintable() else " " for c in name)
    return line if len(line) <= longest else "…" + line[1 - longest :]
