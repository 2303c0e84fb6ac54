"""What the experts of FeRA do: how the gates share them out, and what each of them changes where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from reports.figures import MUTED, SIZE, expert_colour, multiples, over_levels, panel
from reports.panels.levels import noisiest_first
from reports.panels.panel import made
from reports.sections import Panel
from reports.statistics import Array
from reports.words import listed

if TYPE_CHECKING:
    from reports.compare import Gates

DOTS = (
    "The area of a dot is the energy that the expert adds; it is filled where the expert helps and hollow where the "
    "error shrinks without it."
)
"""How to read the panels of `specialisation`."""
LARGEST = 15.0
"""Diameter of the largest dot in points."""
LEAST = 0.12
"""Share from which on an expert's name fits into its area."""


def gates(found: Gates, noise_level: Array, number: int, prefix: str = "") -> Panel:
    """Shares of the experts over noise levels for one run."""
    order = noisiest_first(noise_level)
    share = found.share[order]

    def draw(axes: Axes) -> None:
        colours = [expert_colour(e) for e in range(share.shape[1])]
        axes.stackplot(np.arange(len(share)), share.T, colors=colours, alpha=0.8, linewidth=0)
        name_areas(axes, share)
        over_levels(axes, noise_level[order])
        axes.set_xlim(0, len(share) - 1)
        axes.set_ylim(0, 1)
        axes.set_ylabel("share of gates")

    told = "; ".join(f"expert {e} from {share[0, e]:.0%} to {share[-1, e]:.0%}" for e in range(share.shape[1]))
    text = (
        f"Stacked shares of the experts from the noisiest level to the cleanest, mean over validation samples: {told}."
    )
    title = f"{found.arm.label}, training seed {found.seed}"
    thin = [f"expert {e} (at most {100 * top:.2g} %)" for e, top in enumerate(share.max(axis=0)) if top <= LEAST]
    note = f"Too thin for a name: {listed(thin)}." if thin else ""
    return made(f"{prefix}gates-{number}", title, text, panel(draw, (SIZE[0], 2.7)), note)


def name_areas(axes: Axes, share: Array) -> None:
    """Write each expert's number where its area is widest."""
    middle = np.cumsum(share, axis=1) - share / 2
    for e in range(share.shape[1]):
        at = int(share[:, e].argmax())
        side = "left" if at == 0 else "right" if at == len(share) - 1 else "center"
        aside = 0.08 * (side == "left") - 0.08 * (side == "right")
        if share[at, e] > LEAST:
            axes.text(at + aside, middle[at, e], f"expert {e}", ha=side, va="center")


def specialisation(
    name: str, title: str, noise_levels: Array, effect: Array, error: Array | None = None, note: str = ""
) -> Panel:
    """What switching each expert off changes: effect and error (level, expert, band), a row of axes per expert.

    The area of a dot is the energy that the expert adds to the prediction in that band, on one scale for all. It is
    filled where the error grows without the expert (error > 0: it helps) and hollow where it shrinks.
    """
    order = noisiest_first(np.asarray(noise_levels))
    noise, effect = np.asarray(noise_levels)[order], np.asarray(effect, np.float64)[order]
    helps = np.ones(effect.shape, np.bool_) if error is None else np.asarray(np.asarray(error)[order] > 0)
    experts = effect.shape[1]
    size = LARGEST * np.sqrt(np.maximum(effect, 0) / max(float(effect.max()), 1e-30))

    def draw(axes: Sequence[Axes]) -> None:
        for e, row in enumerate(axes):
            dots(row, size[:, e], helps[:, e], expert_colour(e))
            row.set_title(f"expert {e}", loc="left", color=MUTED, fontsize=9.5, pad=3)
        over_levels(axes[-1], noise)
        axes[experts // 2].set_ylabel("band")

    figure = multiples(draw, experts, (SIZE[0], 0.75 + experts * (0.45 + 0.21 * effect.shape[2])))
    strongest = [np.unravel_index(int(effect[:, e].argmax()), effect[:, e].shape) for e in range(experts)]
    told = "; ".join(f"expert {e} most in band {b} at noise level {noise[k]:.2g}" for e, (k, b) in enumerate(strongest))
    harm = "" if error is None else f" It helps in {helps.mean():.0%} of all cells."
    return made(name, title, f"Dots: what each expert adds per band and noise level. {told}.{harm}", figure, note)


def dots(axes: Axes, size: Array, helps: NDArray[np.bool_], colour: str) -> None:
    """A dot per level and band, sizes (level, band) in points; filled where the expert helps."""
    for level, band in np.ndindex(*size.shape):
        face = colour if helps[level, band] else "none"
        axes.plot(
            level, band, "o", markersize=max(size[level, band], 0.8), color=colour, markerfacecolor=face,
            markeredgecolor=MUTED, markeredgewidth=0.9, clip_on=False,
        )  # fmt: skip
    axes.set_yticks(range(size.shape[1]))
    axes.set_ylim(-0.6, size.shape[1] - 0.4)
