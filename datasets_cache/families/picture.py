"""What a denoiser is told about a picture or clip beside its caption."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from datasets_cache.families.text import Conditioning, Defaults, argument

Facts = Mapping[str, Any]
"""`original` (h, w): size before resizing; `crop` (top, left): where the crop begins in the resized picture; `target`
(h, w): its size. `fps`: frames a second of a clip, where they are known."""


def sizes(pipe: Any, pixels: Tensor, facts: Facts) -> Conditioning:
    """Stable Diffusion XL is told the sizes (6,) in pixels, rows before columns, as its pipeline orders them."""
    return {"time_ids": torch.tensor([[*facts["original"], *facts["crop"], *facts["target"]]], dtype=torch.float32)}


def first_frame(pipe: Any, pixels: Tensor, facts: Facts) -> Conditioning:
    """Stable Video Diffusion is told the first frame, twice, and three numbers.

    Its CLIP embedding (1, 1, d), its unscaled latents (1, c, h, w) after a little noise, and (frames a second - 1,
    motion bucket, strength of that noise), which are the call's own where the clip does not tell.
    """
    frame = pixels[:, :, 0].to(pipe.vae.device, torch.float32)
    strength = float(argument(pipe, "noise_aug_strength"))
    # One draw for every picture, so that a picture has one encoding.
    noise = torch.randn(frame.shape, generator=torch.Generator().manual_seed(0)).to(frame)
    latents = pipe.vae.encode((frame + strength * noise).to(pipe.vae.dtype)).latent_dist.mode()
    rate = float(facts.get("fps") or argument(pipe, "fps"))
    numbers = [rate - 1, float(argument(pipe, "motion_bucket_id")), strength]
    return {
        "encoder_hidden_states": pipe._encode_image(as_image(frame), pipe.device, 1, False),
        "image_latents": latents,
        "added_time_ids": torch.tensor([numbers], dtype=torch.float32),
    }


def no_picture(pipe: Any, defaults: Defaults) -> Conditioning:
    """Zeros stand for no picture, whatever their size."""
    return {"encoder_hidden_states": torch.zeros(1, 1, 1), "image_latents": torch.zeros(1, 1, 1, 1)}


def as_image(frame: Tensor) -> Any:
    """The PIL picture of pixels (1, 3, h, w) in -1..1."""
    from PIL import Image

    levels = ((frame[0].cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).numpy())
