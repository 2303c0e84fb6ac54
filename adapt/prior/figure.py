"""What a prior says, on a page, in the style of the probe's own figures.

Noise is on the left and the finished sample on the right, by the timestep that a trainer knows.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from adapt.prior.density import relative
from adapt.prior.parts import Array, BankScore
from adapt.prior.words import listed, subject
from spectra.plots.style import FAINT, INK, LEFT, MUTED, STYLE, Colour, apart, band_colours, beside, headline, say, text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from adapt.prior.prior import Prior


def page(prior: Prior) -> Figure:
    """Four panels: the bands' shares and the experts' first gates over the noise level, training levels, the choice."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(11, 7.4), dpi=150)
        headline(figure, "What the probe tells the adapter", f"Learned from {subject(prior)}")
        grid = figure.add_gridspec(2, 2, left=LEFT, right=0.89, bottom=0.075, top=0.85, hspace=0.42, wspace=0.5)
        shares_panel(figure.add_subplot(grid[0, 0]), prior)
        gates_panel(figure.add_subplot(grid[1, 0]), prior)
        density_panel(figure.add_subplot(grid[0, 1]), prior)
        choice_panel(figure.add_subplot(grid[1, 1]), prior)
    return figure


def shares_panel(ax: Axes, prior: Prior) -> None:
    """Shares of the bands in the energy of what the denoiser is given, stacked from low to high."""
    ax.set_title("What the router sees: energy by band")
    values, colours = np.array(prior.shares), band_colours(prior.bands)
    ax.stackplot(prior.timestep, values.T, colors=colours, linewidth=0.6, edgecolor="white", alpha=0.92)
    _percent(ax)
    middle = values[-1].cumsum() - values[-1] / 2
    words = [f"{name}  {100 * v:.0f} %" for name, v in zip(band_names(prior), values[-1], strict=True)]
    for y, word, colour in zip(apart(middle, 0.085, 0.03, 0.97), words, colours, strict=True):
        beside(ax, y, word, colour)
    _timesteps(ax, prior)


def gates_panel(ax: Axes, prior: Prior) -> None:
    """Mean first gates, a line per expert, named where it leads."""
    ax.set_title("Where the experts start: first gates")
    gates, colours = np.array(prior.gates), expert_colours(prior.experts)
    for m, colour in enumerate(colours):
        ax.plot(prior.timestep, gates[:, m], color=colour)
    _percent(ax)
    ends = apart(gates[-1], 0.075, 0.03, 0.97)
    for m, (y, colour) in enumerate(zip(ends, colours, strict=True)):
        beside(ax, y, f"expert {m}", colour)
    advised = prior.experts_advised
    note = "" if advised is None or advised == prior.experts else f"  ({advised} advised)"
    words = f"{prior.experts} expert{'s' * (prior.experts > 1)}{note}, overlap {prior.overlap:g}"
    text(ax, 0.5, 0.985, words, transform=ax.transAxes, fontsize=8, color=MUTED, va="top", ha="center")
    _timesteps(ax, prior)


def density_panel(ax: Axes, prior: Prior) -> None:
    """Density of the training noise levels over that of uniform training, with the sampler's steps below."""
    ax.set_title("Where to train: density of timesteps")
    found = prior.density
    timestep, height = relative(prior.timestep_log_snr, found)
    colour = band_colours(2)[0]
    ax.fill_between(timestep, height, color=colour, alpha=0.16, linewidth=0)
    ax.plot(timestep, height, color=colour)
    top = max(float(height.max()) * 1.18, 1.5)
    for level, words in ((1.0, "uniform"), (found.floor, "never below")):
        ax.axhline(level, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        text(ax, 1.02, level, words, transform=ax.get_yaxis_transform(), color=MUTED, va="center", fontsize=8)
    _bands_emerge(ax, prior, 0.96 * top)
    rug = -0.055 * top
    ax.plot(prior.timestep, np.full(len(prior.timestep), rug), "|", color=INK, markersize=7, clip_on=False)
    steps = "probed levels" if prior.provenance.get("source") == "data" else f"{len(prior.timestep)} sampler steps"
    text(ax, 1.02, rug, steps, transform=ax.get_yaxis_transform(), color=INK, va="center", fontsize=8)
    ax.set_ylim(2 * rug, top)
    ax.set_ylabel("times uniform training")
    _timesteps(ax, prior)


def _bands_emerge(ax: Axes, prior: Prior, y: float) -> None:
    """A dot per band, in its colour, at the timestep where half of it can be told from the noise."""
    at = np.interp(-np.array(prior.density.emergence[0]), -np.array(prior.density.log_snr), prior.density.timestep)
    for x, colour in zip(at, band_colours(prior.bands), strict=True):
        ax.plot(x, y, "o", color=colour, markersize=6.5, markeredgecolor="white", zorder=4, clip_on=False)
    text(ax, 1.02, y, "bands emerge", transform=ax.get_yaxis_transform(), color=MUTED, va="center", fontsize=8)


def choice_panel(ax: Axes, prior: Prior) -> None:
    """Scores of the chosen bands, the default octaves and the best candidate of each number of bands."""
    choice = prior.bank
    ax.set_title("Why these bands: information in their shares")
    if choice.chosen is None:
        return say(ax, "too few samples to compare bands")
    rows = _rows(prior)
    for y, (name, score, chosen) in enumerate(rows):
        _score(ax, y, score, (*band_colours(2)[0][:3], 1.0) if chosen else (0.5, 0.5, 0.5, 1.0))
        words = f"{name}\n{listed(score.scales)} px"
        weight = "bold" if chosen else "normal"
        text(ax, 1.02, y, words, transform=ax.get_yaxis_transform(), va="center", fontsize=8, fontweight=weight)
        if y == 0:
            text(ax, score.level.value, -0.16, "noise level alone", ha="center", va="bottom", fontsize=8, color=MUTED)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.set_xlim(left=min(0.0, ax.get_xlim()[0]))
    ax.set_xlabel(f"nats about noise level and content, 95 % over {choice.unit}, held out")
    return None


def _rows(prior: Prior) -> list[tuple[str, BankScore, bool]]:
    """What is compared, each bank once: (name, score, whether it is the prior's)."""
    choice = prior.bank
    best = [] if choice.gain is None else [(f"best of {len(score.scales) + 1} bands", score) for score in choice.best]
    asked = [("asked for", choice.chosen)] if choice.gain is None else []
    found: dict[tuple[float, ...], tuple[str, BankScore]] = {}
    for name, score in [*best, *asked, (choice.against.removeprefix("the "), choice.default)]:
        if score is not None:
            found[score.scales] = (f"{found[score.scales][0]}, {name}" if score.scales in found else name, score)
    return [(name, score, score.scales == prior.scales) for name, score in found.values()]


def _score(ax: Axes, y: int, score: BankScore, colour: Colour) -> None:
    """A bank's score: a dot with its interval, and the part about the noise level as a tick."""
    total = score.total
    ax.axhline(y, color=FAINT, linewidth=0.7, zorder=1)
    if total.low is not None and total.high is not None:
        ax.plot([total.low, total.high], [y, y], color=colour, linewidth=5, alpha=0.3, zorder=2)
    ax.plot(total.value, y, "o", color=colour, markersize=6.5, markeredgecolor="white", zorder=4)
    ax.plot(score.level.value, y, "|", color=colour, markersize=9, zorder=3)


def band_names(prior: Prior) -> list[str]:
    """Per band, low to high, the range of its Gaussian scales in latent pixels."""
    ends = [math.inf, *reversed(prior.scales), 0.0]
    return [_range(low, high) for low, high in pairwise(ends)]


def expert_colours(count: int) -> list[Colour]:
    """One colour per expert, apart from those of bands."""
    from matplotlib import colormaps

    return [colormaps["viridis"](v) for v in np.linspace(0.1, 0.8, count)]


def _range(low: float, high: float) -> str:
    wide, narrow = (f"{scale:.2g}" for scale in (low, high))
    if math.isinf(low):
        return f"> {narrow} px"
    return f"{narrow}–{wide} px" if high else f"< {wide} px"


def _percent(ax: Axes) -> None:
    ax.set_ylim(0, 1)
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])


def _timesteps(ax: Axes, prior: Prior) -> None:
    """Timesteps, noise on the left."""
    ends: Array = np.array(prior.timestep)
    ax.set_xlim(float(ends[0]), float(prior.density.timestep[0]))
    ax.set_xlabel("timestep, from noise to the finished sample", labelpad=3)
