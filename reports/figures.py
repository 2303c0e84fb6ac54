"""Matplotlib figures as inline SVG that takes its colours from the page, so one figure is right in light and dark.

Figures are drawn with placeholder colours; on the way out each placeholder becomes a CSS variable of the
page (`var(--ink)`, `var(--arm-1)`, ...). Text stays text in the page's own typeface, ids are made unique
per figure, and the salt of matplotlib's ids is fixed, so equal input gives equal bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

INK, MUTED, RULE, PAPER = "#000101", "#000102", "#000103", "#000104"
VARIABLES = {INK: "ink", MUTED: "muted", RULE: "rule", PAPER: "paper"}
SIZE = (4.9, 3.3)
"""Inches; at 72 units to the inch a panel is 353 units wide, about what a phone shows at full size."""

STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "spectra-adapt", "text.parse_math": False, "axes.unicode_minus": True,
    "font.size": 10.5, "font.family": "DejaVu Sans", "axes.titlesize": 10.5, "axes.labelsize": 10.5,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8, "lines.linewidth": 1.8,
    "axes.edgecolor": MUTED, "axes.labelcolor": MUTED, "text.color": INK, "xtick.color": MUTED, "ytick.color": MUTED,
    "xtick.major.size": 3, "ytick.major.size": 3, "axes.grid": True, "axes.grid.axis": "y", "grid.color": RULE,
    "grid.linewidth": 0.8, "axes.axisbelow": True, "axes.facecolor": "none", "figure.facecolor": "none",
    "lines.solid_capstyle": "round", "path.simplify": False,
}  # fmt: skip
DASHES: tuple[Any, ...] = ((0, (4, 2)), "solid", "solid", (0, (1, 1.6)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1)))
MARKERS = ("s", "o", "D", "^", "v", "P", "X", "*")


def arm_colour(index: int) -> str:
    """Placeholder for the colour of the arm at `index`."""
    return f"#0002{index % 8:02x}"


def band_colour(index: int, bands: int) -> str:
    """Placeholder for the colour of a band: the page has eight steps from low (cool) to high (warm)."""
    return f"#0003{round(7 * index / max(bands - 1, 1)):02x}"


def expert_colour(index: int) -> str:
    """Placeholder for the colour of an expert."""
    return f"#0004{index % 6:02x}"


def dash(index: int) -> Any:
    """The line style of the arm at `index`: colour is never the only difference."""
    return DASHES[index % len(DASHES)]


def variable(colour: str) -> str:
    """The CSS variable of a placeholder."""
    if colour in VARIABLES:
        return f"var(--{VARIABLES[colour]})"
    kind = {"02": "arm", "03": "band", "04": "expert"}[colour[3:5]]
    return f"var(--{kind}-{int(colour[5:], 16)})"


def coloured(svg: str) -> str:
    """Replace every placeholder by its variable."""
    return re.sub(r"#000[1-4][0-9a-f]{2}|#00010[1-4]", lambda m: variable(m.group()), svg)


def own_ids(svg: str, name: str) -> str:
    """Prefix ids and references to them, so that several figures can share a page."""
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', svg)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", svg)


def slim(svg: str) -> str:
    """Only the `<svg>` element, without metadata, group ids, fixed size or font names."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.S)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: m.group() if m.group(1) in used else "", svg)
    svg = re.sub(r"font: (?:\w+ )*?([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r"font-family: [^;\"]*; ?| transform=\"rotate\(-?0 [^)]*\)\"", "", svg)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r"(\d+\.\d\d)\d+", r"\1", svg)
    return re.sub(r"\n\s*", "\n", svg)


def to_svg(figure: Figure, name: str, title: str, text: str) -> Markup:
    """Inline SVG of a figure; `title` and `text` are what a screen reader says."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    svg = coloured(own_ids(slim(buffer.getvalue()), name))
    label = f'<svg role="img" aria-labelledby="{name}-title {name}-text"'
    head = f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-text">{escape(text)}</desc>'
    opened = svg.replace("<svg", label, 1)
    end = opened.index(">") + 1
    return Markup(opened[:end] + head + opened[end:])


def panel(draw: Callable[[Axes], None], size: tuple[float, float] = SIZE) -> Figure:
    """One set of axes with the house style, filled by `draw`."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        for label in axes.get_xticklabels() + axes.get_yticklabels():
            label.set_parse_math(False)
        figure.draw_without_rendering()
    return figure


def plain(value: float, _: Any = None) -> str:
    """A tick label without mathematics mark-up."""
    return f"{value:.3g}".replace("-", "−")


def as_percent(ratio: float, _: Any = None) -> str:
    """A tick label of a ratio as a signed change."""
    if abs(ratio - 1) < 1e-9:
        return "0 %"
    return f"{(ratio - 1) * 100:+.3g} %".replace("-", "−")


def over_levels(axes: Axes, noise_level: Sequence[float] | NDArray[np.float64]) -> None:
    """A horizontal axis of noise levels at equal distances, the noisiest on the left."""
    order = np.arange(len(noise_level))
    every = max(1, int(np.ceil(len(order) / 8)))
    axes.set_xticks(order[::every], [f"{noise_level[i]:.2g}" for i in order[::every]])
    axes.set_xlim(-0.4, len(order) - 0.6)
    axes.set_xlabel("noise level, from noise (left) to picture (right)")
