"""A panel: a title, a small figure as SVG, and what it shows in words for who cannot see it."""

from __future__ import annotations

from matplotlib.figure import Figure

from reports.figures import to_svg
from reports.sections import Panel

LETTERS = 52
"""Letters of full size that fit into the width of a panel."""
FULL, SMALLEST = 10.5, 8.5
"""Sizes of letters; what does not fit at the smallest is shortened, the screen reader's text never."""


def made(name: str, title: str, text: str, figure: Figure, note: str = "") -> Panel:
    """Wrap a figure up as a panel; `name` is unique on the page, `text` is what a screen reader says."""
    return Panel(title, to_svg(figure, name, title, text), note)


def shortened(label: str, letters: int) -> str:
    """The beginning and the end of a label that is too long."""
    if len(label) <= letters:
        return label
    end = (letters - 1) // 3
    return f"{label[: letters - 1 - end].rstrip()}…{label[len(label) - end :].lstrip()}"


def fitting(label: str, letters: int = LETTERS) -> tuple[str, float]:
    """A label and the size at which it fits into a width of so many letters."""
    short = shortened(label, int(letters * FULL / SMALLEST))
    return short, max(SMALLEST, FULL * min(1.0, letters / max(len(short), 1)))
