"""Optimizers and learning rates: one table, one schedule, and checkpoints that keep every bit of an optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from adapt.checkpoint_tree import copy_into, whole
from adapt.config import TrainConfig, learning_rate
from spectra.errors import UserError

Groups = list[dict[str, Any]]
Build = Callable[[Groups, torch.device], Any]
BETAS = (0.9, 0.99)
MOMENTUM = 0.9
PRODIGY_RATE = 1.0
"""Prodigy finds the size of its steps itself; its learning rate is a factor of that."""
NEEDS = {"adamw8bit": "bitsandbytes", "prodigy": "prodigyopt", "adafactor": "transformers"}
"""Optimizers from other packages."""


def _adamw(groups: Groups, device: torch.device) -> Any:
    return torch.optim.AdamW(groups, betas=BETAS, fused=device.type in ("cpu", "cuda"))


def _from(module: str, name: str) -> Any:
    """A class of a package that need not be installed."""
    return getattr(import_module(module), name)


def _adamw8bit(groups: Groups, device: torch.device) -> Any:
    return _from("bitsandbytes.optim", "AdamW8bit")(groups, betas=BETAS)


def _prodigy(groups: Groups, device: torch.device) -> Any:
    return _from("prodigyopt", "Prodigy")(groups, betas=BETAS, use_bias_correction=True, safeguard_warmup=True)


def _adafactor(groups: Groups, device: torch.device) -> Any:
    fixed = {"scale_parameter": False, "relative_step": False, "warmup_init": False}
    return _from("transformers.optimization", "Adafactor")(groups, **fixed)


def _sgd(groups: Groups, device: torch.device) -> Any:
    return torch.optim.SGD(groups, momentum=MOMENTUM)


OPTIMIZERS: dict[str, Build] = {
    "adamw": _adamw,
    "adamw8bit": _adamw8bit,
    "prodigy": _prodigy,
    "adafactor": _adafactor,
    "sgd": _sgd,
}


def peak_rate(config: TrainConfig, parameters: int) -> float:
    """The peak learning rate of a run on a denoiser of so many parameters."""
    if config.lr is not None:
        return config.lr
    return PRODIGY_RATE if config.optimizer == "prodigy" else learning_rate(config.method, parameters)


def check_optimizer(config: TrainConfig, groups: Groups) -> None:
    """UserError for an optimizer whose package is not installed, or that cannot do what is asked for."""
    check_package(config)
    if config.optimizer == "prodigy" and len({group["lr"] for group in groups}) > 1:
        raise UserError("optimizer 'prodigy' has one learning rate for everything; leave router_lr at 1")


def check_package(config: TrainConfig) -> None:
    """UserError where the optimizer's package is not installed; to be asked before any work."""
    package = NEEDS.get(config.optimizer)
    if package and find_spec(package) is None:
        raise UserError(
            f"optimizer {config.optimizer!r} needs the package {package}; install it with `pip install {package}`"
        )


def make_optimizer(config: TrainConfig, groups: Groups, device: torch.device) -> Any:
    """The optimizer of a run for groups {params, lr, weight_decay}.

    Raises:
        UserError: its package is not installed, or it cannot do what the groups ask for.
    """
    name = config.optimizer
    check_optimizer(config, groups)
    try:
        return OPTIMIZERS[name](groups, device)
    except (ImportError, RuntimeError, NotImplementedError) as error:
        raise UserError(f"optimizer {name!r} cannot be used here ({error}); choose adamw") from None


def rate(step: int, steps: int, warmup: float, schedule: str = "cosine") -> float:
    """Share of the peak learning rate: a linear rise over `warmup` of the steps, then the schedule's course.

    `cosine` and `linear` end at zero after the last step, `constant` stays.
    """
    rise = warmup * steps
    if step < rise:
        return (step + 1) / (rise + 1)
    done = (step - rise) / max(1.0, steps - rise)
    return {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done, "constant": 1.0}[schedule]


def optimizer_state(optimizer: Any) -> dict[str, Any]:
    """The state of an optimizer as a tree: per parameter in the order of its groups, and the groups' numbers."""
    rows = [
        {key: whole(value) if isinstance(value, Tensor) else value for key, value in optimizer.state[p].items()}
        for group in optimizer.param_groups for p in group["params"]
    ]  # fmt: skip
    numbers = [
        {key: value for key, value in group.items() if key != "params" and _is_plain(value)}
        for group in optimizer.param_groups
    ]
    return {"rows": rows, "groups": numbers}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(inner) for inner in value)
    return value is None or isinstance(value, bool | int | float | str | Tensor)


def restore_optimizer(optimizer: Any, saved: dict[str, Any]) -> None:
    """Put a saved state back, with the types that it was saved with (torch's own way would cast them)."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter, row in zip(parameters, saved["rows"], strict=True):
        optimizer.state[parameter] = {key: _beside(parameter, key, value) for key, value in row.items()}
    for group, numbers in zip(optimizer.param_groups, saved["groups"], strict=True):
        group.update(numbers)


def _beside(parameter: Tensor, key: str, value: Any) -> Any:
    """A value of the state on its parameter's device, and sharded as that is; `step` counters stay where they were."""
    if not isinstance(value, Tensor):
        return value
    if hasattr(parameter, "device_mesh") and value.shape == parameter.shape:
        target = torch.zeros_like(parameter, dtype=value.dtype)
        copy_into(target, value)
        return target
    fused = value.ndim > 0 or parameter.device.type == "cuda"
    return value.to(parameter.device) if fused else value
