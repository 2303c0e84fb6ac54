"""Parts that the tiny pipelines of the matrix share: random weights, small autoencoders, embeddings instead of text."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

BATCH, TOKENS = 2, 5


def randomised(module: nn.Module, scale: float = 0.15) -> nn.Module:
    """Matrices, kernels and biases drawn anew: layers that start at zero would predict nothing, and prove nothing."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1 or name.endswith("bias"):
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def embedding(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def prompts(width: int, name: str = "prompt_embeds") -> dict[str, Tensor]:
    """Embeddings of two prompts, and of as many negative ones."""
    shape = (BATCH, TOKENS, width)
    return {name: embedding(*shape), f"negative_{name}": embedding(*shape, seed=2)}


def pooled(width: int, name: str = "pooled_prompt_embeds") -> dict[str, Tensor]:
    return {name: embedding(BATCH, width, seed=3), f"negative_{name}": embedding(BATCH, width, seed=4)}


def masks(name: str = "prompt_attention_mask", dtype: torch.dtype = torch.long) -> dict[str, Tensor]:
    whole = torch.ones(BATCH, TOKENS, dtype=dtype)
    return {name: whole, f"negative_{name}": whole}


def autoencoder(levels: int = 4, scaling_factor: float = 0.7, shift_factor: float = 0.2) -> AutoencoderKL:
    """Four latent channels, 2^(levels - 1) pixels along each side of a latent pixel.

    The configuration has a shift, which some pipelines use and others leave out.
    """
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(4,) * levels,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        mid_block_add_attention=False,
        scaling_factor=scaling_factor,
        shift_factor=shift_factor,
    ).eval()


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe
