"""What a page consists of: sections of sentences, panels, tables and notes; the template decides how they look.

A section names its `kind`, and the kind says what is in `extra`:

    plain       nothing
    verdict     top: list[Said] in large type; rest: list[Said] in a fold; warnings: list[str]
    pictures    rows: list[pictures.Row], each a prompt, a seed and pictures from the same noise
    scrubber    scrubber: pictures.Scrubber, x0 and its band energies step by step
    neighbours  neighbours: list[pictures.Neighbour], generated pictures beside the nearest training picture
    task        sections: list[Section] of one task, drawn one heading level lower
    provenance  facts: list[tuple[str, str]] (term, text); configs: list[tuple[str, str]]
    reproduce   steps: list[tuple[str, str]] (what it does, the command line to copy)
    method      terms: list[tuple[str, str]] (word, what it means)

and in all of them `folded: list[Table]`, the numbers behind the panels, and `footnotes: list[str]`, small print.
All text is plain and untrusted: the template escapes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from markupsafe import Markup

Kind = Literal[
    "plain", "verdict", "pictures", "scrubber", "neighbours", "task", "provenance", "reproduce", "method"
]  # fmt: skip


ARROWS = {"lower": "↓", "higher": "↑"}
"""How a row of a table shows which side is better; sides that have no arrow are neither."""


@dataclass(frozen=True)
class Said:
    """A sentence of the report: what is claimed, and what the claim stands on."""

    claim: str
    support: str = ""
    kind: str = ""
    short: str = ""
    """What is enough of the support once another sentence of this kind has given it in full."""

    @property
    def text(self) -> str:
        """The whole sentence."""
        return f"{self.claim} ({self.support})." if self.support else f"{self.claim}."


@dataclass(frozen=True)
class Key:
    """One entry of a figure's key: a line (with its dashes and marker) or a filled square, and what it stands for."""

    label: str
    colour: str
    dashes: str = ""
    filled: bool = False
    marker: str = ""


@dataclass(frozen=True)
class Panel:
    """A figure with its heading and, where needed, a note below and a key of its own."""

    title: str
    svg: Markup
    note: str = ""
    keys: tuple[Key, ...] = ()


@dataclass(frozen=True)
class Table:
    """Column heads and rows; the first cell of a row is its head."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    better: tuple[str, ...] = ()
    """Of each row, which side is better: "lower", "higher" or neither; drawn as an arrow and said to screen readers."""
    note: str = ""
    """Small print below the table."""


@dataclass(frozen=True)
class Mark:
    """A point of a figure with its interval; `low` and `high` are nan where there is none.

    `holds` is True where the difference stays after correction for all the cells of its family: drawn filled.
    """

    value: float
    low: float = np.nan
    high: float = np.nan
    holds: bool = False


@dataclass(frozen=True)
class Room:
    """How much a grid of pictures may take: rows, and bytes of the page."""

    rows: int
    size: int


@dataclass(frozen=True)
class Section:
    """One section of the page; `id` is its anchor, unique on the page and safe in URLs."""

    id: str
    title: str
    said: tuple[Said, ...] = ()
    notes: tuple[str, ...] = ()
    """Paragraphs after the sentences: what is shown and how to read it."""
    keys: tuple[Key, ...] = ()
    panels: tuple[Panel, ...] = ()
    tables: tuple[Table, ...] = ()
    kind: Kind = "plain"
    nav: str = ""
    """The title in the list of sections; `title` where it is empty."""
    extra: Mapping[str, Any] = field(default_factory=dict)
