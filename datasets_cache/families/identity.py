"""Digests of everything that decides an encoding: the cache is asked by them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import torch
from diffusers.utils.import_utils import is_ftfy_available
from torch import nn

from datasets_cache.families.registry import encoding_family
from datasets_cache.families.text import cleaning
from spectra.families import family_of
from spectra.identity import base_weights, settings


def vae_identity(pipe: Any) -> str:
    """Digest of everything that decides the latent of a picture and what the denoiser is told of it."""
    known = encoding_family(pipe)
    told = known.picture.__name__ if known.picture else None
    parts = [_part_digest(getattr(pipe, name, None)) for name in known.picture_parts]
    return _digest([_part_digest(pipe.vae), family_of(pipe).denormalise, known.vae, told, *parts])


def text_identity(pipe: Any, defaults: Mapping[str, Any]) -> str:
    """Digest of everything that decides an embedding: text encoders, tokenizers, call defaults, cleaning of texts."""
    parts = [_part_digest(getattr(pipe, name, None)) for name in encoding_family(pipe).text_parts]
    return _digest([type(pipe).__name__, dict(defaults) | cleaning(pipe), is_ftfy_available(), *parts])


def _part_digest(part: Any) -> str | None:
    if part is None:
        return None
    if isinstance(part, nn.Module):
        return _module_digest(part)
    if hasattr(part, "get_vocab"):
        return _digest([type(part).__name__, part.model_max_length, part.get_vocab(), part.special_tokens_map])
    return _digest([type(part).__name__, part.to_dict()])  # what prepares pictures for an encoder


def _module_digest(module: nn.Module) -> str:
    """Digest of class, precision, configuration and weights of a network."""
    kind = str(next(module.parameters()).dtype)
    digest = sha256(_digest([type(module).__name__, kind, settings(module)]).encode())
    for name, value in sorted(base_weights(module)):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _digest(parts: object) -> str:
    return sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
