"""Training every weight of a denoiser or text encoder: for small models, from scratch or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapt.config import TrainConfig
from adapt.methods.base import Method
from adapt.methods.peft_adapters import difference, tensors_of, write_settings, write_tensors
from spectra.errors import UserError

BASE = "_weights_before"
"""Attribute of the denoiser that keeps its first weights, on the CPU: what it was before is still asked for."""


def insert(denoiser: Any, settings: None) -> None:
    """Make every weight trainable, and keep a copy of what it was."""
    vars(denoiser)[BASE] = {name: p.detach().cpu().clone() for name, p in denoiser.named_parameters()}
    denoiser.requires_grad_(True)


def learns(module: Any) -> bool:
    """True for a module whose weights were all made trainable, or put in from a folder."""
    return BASE in vars(module)


def go_on(denoiser: Any, settings: None, folder: Path) -> None:
    """Train saved weights further."""
    load(denoiser, folder)
    denoiser.requires_grad_(True)


def save(denoiser: Any, folder: Path) -> None:
    """A folder of settings and all weights, under their own names."""
    weights = dict(denoiser.named_parameters())
    count = sum(p.numel() for p in weights.values())
    write_settings(folder, {"peft_type": "FULL", "class": type(denoiser).__name__, "parameters": count})
    write_tensors(folder, {name: p.data for name, p in weights.items()})


def load(denoiser: Any, folder: Path) -> None:
    """Put saved weights in; UserError where they are not exactly the model's, which is then as it was."""
    found, mine = tensors_of(folder), dict(denoiser.named_parameters())
    problem = difference({name: p.data for name, p in mine.items()}, found)
    if problem:
        raise UserError(f"the weights {folder} do not fit {type(denoiser).__name__}; {problem}")
    insert(denoiser, None)
    denoiser.requires_grad_(False)
    _put(denoiser, found)


def remove(denoiser: Any) -> None:
    """Put the first weights back for good."""
    _put(denoiser, vars(denoiser).pop(BASE))


@contextmanager
def base(denoiser: Any) -> Iterator[None]:
    """Inside, the denoiser has its first weights again."""
    trained = {name: p.detach().clone() for name, p in denoiser.named_parameters()}
    _put(denoiser, vars(denoiser)[BASE])
    try:
        yield
    finally:
        _put(denoiser, trained)


@torch.no_grad()
def _put(denoiser: Any, weights: dict[str, Tensor]) -> None:
    for name, parameter in denoiser.named_parameters():
        parameter.copy_(weights[name])


def _no_settings(config: TrainConfig, targets: list[str], prior: object, pipe: object) -> None:
    return None


FULL = Method("full", _no_settings, save, load, base, insert, go_on,
              lacks=("rank", "dropout", "alpha", "targets"), by_layers=False)  # fmt: skip
