"""Adapters of every method on tiny denoisers, trained for a few steps on noise."""

from __future__ import annotations

import copy
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adapt.config import TrainConfig
from adapt.methods import METHODS, Reach
from adapt.targets import default_targets
from tests.tiny import tiny_sd, tiny_sd3

PLAIN = [name for name in METHODS if name not in ("fera", "full")]
"""The methods that PEFT offers."""
EVERY = list(METHODS)


@cache
def _original(kind: str) -> nn.Module:
    made: nn.Module = (tiny_sd().unet if kind == "sd" else tiny_sd3().transformer).eval()
    return made


@pytest.fixture(params=["sd", "sd3"])
def denoiser(request: pytest.FixtureRequest) -> Any:
    return fresh(request.param)


def fresh(kind: str = "sd") -> Any:
    return copy.deepcopy(_original(kind))


def settings(method: str, **changes: Any) -> TrainConfig:
    values: dict[str, Any] = {"model": "x", "data": "x", "out": Path("x"), "method": method, "steps": 8}
    rank = {} if "rank" in METHODS[method].lacks else {"rank": 6}
    return TrainConfig(**(values | rank | changes))


def attach(denoiser: Any, method: str, seed: int = 0, **changes: Any) -> Reach:
    """Attach with the default targets; the start depends on the seed."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="oft: ")
        return METHODS[method].attach(denoiser, settings(method, **changes), default_targets(denoiser), None)


def train(denoiser: Any, method: str, steps: int = 3, lr: float = 1e-2, first: int = 0, total: int = 8) -> Any:
    """Steps down the mean square of the output, in each of which every tensor moves by at most `lr`."""
    learned = [p for p in denoiser.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=1.0)
    for step in range(first, first + steps):
        answer(denoiser, seed=step).square().mean().backward()
        for p in learned:
            if p.grad is not None:
                p.grad = lr * p.grad / p.grad.abs().max().clamp_min(1e-12)
        optimizer.step()
        METHODS[method].after_step(denoiser, step, total)
        optimizer.zero_grad()
    return denoiser


def answer(denoiser: Any, seed: int = 0) -> Tensor:
    from tests.adapt.fera.conftest import run

    return run(denoiser, seed)
