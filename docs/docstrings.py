"""How docstrings become pages: plain text with a little Markdown, in which `<x, B x>` is a product and no tag."""

from __future__ import annotations

import re
from typing import Any

import griffe

_TAG = re.compile(r"<(?=[A-Za-z/!])")
_CODE = re.compile(r"(`[^`\n]*`)")
_SEVERAL = re.compile(r"^( +)(\w+(?:, \w+)+)(: .*(?:\n\1 +.*)*)", re.MULTILINE)
"""Arguments that are described together: `prompts, seeds: what is generated`."""


def plain(text: str) -> str:
    """The text with every `<` that HTML would take for a tag escaped, but in code."""
    return "".join(part if part.startswith("`") else _TAG.sub("&lt;", part) for part in _CODE.split(text))


def apart(text: str) -> str:
    """Arguments that are described together, each with the description."""
    return _SEVERAL.sub(lambda m: "\n".join(f"{m[1]}{name}{m[3]}" for name in m[2].split(", ")), text)


class PlainText(griffe.Extension):
    """Prepares the docstring of every object before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe for each object of a module that is read."""
        if obj.docstring is not None:
            obj.docstring.value = apart(plain(obj.docstring.value))
