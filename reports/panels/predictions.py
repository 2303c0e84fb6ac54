"""Band energies of the predicted picture over the steps of generating, for the step scrubber."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.figures import MUTED, SIZE, arm_colour, dash, marker, multiples
from reports.panels.errors import log_ticks
from reports.panels.levels import edge
from reports.panels.panel import made
from reports.sections import Panel
from reports.statistics import Array

POINTS = 72
"""Units of an SVG per inch."""


def prediction_energies(
    name: str, sources: Sequence[tuple[str, int, Array]], steps: Sequence[int]
) -> tuple[Panel, list[float]]:
    """Energies (step, band) of x0 of several models, a row of axes per band; and where in the figure each step is.

    The figure holds one upright line of class `cursor` at the middle step, which the page's script moves.
    """
    bands = sources[0][2].shape[1]
    places = np.arange(len(steps))

    def draw(axes: Sequence[Axes]) -> None:
        for row, band in zip(axes, reversed(range(bands)), strict=True):
            for _, style, energies in sources:
                row.plot(
                    places, energies[:, band], color=arm_colour(style), linestyle=dash(style), marker=marker(style),
                    markersize=3.5, linewidth=1.5,
                )  # fmt: skip
            row.set_title(f"band {band}{edge(band, bands)}", loc="left", color=MUTED, fontsize=9.5, pad=2)
            log_ticks(row, 3)
        every = max(1, -(-len(steps) // 10))
        axes[-1].set_xticks(places[::every], [str(step) for step in steps[::every]])
        axes[-1].set_xlabel("step, from noise (left) to picture (right)")

    figure = multiples(draw, bands, (SIZE[0], 0.75 + 0.8 * bands), share="col")
    told = "; ".join(
        f"{label} ends at " + ", ".join(f"{energy:.3g}" for energy in energies[-1]) for label, _, energies in sources
    )
    text = f"A row per band, the lowest below; a line per model; logarithmic scales. {told} from the lowest band up."
    panel = made(name, "Band energies of x0, sums over channels", text, figure)
    at, line = cursor(figure, len(steps))
    return Panel(panel.title, Markup(panel.svg[: panel.svg.rindex("</svg>")]) + line + Markup("</svg>")), at


def cursor(figure: Figure, steps: int) -> tuple[list[float], Markup]:
    """Where each step is, in units of the SVG, and an upright line over all axes at the middle one."""
    unit = POINTS / figure.dpi
    at = [round(float(figure.axes[0].transData.transform((i, 1.0))[0]) * unit, 2) for i in range(steps)]
    boxes = [axes.get_window_extent() for axes in figure.axes]
    height = figure.bbox.height
    top, bottom = (height - max(box.y1 for box in boxes)) * unit, (height - min(box.y0 for box in boxes)) * unit
    x = at[steps // 2]
    line = f'<line class="cursor" x1="{x}" x2="{x}" y1="{top:.1f}" y2="{bottom:.1f}" style="stroke:var(--ink)"/>'
    return at, Markup(line)
