"""Whole tiny pipelines, one for each family that can be trained, as they are saved in a folder and opened again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import diffusers
import torch

from tests.matrix import image_diffusion, image_flow, image_tokens, train_text, video_models
from tests.matrix.parts import quiet, randomised
from tests.tiny import tiny_sd, tiny_sd3, tiny_sdxl_parts

STATISTICS = {"latents_mean": [0.3, -0.4, 0.1, 0.8], "latents_std": [0.6, 1.4, 0.9, 2.0]}


def _second(parts: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{name}_2": part for name, part in parts.items()}


def _with(pipe: Any, **parts: Any) -> Any:
    """The pipeline with further parts, and what follows from them."""
    return quiet(type(pipe)(**pipe.components | parts))


def sd(prediction: str) -> Any:
    pipe = tiny_sd(prediction)
    randomised(pipe.unet)
    return pipe


def sdxl() -> Any:
    parts = tiny_sdxl_parts()
    parts["unet"] = randomised(parts["unet"])  # type: ignore[arg-type]
    return quiet(diffusers.StableDiffusionXLPipeline(**parts, add_watermarker=False))


def sd3() -> Any:
    pipe = tiny_sd3()
    randomised(pipe.transformer)
    return pipe


def flux(distilled: bool = True) -> Any:
    pipe = image_tokens.flux()
    if distilled:
        config = dict(pipe.transformer.config) | {"guidance_embeds": True}
        pipe.transformer = randomised(diffusers.FluxTransformer2DModel.from_config(config))
    return _with(pipe, **train_text.clip(32), **_second(train_text.t5(32)))


def flux2(name: str) -> Any:
    """Three layers of the reader go side by side, counted up to 27 or 30."""
    pipe = image_tokens.flux2(name)
    config = dict(pipe.transformer.config) | {"joint_attention_dim": 48}
    pipe.transformer = randomised(diffusers.Flux2Transformer2DModel.from_config(config))
    template = train_text.PLAIN_CHAT if "Klein" in name else train_text.CHAT_OF_PARTS
    return _with(pipe, **train_text.chat(16, 31, template))


def z_image() -> Any:
    pipe = image_flow.z_image()
    config = dict(pipe.transformer.config) | {"axes_lens": [600, 32, 32]}  # places for every token of a caption
    pipe.transformer = randomised(diffusers.ZImageTransformer2DModel.from_config(config))
    return _with(pipe, **train_text.chat(16, 2, head=False))


def lumina2() -> Any:
    pipe = image_flow.lumina2()
    config = dict(pipe.transformer.config) | {"axes_lens": (300, 32, 32)}  # places for every token of a caption
    pipe.transformer = randomised(diffusers.Lumina2Transformer2DModel.from_config(config))
    return _with(pipe, **train_text.gemma(16))


def qwen() -> Any:
    return _with(image_tokens.qwen(), **train_text.qwen(32))


def pixart(name: str = "PixArtSigmaPipeline") -> Any:
    return _with(image_diffusion.pixart(name), **train_text.t5(16))


def sana() -> Any:
    return _with(image_flow.sana(), **train_text.gemma(8))


def wan() -> Any:
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKLWan(base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, **STATISTICS)
    pipe = video_models.wan()
    return _with(pipe, vae=vae.eval(), **train_text.t5(16, "UMT5"))


def ltx() -> Any:
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8, block_out_channels=(8, 8, 8), decoder_block_out_channels=(8, 8, 8),
        down_block_types=("LTXVideoDownBlock3D",) * 3, layers_per_block=(1,) * 4, decoder_layers_per_block=(1,) * 4,
        spatio_temporal_scaling=(True, True, False), decoder_spatio_temporal_scaling=(True, True, False),
        decoder_inject_noise=(False,) * 4, downsample_type=("conv",) * 3, upsample_residual=(False,) * 3,
        upsample_factor=(1,) * 3, patch_size=2, scaling_factor=0.8,
    )  # fmt: skip
    vae.latents_mean.copy_(torch.linspace(-1, 1, 8))
    vae.latents_std.copy_(torch.linspace(0.5, 2, 8))
    return _with(video_models.ltx(), vae=vae.eval(), **train_text.t5(16))


def svd() -> Any:
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    pipe = video_models.svd()
    vision = CLIPVisionConfig(
        hidden_size=16, projection_dim=16, num_hidden_layers=1, num_attention_heads=2, image_size=224, patch_size=56,
        intermediate_size=16,
    )  # fmt: skip
    # Two channels to each of the 32 groups that are normalised: alone, a channel would lose what time adds to it.
    config = dict(pipe.unet.config) | {"block_out_channels": (64, 64)}
    unet = randomised(diffusers.UNetSpatioTemporalConditionModel.from_config(config), 0.1)
    randomised(pipe.vae)
    return _with(
        pipe, unet=unet, image_encoder=CLIPVisionModelWithProjection(vision).eval(),
        feature_extractor=CLIPImageProcessor(crop_size=224, size=224),
    )  # fmt: skip


@dataclass(frozen=True)
class Model:
    """How to build it, its pictures' pixels (h, w) and pixel frames, and a call that does not guide."""

    build: Callable[[], Any]
    size: tuple[int, int] = (64, 96)
    frames: int = 0
    unguided: Mapping[str, Any] = field(default_factory=lambda: {"guidance_scale": 1.0})


NO_BINS = {"guidance_scale": 1.0, "use_resolution_binning": False}

MODELS: dict[str, Model] = {
    "sd": Model(partial(sd, "epsilon")),
    "sd2": Model(partial(sd, "v_prediction")),
    "sdxl": Model(sdxl),
    "sd3": Model(sd3, (32, 48)),
    "flux": Model(flux, (64, 96)),
    "flux-schnell": Model(partial(flux, distilled=False), (64, 96)),
    "flux2": Model(partial(flux2, "Flux2Pipeline"), (64, 96)),
    "flux2-klein": Model(partial(flux2, "Flux2KleinPipeline"), (64, 96)),
    "z-image": Model(z_image, unguided={"guidance_scale": 0.0}),
    "lumina2": Model(lumina2),
    "qwen-image": Model(qwen, (32, 48), unguided={"true_cfg_scale": 1.0}),
    "pixart-alpha": Model(partial(pixart, "PixArtAlphaPipeline"), unguided=NO_BINS),
    "pixart-sigma": Model(pixart, unguided=NO_BINS),
    "sana": Model(sana, unguided=NO_BINS),
    "wan": Model(wan, (32, 48), 5),
    "ltx": Model(ltx, (32, 64), 9),
    "svd": Model(svd, (16, 24), 3, {"min_guidance_scale": 1.0, "max_guidance_scale": 1.0}),
}


@cache
def folder(name: str) -> Path:
    """A tiny model, saved once."""
    path = Path(mkdtemp()) / name
    MODELS[name].build().save_pretrained(path)
    return path


@cache
def opened(name: str) -> Any:
    """The pipeline of `folder`; do not change it."""
    from spectra.models import load_pipeline

    return load_pipeline(str(folder(name)))
