"""Names and defaults of the arguments of a pipeline's call."""

from __future__ import annotations

import functools
import inspect
from typing import Any

UNNAMED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@functools.lru_cache(maxsize=64)
def names_of(kind: Any) -> tuple[str, ...]:
    """Names of the arguments of a pipeline's call, in its order."""
    return tuple(one.name for one in _parameters(kind))


def _parameters(kind: Any) -> list[inspect.Parameter]:
    """The named arguments of a pipeline's call: its own, then those that it passes on to its bases unnamed."""
    found: dict[str, inspect.Parameter] = {}
    for base in kind.__mro__:
        if "__call__" in vars(base):
            parameters = list(inspect.signature(vars(base)["__call__"]).parameters.values())[1:]
            named = {one.name: one for one in parameters if one.kind not in UNNAMED}
            found = found | {name: one for name, one in named.items() if name not in found}
            if len(named) == len(parameters):
                break
    return list(found.values())


@functools.lru_cache(maxsize=64)
def _default_items(kind: Any) -> tuple[tuple[str, Any], ...]:
    return tuple((one.name, one.default) for one in _parameters(kind) if one.default is not one.empty)


def defaults_of(kind: Any) -> dict[str, Any]:
    """Default values of the arguments of a pipeline's call, by name."""
    return dict(_default_items(kind))
