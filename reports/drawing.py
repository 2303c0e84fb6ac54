"""A context -> the page: the template, the style sheet, the one inline script, and the hash that allows it."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reports.sections import ARROWS
from reports.words import capital

TEMPLATES = Path(__file__).parent / "templates"


def assets() -> dict[str, Markup]:
    """`style`, `script` and `script_hash`, as the Content-Security-Policy writes it (CSP Level 3, section 2.3.1)."""
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"style": Markup(style), "script": Markup(script), "script_hash": Markup(f"sha256-{digest}")}


def tight(text: str) -> str:
    """Keep a per cent sign with its number, by a narrow space that does not break."""
    return text.replace(" %", "\N{NARROW NO-BREAK SPACE}%")


def sentence(text: str) -> str:
    """A support on its own line starts like a sentence."""
    return tight(capital(text))


@functools.cache
def environment() -> Environment:
    """The templates, with everything escaped that is not the page's own."""
    found = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    found.filters.update(tight=tight, sentence=sentence)
    found.globals.update(assets(), arrows=ARROWS)
    return found


def draw(context: Mapping[str, Any]) -> str:
    """The whole page: title, kind, meta and sections (`reports.sections`) drawn by the template."""
    return environment().get_template("report.html.j2").render(context)
