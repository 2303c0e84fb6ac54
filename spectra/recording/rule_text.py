"""Guidance rules as cubes keep them, such as `cfg-zero-star(zero_init=0)`, read back."""

from __future__ import annotations

import ast
from typing import Any

from spectra.bands import FilterBank
from spectra.errors import UserError


def parsed(text: str) -> tuple[str, dict[str, Any]]:
    """Name and options of a rule. Raises UserError where the text is none of `NAME` and `NAME(OPTION=VALUE, ...)`."""
    name, bracket, rest = text.strip().partition("(")
    if not bracket:
        return name, {}
    try:
        call = ast.parse(f"rule({rest}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError("options have names")
        return name, {str(one.arg): _value(one.value) for one in call.keywords}
    except (SyntaxError, ValueError, TypeError):
        raise UserError(
            f"the guidance rule {text!r} is not understood; write NAME(OPTION=NUMBER), such as "
            "cfg-zero-star(zero_init=0)"
        ) from None


def _value(node: ast.expr) -> Any:
    """A literal, or a filter bank."""
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "FilterBank":
        (scales,) = [*node.args, *(one.value for one in node.keywords)]
        return FilterBank(ast.literal_eval(scales))
    return ast.literal_eval(node)
