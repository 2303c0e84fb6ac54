"""The panels that show what the base model does."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from reports.base import Base
from reports.figures import INK, MUTED, band_colour, panel, plain
from reports.panels import Panel, made
from spectra.analysis import DECIDED


def coherence(base: Base) -> Panel:
    """Coherence of x0 with the finished sample, per band and step."""
    bands = base.coherence.shape[1]

    def draw(axes: Axes) -> None:
        axes.axhline(DECIDED, color=MUTED, linewidth=0.9, linestyle=(0, (2, 2)))
        for band in range(bands):
            axes.plot(base.coherence[:, band], color=band_colour(band, bands))
            step = base.decided[band].step
            if np.isfinite(step):
                axes.plot(step, DECIDED, "o", color=band_colour(band, bands), markersize=6)
        axes.set_ylim(min(0.0, float(np.nanmin(base.coherence))) - 0.02, 1.03)
        axes.set_xlim(0, base.steps)
        axes.set_xlabel("step, from noise (left) to picture (right)")
        axes.set_ylabel("cosine")
        axes.annotate(
            f"decided at {DECIDED}",
            (base.steps, DECIDED),
            xytext=(0, -4),
            textcoords="offset points",
            ha="right",
            va="top",
            color=MUTED,
        )

    told = ", ".join(f"band {d.band} at step {d.step:g}" for d in base.decided)
    text = f"One line per band; each rises to 1. Bands reach {DECIDED}: {told}."
    return made("coherence", "Coherence of x0 with the finished sample", text, panel(draw))


def shares(base: Base, signal: str) -> Panel:
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
    return made(f"shares-{signal}", f"Energy shares of {name}", text, panel(draw))


def radial(base: Base) -> Panel:
    """Radial spectrum of the latent at some steps."""

    def draw(axes: Axes) -> None:
        chosen = np.unique(np.linspace(0, base.steps, 5).round().astype(int))
        radius = base.cube.radius.values
        for i, step in enumerate(chosen):
            strength = 0.25 + 0.75 * i / max(len(chosen) - 1, 1)
            axes.plot(radius, base.spectrum[step], color=INK, alpha=strength, linewidth=1.4)
            axes.annotate(
                f"step {step}",
                (radius[-1], base.spectrum[step][-1]),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                color=MUTED,
                fontsize=9,
            )
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(plain)
        axes.yaxis.set_minor_formatter(lambda *_: "")
        axes.set_xlabel("frequency, cycles per latent pixel")
        axes.set_ylabel("energy per bin")

    text = "From nearly flat noise at step 0, darker lines for later steps, to the spectrum of the finished latent."
    return made("radial", "Radial spectrum of the latent", text, panel(draw))
