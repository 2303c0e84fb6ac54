"""Panels of the overview: coherence, emergence, shares and the radial spectrum."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from spectra.analysis import (
    DECIDED,
    cluster_means,
    coherence,
    emergence,
    mean_over_prompts,
    prompts_of,
    relative,
    select,
    shares,
)
from spectra.analysis.labels import fields_of, grid_of
from spectra.plots.spread import spread
from spectra.plots.style import (
    FAINT,
    INK,
    MUTED,
    Array,
    Colour,
    apart,
    band_colours,
    band_labels,
    beside,
    decades,
    of_data,
    say,
    steps_axis,
    text,
)
from spectra.radial import radial_modes

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes


DOT: dict[str, Any] = {"markersize": 6.5, "markeredgecolor": "white", "zorder": 4, "clip_on": False}


def coherence_panel(ax: Axes, cube: xr.Dataset) -> None:
    """Coherence of x0 with the finished sample over steps, a line per band, with the step at which each is decided."""
    ax.set_title("Coherence of x0 with the finished sample")
    if not has_coherence(cube):
        return say(ax, "not recorded")
    cosines = coherence(cube).isel(step=slice(-1))
    means = mean_over_prompts(cosines)
    value, low, high = (means[name].transpose("step", "band").values for name in ("value", "low", "high"))
    step, found = np.arange(cube.sizes["step"] - 1), emergence(cube).call.values
    ax.axhline(DECIDED, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    text(ax, step[-1], DECIDED - 0.02, f"decided: {DECIDED:g}", color=MUTED, ha="right", va="top", fontsize=8)
    spread(ax, cosines, low, high, band_colours(value.shape[-1]))
    for band, colour in reversed(list(enumerate(band_colours(value.shape[-1])))):
        ax.plot(step, value[:, band], color=colour, zorder=3)
        if np.isfinite(found[band]):
            i = int(found[band])
            ax.plot(step[i], value[i, band], "o", color=colour, **DOT)
    ax.set_ylim(min(0.0, float(value.min()) - 0.03), 1.03)
    ax.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    steps_axis(ax, cube, cube.sizes["step"] - 1)
    return None


def emergence_panel(ax: Axes, cube: xr.Dataset) -> None:
    """Per band, low to high from the top: the first step with lasting coherence, with its interval, named directly."""
    bands, last = cube.sizes["band"], cube.sizes["step"] - 1
    ax.set_ylim(bands - 0.4, -0.6)
    ax.set_yticks([])
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    ax.tick_params(axis="x", bottom=False, labelbottom=False)
    if not has_coherence(cube):
        return
    found, over = emergence(cube), "prompts" if len(set(prompts_of(cube))) > 1 else "runs"
    title = "Step from which on each band stays decided" + (f", 95 % over {over}" if found.attrs["n"] > 1 else "")
    text(ax, 0, 1.0, title, transform=ax.transAxes, fontsize=8.5, color=MUTED)
    for band, (colour, label) in enumerate(zip(band_colours(bands), band_labels(cube), strict=True)):
        ax.plot([0, last], [band, band], color=FAINT, linewidth=0.7, zorder=1)
        _decision(ax, found.isel(band=band), band, colour, last)
        step = float(found.step.values[band])
        beside(ax, band, f"{label}   {step:.0f}" if math.isfinite(step) else f"{label}   later", colour)


def _decision(ax: Axes, found: xr.Dataset, height: float, colour: Colour, last: int) -> None:
    """The call that decides a band as a dot, with its interval as a bar; a band that is not decided has no dot."""
    call, low, high = (float(found[name]) for name in ("call", "call_low", "call_high"))
    if found.attrs["n"] > 1:
        ax.plot([low, min(high, last)], [height, height], color=colour, linewidth=5, alpha=0.3, zorder=2)
    if math.isfinite(call):
        ax.plot(call, height, "o", color=colour, **DOT)


def shares_panel(ax: Axes, cube: xr.Dataset, signal: str) -> None:
    """Shares of the bands in the energy of a signal over steps, stacked from low to high."""
    ax.set_title({"latent": "Energy of the latent by band", "x0": "Energy of x0 by band"}.get(signal, signal))
    if signal not in cube.signal.values:
        return say(ax, "not recorded")
    values = cluster_means(shares(cube, signal).values.astype(np.float64), prompts_of(cube)).mean(0)
    seen = np.isfinite(values).all(1)
    step, values = np.flatnonzero(seen), values[seen]
    colours = band_colours(values.shape[1])
    ax.stackplot(step, values.T, colors=colours, linewidth=0.6, edgecolor="white", alpha=0.92)
    ax.set_ylim(0, 1)
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    middle = values[-1].cumsum() - values[-1] / 2
    words = [f"{label}  {100 * v:.0f} %" for label, v in zip(band_labels(cube), values[-1], strict=True)]
    for y, word, colour in zip(apart(middle, 0.085, 0.03, 0.97), words, colours, strict=True):
        beside(ax, y, word, colour)
    steps_axis(ax, cube, cube.sizes["step"] - 1)
    return None


def relative_panel(ax: Axes, cube: xr.Dataset) -> None:
    """Energy of the latent over that of unit white noise, a line per band; intervals are symmetric in the logarithm."""
    ax.set_title("Energy of the latent over that of white noise")
    ratio = relative(select(cube, "latent"))
    ratio = ratio.mean([dim for dim in ("channel", "frame") if dim in ratio.dims], skipna=False)
    found, colours = mean_over_prompts(ratio), band_colours(cube.sizes["band"])
    value, high = (found[name].transpose("step", "band").values for name in ("value", "high"))
    factor = np.exp((high - value) / value)
    ax.axhline(1, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    spread(ax, ratio, value / factor, value * factor, colours)
    for line, colour in zip(value.T, colours, strict=True):
        ax.plot(np.arange(len(line)), line, color=colour, zorder=3)
    ax.set_yscale("log")
    decades(ax, value[value > 0])
    low, top = np.log(ax.get_ylim())
    places = apart(np.log(value[-1]), 0.075 * (top - low), low, top)
    for y, word, colour in zip(np.exp(places), band_labels(cube), colours, strict=True):
        beside(ax, y, word, colour)
    steps_axis(ax, cube, cube.sizes["step"] - 1)


def energy_per_mode(cube: xr.Dataset) -> tuple[Array, Array] | None:
    """Radial frequencies (radius,), cycles per latent pixel, and the latent's energy per DCT mode and channel (step,
    radius); None if the latent was not recorded.

    Unit white noise is flat at 1.  Means are over prompts; radii that hold no mode of the grid are left out.
    """
    if "latent" not in cube.signal.values:
        return None
    grid = grid_of(cube)
    modes = radial_modes(cube.sizes["radius"], *grid)
    spectrum = select(cube, "latent").spectrum.transpose("run", "step", "radius").values.astype(np.float64)
    mean, radius = cluster_means(spectrum, prompts_of(cube)).mean(0), cube.radius.values
    starts = np.arange(0, len(modes), -(-len(modes) // max(grid)))  # no finer than the modes along the longer side
    energy, weighted, modes = (np.add.reduceat(v, starts, -1) for v in (mean, radius * modes, modes))
    held = modes > 0
    return weighted[held] / modes[held], energy[:, held] / modes[held] / fields_of(cube)


def spectrum_panel(ax: Axes, cube: xr.Dataset, lines: int = 6) -> None:
    """Energy of the latent per DCT mode and channel over radial frequency, from the initial noise to the sample."""
    from matplotlib import colormaps

    ax.set_title(f"Radial spectrum of the latent, noise to {_end(cube)}")
    found, last = energy_per_mode(cube), cube.sizes["step"] - 1
    if found is None:
        return say(ax, "not recorded")
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
    decades(ax, power[power > 0])
    ax.set_xlabel("radial frequency, cycles per latent pixel")
    ax.set_ylabel("energy per mode")
    ends = apart(np.log([power[0, -1], power[-1, -1]]), 0.05 * float(np.ptp(np.log(power[power > 0]))))
    for y, word, colour in zip(np.exp(ends), ("noise", _end(cube)), ("#8c8c8c", INK), strict=True):
        text(ax, radius[-1] * 1.08, y, word, color=colour, va="center", fontsize=8.5, fontweight="bold")
    _band_strip(ax, cube, radius[0] * 0.9, radius[-1] * 1.05)


def _end(cube: xr.Dataset) -> str:
    return "data" if of_data(cube) else "sample"


def _band_strip(ax: Axes, cube: xr.Dataset, left: float, right: float) -> None:
    """The bands as ranges of frequency: neighbours meet where the Gaussian between them has fallen to one half."""
    half = math.sqrt(2 * math.log(2)) / (2 * math.pi)
    limits = np.clip([left, *(half / s for s in cube.scale_low.values[1:]), right], left, right)
    for start, end, colour in zip(limits, limits[1:], band_colours(cube.sizes["band"]), strict=False):
        ax.axvspan(start, end, ymax=0.018, color=colour, linewidth=0)
    text(ax, 0.01, 0.028, "bands", transform=ax.transAxes, fontsize=8, color=MUTED, va="bottom")


def has_coherence(cube: xr.Dataset) -> bool:
    """True where every complete run has its coherence."""
    there = "coherence" in cube and cube.sizes["step"] > 1
    return there and bool(np.isfinite(cube.coherence.values[:, :-1]).all())
