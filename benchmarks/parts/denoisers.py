"""Denoisers with random weights and the inputs of one training step: CPU-sized ones, and those of SDXL and FLUX.1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Size:
    """A denoiser of one size: how to make it, and the arguments of one call for a batch."""

    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[[int], dict[str, Any]]
    batch: int
    dtype: torch.dtype
    latent: str


def _unet(**config: Any) -> Callable[[], nn.Module]:
    from diffusers import UNet2DConditionModel

    return lambda: UNet2DConditionModel(**config)


def _small_unet() -> Callable[[], nn.Module]:
    return _unet(
        sample_size=32, block_out_channels=(128, 256), layers_per_block=1, cross_attention_dim=256,
        attention_head_dim=8, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip


def _small_dit() -> nn.Module:
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(
        sample_size=32, patch_size=2, in_channels=16, num_layers=6, attention_head_dim=32, num_attention_heads=12,
        joint_attention_dim=256, caption_projection_dim=384, pooled_projection_dim=128, out_channels=16,
        pos_embed_max_size=32,
    )  # fmt: skip


def _sdxl() -> nn.Module:
    from overhead import SDXL

    return _unet(**SDXL)()


def _flux() -> nn.Module:
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(guidance_embeds=True)


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def _unet_inputs(size: int, text: int, extra: bool = False) -> Callable[[int], dict[str, Any]]:
    def make(batch: int) -> dict[str, Any]:
        inputs: dict[str, Any] = {
            "sample": _normal(batch, 4, size, size),
            "timestep": torch.linspace(50, 950, batch).long(),
            "encoder_hidden_states": _normal(batch, 77, text),
        }
        if extra:
            inputs["added_cond_kwargs"] = {"text_embeds": _normal(batch, 1280), "time_ids": _normal(batch, 6)}
        return inputs

    return make


def _dit_inputs(batch: int) -> dict[str, Any]:
    return {
        "hidden_states": _normal(batch, 16, 32, 32),
        "timestep": torch.linspace(50, 950, batch),
        "encoder_hidden_states": _normal(batch, 77, 256),
        "pooled_projections": _normal(batch, 128),
    }


def _flux_inputs(batch: int) -> dict[str, Any]:
    side, text = 64, 512
    ids = torch.zeros(side, side, 3)
    ids[..., 1], ids[..., 2] = torch.arange(side)[:, None], torch.arange(side)[None]
    return {
        "hidden_states": _normal(batch, side * side, 64), "timestep": torch.linspace(0.05, 0.95, batch),
        "encoder_hidden_states": _normal(batch, text, 4096), "pooled_projections": _normal(batch, 768),
        "img_ids": ids.reshape(-1, 3), "txt_ids": torch.zeros(text, 3), "guidance": torch.ones(batch),
    }  # fmt: skip


CPU_SIZES = (
    Size("UNet, 10 M", _small_unet(), _unet_inputs(32, 256), 2, torch.float32, "sample"),
    Size("MM-DiT, 20 M", _small_dit, _dit_inputs, 2, torch.float32, "hidden_states"),
)
GPU_SIZES = (
    Size("SDXL size", _sdxl, _unet_inputs(128, 2048, extra=True), 4, torch.bfloat16, "sample"),
    Size("FLUX.1 size", _flux, _flux_inputs, 1, torch.bfloat16, "hidden_states"),
)


def sizes() -> tuple[Size, ...]:
    """What to measure on this machine."""
    return GPU_SIZES if DEVICE == "cuda" else CPU_SIZES


def moved(inputs: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """The inputs on the device; whole numbers keep their type."""

    def move(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: move(one) for name, one in value.items()}
        return value.to(DEVICE, dtype if value.is_floating_point() else None)

    return {name: move(value) for name, value in inputs.items()}


def denoiser(size: Size) -> nn.Module:
    """A network of the size, frozen, its weights drawn anew so that no layer starts at zero."""
    torch.manual_seed(0)
    torch.set_default_dtype(size.dtype)
    try:
        with torch.device(DEVICE):
            model = size.make().train()
    finally:
        torch.set_default_dtype(torch.float32)
    return model.requires_grad_(False)
