"""What the experts of FeRA do: how the gates share them out, and what each of them changes where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from reports.figures import MUTED, PAPER, SIZE, band_colour, expert_colour, marker, multiples, over_levels, panel, plain
from reports.panels.keys import band_marks
from reports.panels.levels import noisiest_first
from reports.panels.panel import made
from reports.sections import Panel
from reports.statistics import Array
from reports.words import listed

if TYPE_CHECKING:
    from reports.compare import Gates

DEEPEST = 0.0001
"""Where the scale of what experts add ends at the latest, in per cent of the largest."""
SCALE = "Logarithmic scale, the same for all experts: each line is a tenth of the one above it."
HEIGHTS = "The height of a point is the energy that the expert adds, in per cent of the largest in its figure."
FILLED = (
    "A point is filled where the expert helps and hollow where it harms, after Holm’s correction over all cells of "
    "its figure, as in the table; a small dot is where neither can be said."
)
"""How to read the panels of `specialisation`, and those that know where experts help."""
DOT = "."
"""The marker of a point of which nothing can be said; no band has it."""
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
    name: str, title: str, noise_levels: Array, effect: Array, sign: Array | None = None, note: str = SCALE
) -> Panel:  # fmt: skip
    """What switching each expert off changes: effect and sign (level, expert, band), a row of axes per expert.

    The height of a point is the energy that the expert adds to the prediction in that band, in per cent of the
    largest in the figure, on one logarithmic scale for all. It is filled where the expert helps (sign > 0), hollow
    where it harms (sign < 0) and a small dot where neither can be said (0). Without signs every point is filled.
    """
    order = noisiest_first(np.asarray(noise_levels))
    noise, effect = np.asarray(noise_levels)[order], np.asarray(effect, np.float64)[order]
    shown = np.ones(effect.shape) if sign is None else np.asarray(sign, np.float64)[order]
    part = 100 * effect / max(float(effect.max()), 1e-300)
    experts, least = effect.shape[1], lowest_decade(part)

    def draw(axes: Sequence[Axes]) -> None:
        for e, row in enumerate(axes):
            band_lines(row, np.maximum(part[:, e], least), shown[:, e])
            percent_scale(row, least)
            row.set_title(f"expert {e}" + none_above(part[:, e], least), loc="left", color=MUTED, fontsize=9.5, pad=3)
        over_levels(axes[-1], noise)
        axes[experts // 2].set_ylabel("energy, in % of the largest")

    figure = multiples(draw, experts, (SIZE[0], 0.75 + 1.32 * experts))
    strongest = [np.unravel_index(int(effect[:, e].argmax()), effect[:, e].shape) for e in range(experts)]
    told = "; ".join(
        f"expert {e} most in band {b} at noise level {noise[k]:.2g}, {plain(part[k, e, b])} % of the largest"
        for e, (k, b) in enumerate(strongest)
    )
    cells = f" Experts help in {(shown > 0).sum()} and harm in {(shown < 0).sum()} of {shown.size} cells."
    text = f"A line per band over the noise levels: what each expert adds, on a logarithmic scale. {told}."
    text += "" if sign is None else cells
    note += f" Points at the foot are at {plain(least)} % or below." if bool((part < least).any()) else ""
    return replace(made(name, title, text, figure, note), keys=tuple(band_marks(effect.shape[2])))


def lowest_decade(part: Array) -> float:
    """Where the scale begins, in per cent: the power of ten below all that is shown, or `DEEPEST`."""
    seen = part[part > DEEPEST]
    return max(DEEPEST, float(10 ** np.floor(np.log10(seen.min() * 0.999)))) if len(seen) else DEEPEST


def none_above(part: Array, least: float) -> str:
    """Words for an expert of which nothing is on the scale."""
    return f": below {plain(least)} % everywhere" if float(part.max()) < least else ""


def percent_scale(axes: Axes, least: float) -> None:
    """A logarithmic vertical axis of per cent, a tick for each power of ten, and room for whole marks at its foot."""
    decades = 10.0 ** np.arange(round(np.log10(least)), 3)
    axes.set(yscale="log", ylim=(least * (least / 100) ** 0.06, 190.0))
    axes.set_yticks(decades, [f"{plain(tick)} %" for tick in decades], fontsize=9)
    axes.minorticks_off()


def band_lines(axes: Axes, part: Array, sign: Array) -> None:
    """A line per band through its points (level, band): filled, hollow or a small dot by their signs."""
    levels, bands = part.shape
    for band in range(bands):
        colour = band_colour(band, bands)
        axes.plot(part[:, band], color=colour, linewidth=1.1, alpha=0.7)
        for level in range(levels):
            face = PAPER if sign[level, band] < 0 else colour
            shape, size, edge = (marker(band), 5.0, 1.1) if sign[level, band] else (DOT, 5.0, 0.0)
            axes.plot(
                level, part[level, band], marker=shape, markersize=size, color=colour, markerfacecolor=face,
                markeredgewidth=edge, clip_on=False,
            )  # fmt: skip
