"""A context -> the page: the template, the style sheet, the one inline script, and the hash that allows it."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from reports.sections import ARROWS
from reports.words import capital

TEMPLATES = Path(__file__).parent / "templates"
NARROW, UNBROKEN = "\N{NARROW NO-BREAK SPACE}", "\N{NO-BREAK SPACE}"
COMMAND = re.compile(r"`((?:adapt|spectra) .+?)`(?=[\s.,:;)]|$)", re.S)
"""A command in a sentence; a backtick within a name of it does not end it, as letters follow."""


def assets() -> dict[str, Markup]:
    """`style`, `script` and `script_hash`, as the Content-Security-Policy writes it (CSP Level 3, section 2.3.1)."""
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"style": Markup(style), "script": Markup(script), "script_hash": Markup(f"sha256-{digest}")}


def tight(text: str) -> str:
    """Keep numbers in one line, by spaces that do not break: `4.7 %`, `316 800`, `16 / 32` and `p = 0.01`."""
    text = re.sub(r"(?<=\bp) ([<=]) (?=\d)", f"{UNBROKEN}\\1{UNBROKEN}", text)
    text = re.sub(r"(?<=\d) (?=\d{3}\b)", NARROW, text.replace(" %", f"{NARROW}%"))
    return re.sub(r"(?<=\d) / (?=\d)", f"{NARROW}/{NARROW}", text)


def prose(text: str) -> Markup:
    """Sentences, safe to show whatever names they hold: commands between backticks are drawn as code, nothing else."""
    parts = COMMAND.split(text)
    drawn = [Markup("<code>{}</code>").format(part) if i % 2 else escape(tight(part)) for i, part in enumerate(parts)]
    return Markup("").join(drawn)


def sentence(text: str) -> Markup:
    """A support on its own line starts like a sentence."""
    return prose(capital(text))


@functools.cache
def environment() -> Environment:
    """The templates, with everything escaped that is not the page's own."""
    found = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    found.filters.update(tight=tight, prose=prose, sentence=sentence)
    found.globals.update(assets(), arrows=ARROWS)
    return found


def draw(context: Mapping[str, Any]) -> str:
    """The whole page: title, kind, meta and sections (`reports.sections`) drawn by the template."""
    return environment().get_template("report.html.j2").render(context)
