"""Which layers a list of target names means, and a helpful word when one means none.

A pattern is the dotted name of a layer, or its end after a dot, as in peft; `*` stands for any part of a name between
two dots, so `transformer_blocks.*.attn.to_q` is one layer of every block.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTunerLayer, check_target_module_exists
from torch import nn

from adapt.fera.config import FeraConfig
from adapt.fera.experts import check_experts
from adapt.fera.layer import FeraLayer, layer_class, refusal
from spectra.errors import UserError

_ALL_LINEAR = "all-linear"


def means(pattern: str, name: str) -> bool:
    """True where the pattern means the module of this name."""
    if "*" not in pattern:
        return name == pattern or name.endswith(f".{pattern}")
    return re.fullmatch(r"(.*\.)?" + re.escape(pattern).replace(r"\*", r"[^.]*"), name) is not None


def matched(model: nn.Module, pattern: str) -> list[str]:
    """Names of the layers that the pattern means, among those that can be adapted."""
    return [name for name, module in base_modules(model) if means(pattern, name) and _adaptable(module)]


def expanded(model: nn.Module, patterns: Iterable[str]) -> list[str]:
    """The patterns with those that hold a `*` written out as full names, since peft knows no `*`."""
    names = [name for name, _ in base_modules(model)]
    written = ([n for n in names if means(pattern, n)] if "*" in pattern else [pattern] for pattern in patterns)
    return list(dict.fromkeys(name for found in written for name in found))


def check_patterns(model: nn.Module, patterns: Sequence[str] | str, setting: str) -> None:
    """Raises UserError for a pattern that matches no module; a string is one regular expression on whole names."""
    modules = dict(base_modules(model))
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        try:
            regular = re.compile(pattern) if isinstance(patterns, str) else None
        except re.error as error:
            raise UserError(f"{setting} is not a regular expression: {pattern!r} ({error})") from error
        if not any(regular.fullmatch(name) if regular else means(pattern, name) for name in modules):
            raise UserError(
                f"{setting}: {pattern!r} matches no module of {type(model).__name__}; "
                f"the nearest names are {_some(_endings(modules), pattern)}"
            )


def check_layers(model: nn.Module, names: Iterable[str], setting: str) -> None:
    """Raises UserError for a module that is neither Linear nor an ordinary Conv2d."""
    modules = dict(base_modules(model))
    for name in names:
        if _adaptable(modules[name]) is None:
            raise UserError(
                f"{setting} match {name}, a {type(modules[name]).__name__}; FeRA adapts nn.Linear and nn.Conv2d with "
                f"groups=1 and zero padding: name such layers, for example {_some(_endings(modules), name)}"
            )


def matches(config: PeftConfig, name: str) -> Any:
    """PEFT's own rule for what is left after `expanded`: names, endings, or one regular expression."""
    return name != "fera" and check_target_module_exists(config, name)


def settle_targets(config: FeraConfig, model: nn.Module) -> None:
    """Refuse targets that PEFT would let pass or trip over, before the model is changed; write out what holds a `*`.

    Raises UserError where another method is attached, a pattern (also of those to leave out) matches nothing, or it
    matches a module that FeRA cannot wrap: one that is neither Linear nor an ordinary Conv2d, or is quantised in a way
    that its kind of experts cannot use.
    """
    check_experts(config)
    modules = dict(base_modules(model))
    if not config.target_modules:
        raise UserError(f"FeraConfig needs target_modules, for example {_some(_endings(modules))}")
    for setting in ("target_modules", "exclude_modules"):
        patterns = getattr(config, setting)
        if patterns and patterns != _ALL_LINEAR:
            check_patterns(model, patterns, setting)
        if patterns and not isinstance(patterns, str):
            setattr(config, setting, expanded(model, patterns))
    reached = [name for name, module in modules.items() if _reached(config, name, module)]
    check_layers(model, reached, "target_modules")
    for name in reached:
        reason = refusal(name, getattr(modules[name], "base_layer", modules[name]), config.expert)
        if reason is not None:
            raise UserError(reason)


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


def _reached(config: FeraConfig, name: str, module: nn.Module) -> bool:
    if config.target_modules == _ALL_LINEAR:
        return isinstance(getattr(module, "base_layer", module), nn.Linear)
    return bool(matches(config, name))


def _adaptable(module: nn.Module) -> Any:
    return layer_class(getattr(module, "base_layer", module))


def _endings(modules: dict[str, nn.Module]) -> list[str]:
    """Every ending of the name of every adaptable module, the short ones first."""
    names = [name.split(".") for name, module in modules.items() if _adaptable(module) is not None]
    endings = {".".join(parts[start:]) for parts in names for start in range(len(parts))}
    return sorted((e for e in endings if not e.isdigit()), key=lambda ending: (ending.count("."), ending))


def linear_endings(model: nn.Module, count: int = 12) -> list[str]:
    """The last parts of the names of the layers that can be adapted, the most frequent first."""
    last = [re.sub(r"^.*?([^.]*[^.\d][^.]*(\.\d+)*)$", r"\1", name) for name, m in base_modules(model) if _adaptable(m)]
    return sorted(set(last), key=lambda ending: (-last.count(ending), ending))[:count]


def _some(endings: list[str], wanted: str = "to_q", count: int = 3) -> str:
    near = difflib.get_close_matches(wanted, endings, n=count, cutoff=0.5) or endings[:count]
    return ", ".join(repr(name) for name in near)
