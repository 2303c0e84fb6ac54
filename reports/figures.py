"""Matplotlib figures as inline SVG that takes its colours from the page, so one figure is right in light and dark.

Figures are drawn with placeholder colours; on the way out each placeholder becomes a CSS variable of the
page (`var(--ink)`, `var(--arm-1)`, ...). Text stays text in the page's own typeface, ids are made unique
per figure, and the salt of matplotlib's ids is fixed, so equal input gives equal bytes.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence, Set
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
DASHES: tuple[Any, ...] = (
    (0, (4, 2)), (0, (7, 1.5, 1.5, 1.5)), "solid", (0, (6, 4)), (0, (2, 1)), (0, (9, 2)),
    (0, (4, 1.5, 1, 1.5, 1, 1.5)), (0, (10, 2, 3, 2)),
)  # fmt: skip
"""Each has a stroke longer than a dot: dots alone are the base model's."""
MARKERS = ("s", "o", "D", "^", "v", "P", "X", "*")
BASE_DASH: Any = (0, (1, 2))
"""The base model is a thin grey dotted line with small dots everywhere."""


def arm_colour(index: int) -> str:
    """Placeholder for the colour of the arm at `index`; a negative one is the base model."""
    return MUTED if index < 0 else f"#0002{index % 8:02x}"


def marker(index: int) -> str:
    """The marker of the arm at `index`: colour is never the only difference."""
    return "." if index < 0 else MARKERS[index % len(MARKERS)]


def band_colour(index: int, bands: int) -> str:
    """Placeholder for the colour of a band: the page has eight steps from low (cool) to high (warm)."""
    return f"#0003{round(7 * index / max(bands - 1, 1)):02x}"


def expert_colour(index: int) -> str:
    """Placeholder for the colour of an expert."""
    return f"#0004{index % 6:02x}"


def dash(index: int) -> Any:
    """The line style of the arm at `index`: eight different ones, as there are eight colours."""
    return BASE_DASH if index < 0 else DASHES[index % len(DASHES)]


def variable(colour: str) -> str:
    """The CSS variable of a placeholder."""
    if colour in VARIABLES:
        return f"var(--{VARIABLES[colour]})"
    kind = {"02": "arm", "03": "band", "04": "expert"}[colour[3:5]]
    return f"var(--{kind}-{int(colour[5:], 16)})"


def in_tags(svg: str, change: Callable[[str], str]) -> str:
    """Change the mark-up alone: text between tags is other people's words and our own numbers."""
    return re.sub(r"<[^>]*>", lambda tag: change(tag.group()), svg)


def coloured(tag: str) -> str:
    """Replace every placeholder by its variable."""
    return re.sub(r"#000[1-4][0-9a-f]{2}", lambda found: variable(found.group()), tag)


def own_ids(tag: str, name: str) -> str:
    """Prefix ids and references to them, so that several figures can share a page."""
    tag = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', tag)
    tag = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', tag)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", tag)


def slim_tag(tag: str, used: Set[str]) -> str:
    """A tag without ids that nothing refers to, fixed size or font names, and with coordinates to a hundredth."""
    tag = re.sub(r' id="([^"]+)"', lambda m: m.group() if m.group(1) in used else "", tag)
    tag = re.sub(r"font: (?:\w+ )*?((?:\d+ )?[\d.]+px) [^;\"]*", weight_and_size, tag)
    tag = re.sub(r"font-family: [^;\"]*; ?| transform=\"rotate\(-?0 [^)]*\)\"", "", tag)
    if tag.startswith("<svg"):
        tag = re.sub(r' (?:width|height)="[\d.]+pt"', "", tag)
    return re.sub(r"(\d+\.\d\d)\d+", r"\1", tag)


def weight_and_size(found: re.Match[str]) -> str:
    """A `font` of style, weight, size and family as size and, where it is bold, weight."""
    *weight, size = found.group(1).split()
    bold = "; font-weight: 700" if "bold" in found.group() or weight[-1:] == ["700"] else ""
    return f"font-size: {size}{bold}"


def slim(svg: str) -> str:
    """Only the `<svg>` element, without metadata and comments."""
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.S)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    return re.sub(r"\n\s*(?=<)", "\n", in_tags(svg, lambda tag: slim_tag(tag, used)))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Letters that matplotlib has no font for stay text in the SVG, and the reader's browser has one: no warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def to_svg(figure: Figure, name: str, title: str, text: str) -> Markup:
    """Inline SVG of a figure; `title` and `text` are what a screen reader says."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE), quiet():
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    svg = in_tags(slim(buffer.getvalue()), lambda tag: coloured(own_ids(tag, name)))
    label = f'<svg role="img" aria-labelledby="{name}-title {name}-text"'
    head = f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-text">{escape(text)}</desc>'
    opened = svg.replace("<svg", label, 1)
    end = opened.index(">") + 1
    return Markup(opened[:end] + head + opened[end:])


def panel(draw: Callable[[Axes], None], size: tuple[float, float] = SIZE) -> Figure:
    """One set of axes with the house style, filled by `draw`."""
    return multiples(lambda axes: draw(axes[0]), 1, size)


def multiples(
    draw: Callable[[Sequence[Axes]], None], rows: int, size: tuple[float, float] = SIZE, share: Any = True
) -> Figure:
    """Axes one below another with the house style; they `share` their scales, or the horizontal one alone ("col")."""
    with matplotlib.rc_context(STYLE), quiet():
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(rows, 1, sharex=bool(share), sharey=share is True, squeeze=False)[:, 0].tolist()
        draw(axes)
        for label in (one for a in axes for one in a.get_xticklabels() + a.get_yticklabels()):
            label.set_parse_math(False)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # the layout is made: drawing the file need not make it again, twice
    return figure


def plain(value: float, _: Any = None) -> str:
    """A tick label without mathematics mark-up; thousands are written out."""
    short = f"{value:.3g}"
    whole = "e+" in short and abs(value) < 1e6
    return (f"{float(short):.0f}" if whole else short).replace("-", "−")


def as_number(value: float) -> str:
    """A number in a sentence or a cell: three digits, a real minus sign, no padding."""
    return plain(float(value)) if np.isfinite(value) else "–"


def as_percent(ratio: float, _: Any = None) -> str:
    """A tick label of a ratio as a signed change."""
    if abs(ratio - 1) < 1e-9:
        return "0 %"
    return f"{(ratio - 1) * 100:+.3g} %".replace("-", "−")


def over_levels(axes: Axes, noise_level: Sequence[float] | NDArray[np.float64], most: int = 8) -> None:
    """A horizontal axis of noise levels at equal distances, the noisiest on the left."""
    order = np.arange(len(noise_level))
    every = max(1, int(np.ceil(len(order) / most)))
    axes.set_xticks(order[::every], [f"{noise_level[i]:.2g}" for i in order[::every]])
    axes.set_xlim(-0.4, len(order) - 0.6)
    axes.set_xlabel("noise level, from noise (left) to picture (right)")
