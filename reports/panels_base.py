"""The panels that show what the base model does."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from reports.base import Base
from reports.figures import INK, MUTED, RULE, band_colour, panel, plain
from reports.panels.panel import made
from reports.sections import Panel
from spectra.analysis import DECIDED
from spectra.plots import apart


def coherence(base: Base, prefix: str = "") -> Panel:
    """Coherence of x0 with the finished sample, per band and step; below it, when each band is decided."""
    bands, floor = base.coherence.shape[1], min(0.0, float(np.nanmin(base.coherence)))

    def draw(axes: Axes) -> None:
        axes.axhline(DECIDED, color=MUTED, linewidth=0.9, linestyle=(0, (2, 2)))
        for band in range(bands):
            colour, step = band_colour(band, bands), np.arange(len(base.coherence))
            if np.isfinite(base.coherence_low[:-1]).all():
                low, high = base.coherence_low[:, band], base.coherence_high[:, band].clip(max=1)
                axes.fill_between(step, low.clip(min=floor), high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(base.coherence[:, band], color=colour)
        bottom = decided_rows(axes, base, floor)
        axes.set_ylim(bottom, 1.03)
        axes.set_yticks(np.linspace(0, 1, 6))
        axes.set_xlim(0, base.steps)
        axes.set_xlabel("step, from noise (left) to picture (right)")
        axes.set_ylabel("cosine", y=(0.5 - bottom) / (1.03 - bottom))
        place: dict[str, Any] = {"xytext": (0, -4), "textcoords": "offset points", "ha": "right", "va": "top"}
        axes.annotate(f"decided at {DECIDED}", (base.steps, DECIDED), color=MUTED, **place)

    told = ", ".join(f"band {d.band} at step {d.step:g}" for d in base.decided)
    text = f"One line per band; each rises to 1. Bands reach {DECIDED}: {told}."
    over = "Shaded: 95 % intervals over prompts. " if base.prompts > 1 else ""
    note = f"{over}Dots: the step from which on a band stays decided, a row per band, lowest above."
    return made(f"{prefix}coherence", "Coherence of x0 with the finished sample", text, panel(draw), note)


def decided_rows(axes: Axes, base: Base, floor: float) -> float:
    """Below the curves a row per band: a dot at its step and a bar for the interval; returns the lower end."""
    bands = len(base.decided)
    height = min(0.075, 0.5 / bands)
    rows = floor - 0.03 - height * (np.arange(bands) + 0.5)
    for band, y in zip(base.decided, rows, strict=True):
        colour = band_colour(band.band, bands)
        axes.plot([0, base.steps], [y, y], color=RULE, linewidth=0.8)
        if np.isfinite(band.low) and base.runs > 1:
            axes.plot([band.low, min(band.high, base.steps)], [y, y], color=colour, linewidth=4, alpha=0.35)
        if np.isfinite(band.step):
            axes.plot(band.step, y, "o", color=colour, markersize=5.5, clip_on=False, zorder=4)
    place, middle = axes.get_yaxis_transform(), float(rows.mean())
    axes.text(-0.02, middle, "decided", transform=place, ha="right", va="center", color=MUTED, fontsize=9)
    return float(rows[-1]) - 0.7 * height


def shares(base: Base, signal: str, prefix: str = "") -> Panel:
    """How a signal's energy is spread over the bands at each step."""
    values = base.shares[signal]
    bands = values.shape[1]

    def draw(axes: Axes) -> None:
        axes.stackplot(
            np.arange(len(values)),
            values.T,
            colors=[band_colour(k, bands) for k in range(bands)],
            alpha=0.8,
            linewidth=0,
        )
        axes.set_ylim(0, 1)
        axes.set_xlim(0, base.steps)
        axes.set_xlabel("step, from noise (left) to picture (right)")
        axes.set_ylabel("share of energy")

    last = values[np.flatnonzero(np.isfinite(values).all(axis=1))[-1]]
    text = (
        "Stacked shares, lowest band below. At the end: "
        + ", ".join(f"band {k} {v:.0%}" for k, v in enumerate(last))
        + "."
    )
    name = {"latent": "the latent", "x0": "x0, the predicted picture"}[signal]
    return made(f"{prefix}shares-{signal}", f"Energy shares of {name}", text, panel(draw))


def radial(base: Base, prefix: str = "") -> Panel:
    """Energy of the latent per mode over radial frequency at some steps; white noise is flat at 1."""
    assert base.spectrum is not None
    radius, power = base.spectrum
    chosen = np.unique(np.linspace(0, base.steps, 5).round().astype(int))
    seen = np.log(power[chosen][power[chosen] > 0])
    reach = max(float(np.ptp(seen)), 1.0)
    limits = np.exp((seen.min() + seen.max()) / 2 + 0.56 * reach * np.array([-1, 1]))

    def draw(axes: Axes) -> None:
        ends = np.log(np.clip(power[chosen, -1], *limits))
        for i, (step, y) in enumerate(zip(chosen, np.exp(apart(ends, 0.08 * reach)), strict=True)):
            strength = 0.25 + 0.75 * i / max(len(chosen) - 1, 1)
            axes.plot(radius, power[step], color=INK, alpha=strength, linewidth=1.4)
            place: dict[str, Any] = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "fontsize": 9}
            axes.annotate(f"step {step}", (radius[-1], y), color=MUTED, annotation_clip=False, **place)
        axes.set(xscale="log", yscale="log", ylim=limits, xlim=(radius[0] * 0.9, radius[-1] * 1.02))
        ticks = [t for t in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if radius[0] * 0.9 <= t <= radius[-1] * 1.02]
        axes.set_xticks(ticks, [plain(t) for t in ticks])
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(plain)
        axes.set_xlabel("radial frequency, cycles per latent pixel")
        axes.set_ylabel("energy per mode")

    text = "From flat noise at step 0, darker lines for later steps, to the spectrum of the finished latent."
    note = "Energy per mode and channel: unit white noise is flat at 1."
    return made(f"{prefix}radial", "Radial spectrum of the latent", text, panel(draw), note)
