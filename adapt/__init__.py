"""Fine-tune diffusion models with adapters that know the model's frequency bands.

Names are imported when they are first used: `import adapt` costs nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapt.config import TrainConfig
    from adapt.evaluation.evaluating import evaluate
    from adapt.evaluation.store import open_evaluation
    from adapt.fera import FeraConfig, load_fera, save_fera, unload
    from adapt.loop import train
    from adapt.prior import Prior
    from adapt.sample import sample

__all__ = [
    "FeraConfig",
    "Prior",
    "TrainConfig",
    "evaluate",
    "load_fera",
    "open_evaluation",
    "sample",
    "save_fera",
    "train",
    "unload",
]

_HOME = {
    "FeraConfig": "adapt.fera",
    "load_fera": "adapt.fera",
    "save_fera": "adapt.fera",
    "unload": "adapt.fera",
    "Prior": "adapt.prior",
    "TrainConfig": "adapt.config",
    "train": "adapt.loop",
    "sample": "adapt.sample",
    "evaluate": "adapt.evaluation.evaluating",
    "open_evaluation": "adapt.evaluation.store",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'adapt' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps `adapt.sample` the function: importing the submodule of that name would put itself in its place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
