"""What differs between pipeline families when pictures and captions are encoded, as data."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn

from spectra.errors import UserError
from spectra.families import family_of
from spectra.identity import base_weights, settings

Conditioning = dict[str, Tensor]
"""What the denoiser is told beside latent and timestep, by the names of its own arguments."""


def _stable_diffusion(pipe: Any, prompt: str, defaults: Mapping[str, Any]) -> Conditioning:
    embeds, _ = pipe.encode_prompt(prompt, pipe.device, 1, do_classifier_free_guidance=False)
    return {"encoder_hidden_states": embeds}


def _stable_diffusion_3(pipe: Any, prompt: str, defaults: Mapping[str, Any]) -> Conditioning:
    # `max_sequence_length` pads the T5 part, with zeros where there is no T5: a model sees what it was trained with.
    embeds, _, pooled, _ = pipe.encode_prompt(
        prompt, None, None, device=pipe.device, do_classifier_free_guidance=False, **defaults
    )
    return {"encoder_hidden_states": embeds, "pooled_projections": pooled}


@dataclass(frozen=True)
class EncodingFamily:
    """How one kind of pipeline turns captions and pictures into what its denoiser is trained on."""

    text: Callable[[Any, str, Mapping[str, Any]], Conditioning]
    text_parts: tuple[str, ...]
    """Components that decide the embeddings."""
    shifted: bool
    """True where the pipeline decodes `latent / scaling_factor + shift_factor`, False where it ignores the shift."""


FAMILIES: dict[str, EncodingFamily] = {
    "StableDiffusionPipeline": EncodingFamily(_stable_diffusion, ("tokenizer", "text_encoder"), shifted=False),
    "StableDiffusion3Pipeline": EncodingFamily(
        _stable_diffusion_3,
        ("tokenizer", "tokenizer_2", "tokenizer_3", "text_encoder", "text_encoder_2", "text_encoder_3"),
        shifted=True,
    ),
}
"""By pipeline class; subclasses are found through their bases."""


def encoding_family(pipe: Any) -> EncodingFamily:
    """The family of a pipeline; UserError when it is not known how to encode for it."""
    for base in type(pipe).__mro__:
        if base.__name__ in FAMILIES:
            return FAMILIES[base.__name__]
    known = ", ".join(FAMILIES)
    raise UserError(f"cannot encode a data set for a {type(pipe).__name__} yet; known pipelines: {known}")


def native_size(pipe: Any) -> tuple[int, int]:
    """Picture size (h, w) in pixels that the denoiser was made for."""
    denoiser: Any = family_of(pipe).denoiser(pipe)
    size = denoiser.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    return height * pipe.vae_scale_factor, width * pipe.vae_scale_factor


@torch.no_grad()
def encode_pixels(pipe: Any, pixels: Tensor) -> Tensor:
    """Latents (n, c, h/f, w/f) float32, as the denoiser sees them, of pixels (n, 3, h, w) in -1..1.

    The posterior's mode, so that a picture has one latent.
    """
    vae = pipe.vae
    mode: Tensor = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist.mode().float()
    return (mode - _shift(pipe)) * float(vae.config.scaling_factor)


@torch.no_grad()
def decode_latents(pipe: Any, latents: Tensor) -> Tensor:
    """Pixels (n, 3, h, w) float32 in 0..1 of latents as the denoiser sees them; inverse of `encode_pixels`."""
    vae = pipe.vae
    raw = latents / float(vae.config.scaling_factor) + _shift(pipe)
    pixels: Tensor = vae.decode(raw.to(vae.device, vae.dtype), return_dict=False)[0]
    return (pixels.float() / 2 + 0.5).clamp(0, 1)


def _shift(pipe: Any) -> float:
    shift = getattr(pipe.vae.config, "shift_factor", None)
    return float(shift or 0.0) if encoding_family(pipe).shifted else 0.0


@torch.no_grad()
def encode_caption(pipe: Any, caption: str, defaults: Mapping[str, Any]) -> Conditioning:
    """Embeddings of one caption without the batch axis, float32, on the CPU."""
    embedded = encoding_family(pipe).text(pipe, caption, defaults)
    return {name: value[0].float().cpu() for name, value in embedded.items()}


def vae_identity(pipe: Any) -> str:
    """Digest of everything that decides a latent: the autoencoder's weights and numbers."""
    return _digest([_module_digest(pipe.vae), _shift(pipe)])


def text_identity(pipe: Any, defaults: Mapping[str, Any]) -> str:
    """Digest of everything that decides an embedding: text encoders, tokenizers and call defaults."""
    parts = [_part_digest(getattr(pipe, name, None)) for name in encoding_family(pipe).text_parts]
    return _digest([type(pipe).__name__, dict(defaults), *parts])


def _part_digest(part: Any) -> str | None:
    if part is None:
        return None
    if isinstance(part, nn.Module):
        return _module_digest(part)
    return _digest([type(part).__name__, part.model_max_length, part.get_vocab(), part.special_tokens_map])


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
