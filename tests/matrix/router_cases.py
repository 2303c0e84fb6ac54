"""Tiny pipelines ready to be called: those of the matrix, and some whose denoisers are given more than noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import diffusers
import torch
from PIL import Image
from torch import nn

from spectra.families import family_of
from tests.matrix import images, videos
from tests.matrix.parts import BATCH, embedding, quiet
from tests.tiny import tiny_sd

STEPS = 3


class Start(NamedTuple):
    """A pipeline, the arguments of one call, and the grid of its latents, ([t], h, w)."""

    pipe: Any
    call: dict[str, Any]
    grid: tuple[int, ...]

    @property
    def denoisers(self) -> list[nn.Module]:
        second = getattr(self.pipe, "transformer_2", None)
        return [family_of(self.pipe).denoiser(self.pipe), *([] if second is None else [second])]

    def run(self, steps: int = STEPS) -> None:
        draw = torch.Generator().manual_seed(3)
        self.pipe(**self.call, num_inference_steps=steps, output_type="latent", generator=draw)


def _conditioned(kind: str, channels: int) -> Any:
    """Stable Diffusion with a UNet of more channels."""
    plain = tiny_sd("epsilon")
    config = {key: value for key, value in plain.unet.config.items() if key != "_use_default_values"}
    parts = {name: part for name, part in plain.components.items() if name not in ("unet", "image_encoder")}
    unet = diffusers.UNet2DConditionModel.from_config(config | {"in_channels": channels}).eval()
    return quiet(getattr(diffusers, kind)(unet=unet, requires_safety_checker=False, **parts))


def inpainting() -> Start:
    """Mask and masked picture after the noisy channels."""
    picture = {"image": embedding(BATCH, 3, 64, 96).clamp(0, 1), "mask_image": torch.ones(BATCH, 1, 64, 96)}
    size = {"height": 64, "width": 96, "guidance_scale": 3.0, "latents": embedding(BATCH, 4, 16, 24, seed=11)}
    return Start(_conditioned("StableDiffusionInpaintPipeline", 9), images.WORDS | picture | size, (16, 24))


def instructed() -> Start:
    """A picture after the noisy channels, in three parts of the batch."""
    call = {"image": embedding(BATCH, 3, 64, 96).clamp(0, 1), "guidance_scale": 3.0, "image_guidance_scale": 1.5}
    return Start(_conditioned("StableDiffusionInstructPix2PixPipeline", 8), images.WORDS | call, (16, 24))


def per_token() -> Start:
    """Wan 2.2 of 5 billion parameters tells every token its own timestep."""
    start = of_matrix("wan")
    start.pipe.register_to_config(expand_timesteps=True)
    return start


def referenced() -> Start:
    """FLUX.2 with a picture to follow, whose tokens come after the noisy ones."""
    start = of_matrix("Flux2Pipeline")
    return start._replace(call=start.call | {"image": Image.linear_gradient("L").resize((64, 96)).convert("RGB")})


def of_matrix(name: str) -> Start:
    """The guided call of a picture pipeline, or that of a video pipeline, from given noise."""
    if name in images.CASES:
        picture = images.CASES[name]
        pipe = picture.build()
        latents = picture.given(pipe, picture.noise())
        return Start(pipe, {**picture.call, **picture.size(), **picture.on, "latents": latents}, picture.grid)
    video, pipe = videos.CASES[name], videos.built(name)
    return Start(pipe, {**video.call, "latents": video.pack(pipe, video.noise())}, video.grid)


CONDITIONED: dict[str, Callable[[], Start]] = {
    "inpainting": inpainting,
    "instructed": instructed,
    "wan-per-token": per_token,
    "flux2-referenced": referenced,
}
NAMES = (*images.CASES, *videos.CASES, *CONDITIONED)


def started(name: str) -> Start:
    return CONDITIONED[name]() if name in CONDITIONED else of_matrix(name)
