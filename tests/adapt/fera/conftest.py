"""Tiny denoisers, the arguments of one call, and adapters whose update is not zero."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adapt.fera import FeraConfig
from tests.tiny import tiny_sd, tiny_sd3

UNET_TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2", "conv_in", "conv_shortcut", "downsamplers.0.conv"]
SD3_TARGETS = ["to_q", "to_v", "add_k_proj", "ff.net.0.proj", "pos_embed.proj"]


@cache
def _original(kind: str) -> nn.Module:
    return (tiny_sd().unet if kind == "unet" else tiny_sd3().transformer).eval()


@pytest.fixture
def unet() -> nn.Module:
    return copy.deepcopy(_original("unet"))


@pytest.fixture
def transformer() -> nn.Module:
    return copy.deepcopy(_original("transformer"))


@pytest.fixture(params=["unet", "transformer"])
def denoiser(request: pytest.FixtureRequest) -> nn.Module:
    return copy.deepcopy(_original(request.param))


def arguments(model: nn.Module, seed: int = 0, batch: int = 2) -> dict[str, Tensor]:
    """Arguments of one call, by keyword."""
    draw = torch.Generator().manual_seed(seed)
    latent = torch.randn(batch, 4, 16, 16, generator=draw)
    timestep = torch.linspace(20, 900, batch)
    if type(model).__name__ == "UNet2DConditionModel":
        text = torch.randn(batch, 16, 32, generator=draw)
        return {"sample": latent, "timestep": timestep, "encoder_hidden_states": text}
    text, pooled = torch.randn(batch, 16, 64, generator=draw), torch.randn(batch, 64, generator=draw)
    return {"hidden_states": latent, "encoder_hidden_states": text, "pooled_projections": pooled, "timestep": timestep}


def targets(model: nn.Module) -> list[str]:
    return UNET_TARGETS if type(model).__name__ == "UNet2DConditionModel" else SD3_TARGETS


def run(model: nn.Module, seed: int = 0, batch: int = 2) -> Tensor:
    output: Tensor = model(**arguments(model, seed, batch)).sample
    return output


def adapted(model: nn.Module, name: str = "default", seed: int = 7, **settings: Any) -> Any:
    """Add an adapter through diffusers and give it an update."""
    torch.manual_seed(seed)
    model.add_adapter(FeraConfig(**{"target_modules": targets(model), **settings}), name)  # type: ignore[operator]
    randomise(model, name, seed)
    return model


def randomise(model: nn.Module, name: str = "default", seed: int = 7) -> None:
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith((f"fera_B.{name}", f"fera_C.{name}", f"fera_vectors.{name}")):
                parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.1)
            if key.endswith(f"fera_magnitude.{name}"):
                parameter.mul_(1 + torch.rand(parameter.shape, generator=draw) * 0.1)


def fera_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    return {key: parameter for key, parameter in model.named_parameters() if "fera_" in key}


Adapt = Callable[..., Any]
