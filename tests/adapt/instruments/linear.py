"""A task whose network is one linear layer over channels, so that everything has a closed form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from adapt.methods import METHODS
from adapt.methods.base import with_adapters
from adapt.task import Task
from tests.adapt.fera.conftest import adapted
from tests.adapt.worlds import SHAPE, data, task

SETTINGS: dict[str, Any] = {"eval_samples": 4, "eval_draws": 2, "eval_levels": 3}
EXPERTS = 3


class Pointwise(nn.Module):
    """x -> W x + b at every pixel, with the argument names of Stable Diffusion 3's transformer."""

    dtype = torch.float32

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mix = nn.Linear(SHAPE[0], SHAPE[0])

    def forward(self, hidden_states: Tensor, timestep: Tensor) -> Tensor:
        mixed: Tensor = self.mix(hidden_states.movedim(1, -1)).movedim(-1, 1)
        return mixed


def call(net: Any, noisy: Tensor, timestep: Tensor, told: Any) -> Tensor:
    answer: Tensor = net(noisy, timestep)
    return answer


def plain_task(**changes: Any) -> Task:
    """Without an adapter."""
    the = task(FlowMatchEulerDiscreteScheduler(), heldout=data(4), **(SETTINGS | changes))
    return replace(the, denoiser=Pointwise(), call=call)


def fera_task(**settings: Any) -> Task:
    """With FeRA of three experts of rank 4."""
    net = adapted(with_adapters(Pointwise()), target_modules=["mix"], grid=(8, 8), **settings)
    the = task(FlowMatchEulerDiscreteScheduler(), heldout=data(4), **(SETTINGS | {"method": "fera"}))
    return replace(the, denoiser=net, call=call, method=METHODS["fera"])
