"""The entries of the figures' keys."""

from __future__ import annotations

from collections.abc import Sequence

from reports.arms import Arm
from reports.figures import arm_colour, band_colour, dash, marker, variable
from reports.sections import Key

DASH_UNIT = 1.8
"""Matplotlib measures dashes in line widths."""
SHAPES = {
    "s": "M10.5 2.5h7v7h-7z", "o": "M10.4 6a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0-7.2 0z",
    "D": "M14 1.6l4.4 4.4-4.4 4.4L9.6 6z",
    "^": "M14 1.8l4.2 7.6H9.8z", "v": "M14 10.2l4.2-7.6H9.8z", ".": "M12 6a2 2 0 1 0 4 0a2 2 0 1 0-4 0z",
    "P": "M12.5 2h3v2.5H18v3h-2.5V10h-3V7.5H10v-3h2.5z",
    "X": "M11 1.8l3 3 3-3 1.8 1.8-3 3 2.8 2.8L16.8 11 14 8.2 11.2 11l-1.8-1.8 2.8-2.8-3-3z",
    "*": "M14 1l1.4 3.4 3.6.2-2.8 2.3.9 3.6-3.1-2-3.1 2 .9-3.6L9 4.6l3.6-.2z",
}  # fmt: skip
"""Outlines of matplotlib's markers around (14, 6), for the page's own small keys."""


def style_key(label: str, style: int) -> Key:
    """The key of one arm: its line and its marker; a negative style is the base model."""
    dashes = dash(style)
    told = "" if dashes == "solid" else " ".join(f"{DASH_UNIT * length:g}" for length in dashes[1])
    return Key(label, variable(arm_colour(style)), told, marker=SHAPES[marker(style)])


def arm_keys(arms: Sequence[Arm]) -> list[Key]:
    """The key of all figures that show arms."""
    return [style_key(arm.label, arm.style) for arm in arms]


def band_names(bands: int) -> list[str]:
    """What bands are called, lowest first."""
    where = {0: ", lowest", bands - 1: ", highest"}
    return [f"band {k}{where.get(k, '')}" for k in range(bands)]


def band_keys(bands: int) -> list[Key]:
    """The key of all figures that show bands, lowest first."""
    labels = band_names(bands)
    return [Key(label, variable(band_colour(k, bands)), filled=True) for k, label in enumerate(labels)]


def band_marks(bands: int) -> list[Key]:
    """The key of a figure in which bands have markers too, lowest first."""
    labels = band_names(bands)
    return [Key(label, variable(band_colour(k, bands)), marker=SHAPES[marker(k)]) for k, label in enumerate(labels)]
