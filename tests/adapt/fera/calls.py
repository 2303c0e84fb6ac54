"""Calls of denoisers without their weights: latents and position ids as diffusers' pipelines lay them out."""

from __future__ import annotations

from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from adapt.fera.view import view_of

B, C, H, W = 2, 4, 6, 10


def denoiser(name: str, **settings: Any) -> nn.Module:
    """The forward of a class of diffusers without its weights."""
    made: nn.Module = type(name, (nn.Module,), {"forward": getattr(diffusers, name).forward})()
    made.config = settings
    return made


def read(name: str, call: dict[str, Any], **settings: Any) -> tuple[Tensor, Tensor | None]:
    return view_of(denoiser(name, **settings)).read((), call)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def packed(x: Tensor, pipeline: Any = diffusers.FluxPipeline) -> Tensor:
    tokens: Tensor = pipeline._pack_latents(x, *x.shape)
    return tokens


def positions(h: int, w: int, pipeline: Any = diffusers.FluxPipeline) -> Tensor:
    ids: Tensor = pipeline._prepare_latent_image_ids(1, h // 2, w // 2, "cpu", torch.float32)
    return ids


X, REFERENCE = noise(B, C, H, W), noise(B, C, 8, 4, seed=1)
