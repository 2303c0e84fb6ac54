"""Rows of a figure between two columns of words: labels on the left, numbers on the right, and no mark near either.

A column is as wide as its widest line and starts where the marks cannot come; what does not fit is broken into lines,
as tables do, and only what needs too many of them loses its middle. Widths are those of DejaVu Sans, which is wider
than what browsers take for a page's typeface.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Collection, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.ft2font import FT2Font, LoadFlags
from matplotlib.ticker import MaxNLocator

from reports.figures import INK, RULE, SIZE, panel
from reports.panels.panel import FULL, shortened
from reports.statistics import Array

UNITS = 72.0
"""Points to the inch: rows are placed in points, and so is the vertical axis."""
LETTERS = 10.0
"""Size of the letters of a label."""
ROOM = 150.0
"""Points that the labels take at most; more would leave the marks less than a phone can show."""
GAP = 9.0
"""Points between a column and the marks."""
LINE, AROUND, LEAST = 12.5, 9.0, 21.0
"""Points of a line of words, around the lines of a row, and of the lowest row."""
MOST, LONGEST = 3, 250
"""Lines of one name, and more letters than fit into them, however narrow."""
BESIDE, TICKS = 7.0, 6
"""Points between two numbers below the axis at least, and how many steps it has at most."""
WIDE = 1.25
"""Ems of a letter that takes a full square, as Chinese ones and pictures do; the measuring font has few of them."""
BETWEEN = " against "
"""What stands between the two names of a pair: a place to break the line."""


@functools.cache
def measuring() -> FT2Font:
    """The font whose letters are measured, at one point per em of 1000."""
    found = FT2Font(findfont("DejaVu Sans"))
    found.set_size(1000, 72)
    return found


@functools.cache
def breadth(letter: str) -> float:
    """How wide a letter is, in ems; of one that the font lacks, how wide it may be."""
    if unicodedata.east_asian_width(letter) in "WF" or not measuring().get_char_index(ord(letter)):
        return WIDE
    return float(measuring().load_char(ord(letter), flags=LoadFlags.NO_HINTING).linearHoriAdvance / 65536 / 1000)


def width(words: str, size: float = LETTERS) -> float:
    """How wide words are, in points."""
    return size * sum(map(breadth, words))


def pieces(words: str, room: float) -> list[str]:
    """Words in pieces that a line may end after, none wider than `room` points."""
    found: list[str] = []
    for piece in re.split(r"(?<=[\s_./-])(?=[^\s_./\d-])", words):  # a number stays with what it is a number of
        while piece:
            fits = next((n for n in range(len(piece), 1, -1) if width(piece[:n].rstrip()) <= room), 1)
            found.append(piece[:fits])
            piece = piece[fits:]
    return found


def broken(words: str, room: float) -> list[str]:
    """Words in lines no wider than `room` points."""
    lines = [""]
    for piece in pieces(words, room):
        if width(lines[-1] + piece.rstrip()) > room:
            lines.append("")
        lines[-1] += piece
    return [line.strip() for line in lines]


def wrapped(words: str, room: float, most: int = MOST) -> list[str]:
    """Words in at most so many lines no wider than `room` points; what needs more loses its middle."""
    letters = min(len(words), LONGEST)
    lines = broken(shortened(words, letters), room)
    while len(lines) > most:
        letters -= 1
        lines = broken(shortened(words, letters), room)
    return lines


def in_lines(label: str, room: float = ROOM) -> list[str]:
    """A label in lines; a pair that is too long for one has each of its names on lines of their own."""
    label = " ".join(label.split())
    if width(label) <= room:
        return [label]
    one, between, other = label.partition(BETWEEN)
    return wrapped(one, room) + (wrapped(between.strip() + " " + other, room) if between else [])


def middles(lines: Sequence[Sequence[str]]) -> tuple[Array, float]:
    """Where the rows stand, in points below the top as negative numbers, and how high they are together."""
    heights = np.array([max(LEAST, LINE * len(one) + AROUND) for one in lines])
    return np.asarray(heights / 2 - np.cumsum(heights), np.float64), float(heights.sum())


def label_column(
    axes: Axes, places: Array, lines: Sequence[Sequence[str]], left: float, heads: Collection[int]
) -> None:
    """Labels that start `left` points before the marks; those of `heads` are bold."""
    axes.set_yticks(places, ["\n".join(one) for one in lines])
    axes.tick_params(axis="y", length=0, pad=left, labelsize=LETTERS, labelcolor=INK)
    for row, label in enumerate(axes.get_yticklabels()):
        label.set(horizontalalignment="left", fontweight="bold" if row in heads else "normal")


def number_column(axes: Axes, places: Array, numbers: Sequence[str], right: float) -> None:
    """Numbers that end `right` points behind the marks."""
    for at, number in zip(places, numbers, strict=True):
        axes.annotate(
            number, (1.0, at), xycoords=axes.get_yaxis_transform(), xytext=(right, 0), textcoords="offset points",
            ha="right", va="center", fontsize=FULL, annotation_clip=False,
        )  # fmt: skip


def number_ticks(axes: Axes, room: float) -> None:
    """As many round numbers below an axis of `room` points as stand apart from each other."""
    low, high = axes.get_xlim()
    for steps in range(TICKS, 0, -1):
        axes.xaxis.set_major_locator(MaxNLocator(steps, steps=(1, 2, 5, 10), min_n_ticks=1))
        ticks = axes.xaxis.get_majorticklocs()
        widest = max(width(label, FULL) for label in axes.xaxis.get_major_formatter().format_ticks(list(ticks)))
        if len(ticks) < 2 or room * (ticks[1] - ticks[0]) / (high - low) > widest + BESIDE:
            return


def columns(
    labels: Sequence[str], numbers: Sequence[str], axis: str, draw: Callable[[Axes, Array], None],
    heads: Collection[int] = (),
) -> Figure:  # fmt: skip
    """A figure with a row for each label and number; `draw` puts marks at the places of the rows, and sets the scale.

    The words of the `axis` are broken to stand below the marks; the rows of `heads` are titles of those that follow.
    """
    lines = [in_lines(label) for label in labels]
    left, right = (GAP + max(column, default=0.0) for column in (
        [width(line) * (1.1 if row in heads else 1.0) for row, one in enumerate(lines) for line in one],
        [width(number, FULL) for number in numbers if number],
    ))  # fmt: skip
    room = SIZE[0] * UNITS - left - right
    below = broken(axis, (room + 2 * min(left, right)) * LETTERS / FULL)
    places, height = middles(lines)

    def fill(axes: Axes) -> None:
        draw(axes, places)
        label_column(axes, places, lines, left, heads)
        number_column(axes, places, numbers, right)
        axes.set_ylim(-height, 0.0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", color=RULE)
        number_ticks(axes, room)
        axes.set_xlabel("\n".join(below))

    return panel(fill, (SIZE[0], (height + 24.0 + 14.0 * len(below)) / UNITS))
