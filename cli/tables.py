"""Tables for people: how wide, and the ones that are not part of a result."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli.common import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from spectra.doctor import Finding

WIDE = 120
"""Columns of a terminal from which on a model fits on one line."""


def console() -> Console:
    """As wide as the terminal; where there is none, as wide as a table likes."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160)


def print_table(table: Table) -> None:
    """Print a table as wide as the terminal; where there is none, as wide as it likes."""
    console().print(table)


def model_table(narrow: bool) -> Table:
    """One row a model; a narrow one puts all but the name below the hub id, which is never broken."""
    from rich.markup import escape
    from rich.table import Table

    from spectra.models import MODELS

    caption = (
        "Memory: all weights in 16 bits, roughly; models open in float32, which takes twice that, unless --dtype says "
        "otherwise. Any folder or hub id works in place of a name."
    )
    table = Table(title="Models", caption=caption, title_justify="left", caption_justify="left")
    names = ("Name", "Hub id", "Family", "Licence", "Memory", "Note")
    for column in (names[0], f"{names[1]}\n{', '.join(names[2:]).lower()}") if narrow else names:
        table.add_column(column, overflow="fold", no_wrap=not narrow and column in ("Name", "Hub id", "Memory"))
    for name, model in MODELS.items():
        place = "bundled" if model.bundled else "analytic" if model.analytic else model.source
        memory = "" if model.memory is None else f"{model.memory:g} GB"
        facts = (model.family, model.licence, memory, model.note)
        rest = (f"{place}\n{', '.join(filter(None, facts))}",) if narrow else (place, *facts)
        table.add_row(*map(escape, (name, *rest)))
    return table


def finding_table(findings: Sequence[Finding]) -> Table:
    """What `spectra doctor` found, a line each."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="What was looked at", title_justify="left")
    for column in ("What", "State", "Found"):
        table.add_column(column, overflow="fold")
    style = {"ok": "green", "note": "yellow", "fault": "bold red"}
    for finding in findings:
        what, words = escape(printable(finding.what)), escape(printable(finding.words))
        table.add_row(what, f"[{style[finding.state]}]{finding.state}[/]", words)
    return table
