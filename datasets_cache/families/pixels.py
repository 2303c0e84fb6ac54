"""Pictures and clips <-> latents as the denoiser sees them, and the sizes of both."""

from __future__ import annotations

from collections.abc import Sequence
from math import lcm
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from datasets_cache.families.picture import Facts
from datasets_cache.families.registry import encoding_family
from datasets_cache.families.text import Conditioning, argument
from spectra.errors import UserError
from spectra.families import family_of

FRAMES_AT_ONCE = 8
SPACE = ("vae_scale_factor", "vae_scale_factor_spatial", "vae_spatial_compression_ratio")
TIME = ("vae_scale_factor_temporal", "vae_temporal_compression_ratio")


def native_size(pipe: Any) -> tuple[int, int]:
    """Picture size (h, w) in pixels that the denoiser was made for: that of a call which names none."""
    known = encoding_family(pipe)
    named = [argument(pipe, side) for side in ("height", "width")]
    if all(isinstance(side, int) for side in named):
        return named[0], named[1]
    if known.side:
        return known.side, known.side
    denoiser: Any = family_of(pipe).denoiser(pipe)
    size = denoiser.config.get("sample_size") or pipe.default_sample_size
    height, width = (size, size) if isinstance(size, int) else size
    space = _factor(pipe, SPACE)
    return height * space, width * space


def scales(pipe: Any) -> tuple[int, int]:
    """Pixels along a side of a latent pixel, and pixel frames to a latent frame after the first."""
    return _factor(pipe, SPACE) * encoding_family(pipe).fold, _factor(pipe, TIME)


def _factor(pipe: Any, names: Sequence[str]) -> int:
    """The pipeline's own attribute of one of these names, else 1."""
    return next((int(getattr(pipe, name)) for name in names if hasattr(pipe, name)), 1)


def size_step(pipe: Any) -> int:
    """Sides of pictures are multiples of so many pixels; pipelines with a UNet refuse others than multiples of 8."""
    own = scales(pipe)[0] * encoding_family(pipe).patch
    return lcm(own, 8) if hasattr(pipe, "unet") else own


def call_sizes(pipe: Any, shape: Sequence[int]) -> dict[str, int]:
    """The arguments `height`, `width` and, for videos, `num_frames` of a call that makes latents (c, [t], h, w)."""
    space, time = scales(pipe)
    named = {"height": shape[-2] * space, "width": shape[-1] * space}
    if encoding_family(pipe).video:
        named["num_frames"] = (shape[1] - 1) * time + 1
    return named


def check_pixels(pipe: Any, shape: Sequence[int]) -> None:
    """UserError unless the model can learn from pictures (3, h, w) or clips (3, t, h, w) of this shape."""
    family, step, (_, time) = encoding_family(pipe), size_step(pipe), scales(pipe)
    name, frames = type(pipe).__name__, shape[1] if len(shape) == 4 else 1
    if any(side % step for side in shape[-2:]):
        height, width = shape[-2:]
        raise UserError(
            f"a {name} takes pictures whose sides are multiples of {step} pixels, not {width} x {height}; "
            f"choose a resolution that is one"
        )
    if frames > 1 and not family.video:
        raise UserError(f"a {name} learns from pictures, not from clips of {frames} frames; set frames = 1")
    if frames < family.frames or (frames - 1) % time:
        fit = max(family.frames, 1 + time * round((frames - 1) / time))
        raise UserError(
            f"a {name} cannot learn from clips of {frames} frame{'s' * (frames != 1)}; set frames to {fit}, say"
        )


@torch.no_grad()
def encode_pixels(pipe: Any, pixels: Tensor) -> Tensor:
    """Latents (n, c, [t], h/f, w/f) float32, as the denoiser sees them, of pixels (n, 3, [t], h, w) in -1..1.

    The posterior's mode, so that a picture has one latent. To a model of videos a picture is a clip of one frame.

    Raises:
        UserError: a size or a number of frames that the model cannot take.
    """
    check_pixels(pipe, pixels.shape[1:])
    known, family = encoding_family(pipe), family_of(pipe)
    pixels = pixels.to(pipe.vae.device, pipe.vae.dtype)
    if pixels.ndim == 4 and known.vae != "picture":
        pixels = pixels.unsqueeze(2)
    raw = _by_frames(pipe.vae, pixels) if known.vae == "frames" else _mode(pipe.vae, pixels)
    return family.from_vae(raw.float(), pipe)


@torch.no_grad()
def decode_latents(pipe: Any, latents: Tensor) -> Tensor:
    """Pixels (n, 3, [t], h, w) float32 in 0..1 of latents as the denoiser sees them; inverse of `encode_pixels`."""
    vae = pipe.vae
    raw = family_of(pipe).to_vae(latents, pipe).to(vae.device, vae.dtype)
    pixels = _decoded(pipe, raw)
    if pixels.ndim == 5 and latents.ndim == 4:
        pixels = pixels.squeeze(2)
    return (pixels.float() / 2 + 0.5).clamp(0, 1)


@torch.no_grad()
def encode_picture(pipe: Any, pixels: Tensor, facts: Facts) -> tuple[Tensor, Conditioning]:
    """The latent (c, [t], h, w) of pixels (1, 3, [t], h, w) in -1..1, and what the denoiser is told of the picture.

    Both float32, on the CPU, without a batch axis. What is told of a caption comes beside it.
    """
    latent = encode_pixels(pipe, pixels)[0].cpu()
    known = encoding_family(pipe)
    told = known.picture(pipe, pixels, facts) if known.picture else {}
    return latent, {name: value[0].float().cpu() for name, value in told.items()}


def _mode(vae: Any, pixels: Tensor) -> Tensor:
    encoded = vae.encode(pixels)
    mode: Tensor = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latent
    return mode


def _by_frames(vae: Any, pixels: Tensor) -> Tensor:
    frames = rearrange(pixels, "b c t h w -> (b t) c h w")
    raw = torch.cat([_mode(vae, part) for part in frames.split(FRAMES_AT_ONCE)])
    return rearrange(raw, "(b t) c h w -> b c t h w", b=len(pixels))


def _decoded(pipe: Any, raw: Tensor) -> Tensor:
    pixels: Tensor
    if encoding_family(pipe).vae == "frames":
        frames = rearrange(raw, "b c t h w -> (b t) c h w")
        pixels = pipe.vae.decode(frames, num_frames=raw.shape[2], return_dict=False)[0]
        return rearrange(pixels, "(b t) c h w -> b c t h w", b=len(raw))
    if pipe.vae.config.get("timestep_conditioning"):  # LTX: its decoder removes noise too, and here there is none
        pixels = pipe.vae.decode(raw, torch.zeros(len(raw)).to(raw), return_dict=False)[0]
        return pixels
    pixels = pipe.vae.decode(raw, return_dict=False)[0]
    return pixels
