"""Pipeline families of the training side: how captions, pictures and clips become what a denoiser is trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from datasets_cache.families.identity import text_identity, vae_identity
from datasets_cache.families.picture import Facts
from datasets_cache.families.pixels import (
    call_sizes,
    check_pixels,
    decode_latents,
    encode_picture,
    encode_pixels,
    native_size,
    size_step,
)
from datasets_cache.families.registry import FAMILIES, EncodingFamily, encoding_family
from datasets_cache.families.text import Conditioning

__all__ = [
    "FAMILIES",
    "Conditioning",
    "EncodingFamily",
    "Facts",
    "call_sizes",
    "check_pixels",
    "decode_latents",
    "encode_caption",
    "encode_empty",
    "encode_picture",
    "encode_pixels",
    "encoding_family",
    "native_size",
    "size_step",
    "text_identity",
    "vae_identity",
]


@torch.no_grad()
def encode_caption(pipe: Any, caption: str, defaults: Mapping[str, Any]) -> Conditioning:
    """What the denoiser is told of one caption, without the batch axis, float32, on the CPU."""
    return _plain(encoding_family(pipe).text(pipe, caption, defaults))


@torch.no_grad()
def encode_empty(pipe: Any, defaults: Mapping[str, Any]) -> Conditioning:
    """What the denoiser is told where a caption is dropped: what the pipeline guides away from.

    As `encode_caption`; an entry may have fewer elements than that which it replaces, and is then spread over it.
    Names that are missing, such as sizes of pictures, keep what they are.
    """
    known = encoding_family(pipe)
    return _plain(known.empty(pipe, defaults) if known.empty else known.text(pipe, "", defaults))


def _plain(told: Conditioning) -> Conditioning:
    return {name: value[0].float().cpu() for name, value in told.items()}
