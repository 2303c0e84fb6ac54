"""Which modules a list of target names means, and a helpful word when one means none."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTunerLayer, check_target_module_exists
from torch import nn

from adapt.fera.config import FeraConfig
from adapt.fera.layer import FeraLayer, layer_class
from spectra.errors import UserError

_ALL_LINEAR = "all-linear"


def matches(config: PeftConfig, name: str) -> Any:
    """PEFT's own rule: a name or the end of one after a dot, or a regular expression on the whole name."""
    return name != "fera" and check_target_module_exists(config, name)


def check_targets(config: FeraConfig, model: nn.Module) -> None:
    """Refuse targets that PEFT would let pass or trip over, before anything is changed.

    Raises UserError where another method is attached, a pattern matches nothing, or it matches a module that is neither
    Linear nor an ordinary Conv2d.
    """
    modules = dict(base_modules(model))
    if not config.target_modules:
        raise UserError(f"FeraConfig needs target_modules, for example {_some(_endings(modules))}")
    if config.target_modules == _ALL_LINEAR:
        return
    patterns = [config.target_modules] if isinstance(config.target_modules, str) else config.target_modules
    for pattern in patterns:
        _check_pattern(pattern, isinstance(config.target_modules, str), modules, model)
    for name, module in modules.items():
        if matches(config, name) and _adaptable(module) is None:
            raise UserError(
                f"target_modules match {name}, a {type(module).__name__}; FeRA adapts nn.Linear and nn.Conv2d with "
                f"groups=1 and zero padding: name such layers, for example {_some(_endings(modules), name)}"
            )


def base_modules(model: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    """The modules that are not parts of a FeRA layer; UserError where another PEFT method is attached."""
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if not name or name.startswith(inside or ("\0",)):
            continue
        if isinstance(module, BaseTunerLayer):
            if not isinstance(module, FeraLayer):
                raise UserError(f"{name} has an adapter of another method: remove it with adapt.unload(model) first")
            inside = (*inside, name + ".")
        yield name, module


def _check_pattern(pattern: str, regular: bool, modules: dict[str, nn.Module], model: nn.Module) -> None:
    if regular:
        try:
            found = any(re.fullmatch(pattern, name) for name in modules)
        except re.error as error:
            raise UserError(f"target_modules is not a regular expression: {pattern!r} ({error})") from error
    else:
        found = any(name == pattern or name.endswith(f".{pattern}") for name in modules)
    if not found:
        raise UserError(
            f"target_modules: {pattern!r} matches no module of {type(model).__name__}; "
            f"the nearest names are {_some(_endings(modules), pattern)}"
        )


def _adaptable(module: nn.Module) -> Any:
    return layer_class(getattr(module, "base_layer", module))


def _endings(modules: dict[str, nn.Module]) -> list[str]:
    """Every ending of the name of every adaptable module, the short ones first."""
    names = [name.split(".") for name, module in modules.items() if _adaptable(module) is not None]
    endings = {".".join(parts[start:]) for parts in names for start in range(len(parts))}
    return sorted((e for e in endings if not e.isdigit()), key=lambda ending: (ending.count("."), ending))


def _some(endings: list[str], wanted: str = "to_q", count: int = 3) -> str:
    near = difflib.get_close_matches(wanted, endings, n=count, cutoff=0.5) or endings[:count]
    return ", ".join(repr(name) for name in near)
