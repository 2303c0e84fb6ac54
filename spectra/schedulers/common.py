"""Small things that the rules of all schedulers share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from spectra.errors import UserError

if TYPE_CHECKING:
    import torch

Weights = Callable[[float], tuple[float, float]]


def preserving(square: float) -> tuple[float, float]:
    """Weights whose squares add up to 1, from the square of the signal's."""
    return math.sqrt(square), math.sqrt(max(1 - square, 0.0))


def ratio(sigma: float) -> tuple[float, float]:
    """Weights whose squares add up to 1, from noise over signal."""
    return 1 / math.hypot(1, sigma), sigma / math.hypot(1, sigma)


def exploding(sigma: float) -> tuple[float, float]:
    """The signal as it is."""
    return 1.0, sigma


def straight(sigma: float) -> tuple[float, float]:
    """Weights that add up to 1."""
    return 1 - sigma, sigma


def only(timestep: Any) -> float:
    """A timestep given to `step`, which some pipelines repeat for each sample."""
    values = set(timestep.flatten().tolist()) if hasattr(timestep, "flatten") else {float(timestep)}
    if len(values) != 1:
        raise UserError("samples or tokens of one call have different timesteps, so they have no common noise level")
    return float(values.pop())


def numbers(values: torch.Tensor) -> list[float]:
    """A table of the scheduler, read once so that no step waits for the device."""
    read: list[float] = values.cpu().double().tolist()
    return read


def kind_of(scheduler: Any, default: str) -> str:
    """What the network predicts, by the configuration; some have no such entry."""
    return str(getattr(scheduler.config, "prediction_type", default))
