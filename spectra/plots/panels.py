"""Panels of the overview: coherence, emergence, shares and the radial spectrum."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import numpy as np

from spectra.analysis import DECIDED, cluster_means, coherence, emergence, mean_over_prompts, prompts_of, select, shares
from spectra.bands import radial_modes
from spectra.plots.style import (
    FAINT,
    INK,
    MUTED,
    Array,
    apart,
    band_colours,
    band_labels,
    beside,
    decades,
    places,
    say,
    steps_axis,
    text,
)

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes


def coherence_panel(ax: Axes, cube: xr.Dataset) -> None:
    """Coherence of x0 with the finished sample over steps, a line per band, with the step at which each is decided."""
    ax.set_title("Coherence of x0 with the finished sample")
    if not has_coherence(cube):
        return say(ax, "not recorded")
    means = mean_over_prompts(coherence(cube).isel(step=slice(-1)))
    value, low, high = (means[name].transpose("step", "band").values for name in ("value", "low", "high"))
    step, found = np.arange(cube.sizes["step"] - 1), places(cube, emergence(cube).step.values)
    ax.axhline(DECIDED, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    text(ax, step[-1], DECIDED - 0.02, f"decided: {DECIDED:g}", color=MUTED, ha="right", va="top", fontsize=8)
    for band, colour in reversed(list(enumerate(band_colours(value.shape[-1])))):
        if means.attrs["n"] > 1:
            ax.fill_between(step, low[:, band], high[:, band], color=colour, alpha=0.15, linewidth=0)
        ax.plot(step, value[:, band], color=colour, zorder=3)
        if np.isfinite(found[band]):
            i = int(found[band])
            ax.plot(step[i], value[i, band], "o", color=colour, markersize=6.5, markeredgecolor="white", zorder=4)
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
    title = "Step from which on each band stays decided, low to high"
    text(ax, 0, 1.0, title, transform=ax.transAxes, fontsize=8.5, color=MUTED)
    found = emergence(cube)
    for band, (colour, label) in enumerate(zip(band_colours(bands), band_labels(cube), strict=True)):
        said = float(found.step.values[band])
        first, low, high = (float(places(cube, found[name].values)[band]) for name in ("step", "low", "high"))
        ax.plot([0, last], [band, band], color=FAINT, linewidth=0.7, zorder=1)
        if found.attrs["n"] > 1:
            ax.plot([low, min(high, last)], [band, band], color=colour, linewidth=5, alpha=0.3, zorder=2)
        if math.isfinite(first):
            ax.plot(first, band, "o", color=colour, markersize=6.5, markeredgecolor="white", zorder=3, clip_on=False)
        words = f"{label}   {said:.0f}" if math.isfinite(said) else f"{label}   later"
        beside(ax, band, words, colour)


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
    for y, word, colour in zip(apart(middle, 0.085), words, colours, strict=True):
        beside(ax, y, word, colour)
    steps_axis(ax, cube, int(step[-1]))
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
    mean, (radius, modes) = cluster_means(spectrum, prompts_of(cube)).mean(0), (cube.radius.values, modes)
    starts = np.arange(0, len(modes), -(-len(modes) // max(grid)))  # no finer than the modes along the longer side
    energy, weighted, modes = (np.add.reduceat(v, starts, -1) for v in (mean, radius * modes, modes))
    held = modes > 0
    return weighted[held] / modes[held], energy[:, held] / modes[held] / fields


def spectrum_panel(ax: Axes, cube: xr.Dataset, lines: int = 6) -> None:
    """Energy of the latent per DCT mode and channel over radial frequency, from the initial noise to the sample."""
    from matplotlib import colormaps

    ax.set_title("Radial spectrum of the latent, noise to sample")
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
    for y, word, colour in zip(np.exp(ends), ("noise", "sample"), ("#8c8c8c", INK), strict=True):
        text(ax, radius[-1] * 1.08, y, word, color=colour, va="center", fontsize=8.5, fontweight="bold")
    _band_strip(ax, cube, radius[0] * 0.9, radius[-1] * 1.05)


def _band_strip(ax: Axes, cube: xr.Dataset, left: float, right: float) -> None:
    """The bands as ranges of frequency: neighbours meet where the Gaussian between them has fallen to one half."""
    half = math.sqrt(2 * math.log(2)) / (2 * math.pi)
    limits = np.clip([left, *(half / s for s in cube.scale_low.values[1:]), right], left, right)
    for start, end, colour in zip(limits, limits[1:], band_colours(cube.sizes["band"]), strict=False):
        ax.axvspan(start, end, ymax=0.018, color=colour, linewidth=0)
    text(ax, 0.01, 0.028, "bands", transform=ax.transAxes, fontsize=8, color=MUTED, va="bottom")


def has_coherence(cube: xr.Dataset) -> bool:
    """True where every complete run has its coherence."""
    return bool(np.isfinite(cube.coherence.values[:, :-1]).all()) and cube.sizes["step"] > 1
