"""How each family's denoiser is called: from plain latents and a scheduler's timestep to a prediction of its target.

A call does what the pipeline does between `scheduler.step` and the denoiser: it packs latents into tokens and says
where they lie, turns the timestep into what the network is told, adds sizes, masks and guidance, and gives the answer
back as plain latents in the sign that the scheduler expects.  Guidance between two answers is left out: the network
is trained on each alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from datasets_cache.families import Conditioning
from datasets_cache.families.text import argument
from spectra.errors import UserError
from spectra.families import PATCHES, family_of

Call = Callable[[Any, Tensor, Tensor, Conditioning], Tensor]
"""(denoiser, noisy (b, c, [t], h, w), timestep (b,), conditioning) -> prediction (b, c, [t], h, w) float32.

The state is `Objective.add_noise`'s, the timestep the scheduler's, the prediction `Objective.target`'s.  The denoiser
is the pipeline's own, which may be wrapped.
"""
Inputs = Callable[[Any, Tensor, Tensor, Conditioning], dict[str, Any]]
"""(pipe, noisy, timestep, conditioning) -> arguments of the denoiser."""

EMBEDDED_GUIDANCE = 1.0
"""What a guidance-distilled network is told in training.

It answers as guided with the scale that it is told.  Pictures are targets of the unguided answer, and 1 is the scale
of that; a larger one would train the guidance away.
"""
EXACT = frozenset(("time_ids", "added_time_ids"))
"""Numbers of pixels and frames, which 16 bits cannot hold; networks embed them in 32."""
TOKENS = "b c (h p) (w q) -> b (h w) (c p q)"
PIXELS = "b c h w -> b (h w) c"
CLIP_TOKENS = "b c t h w -> b (t h w) c"


@dataclass(frozen=True)
class Way:
    """One family's way: what its denoiser is given, and how its answer becomes plain latents."""

    inputs: Inputs
    plain: Callable[[Any, Tensor], Tensor] = lambda answer, noisy: answer
    """(answer, noisy (b, c, [t], h, w)) -> (b, c, [t], h, w)"""


def call_of(pipe: Any) -> Call:
    """The call of a pipeline's family.

    Raises:
        UserError: a pipeline that is not known, or one with two denoisers.
    """
    way, family = _way(pipe), family_of(pipe)
    if getattr(pipe, "transformer_2", None) is not None:
        raise UserError(
            f"this {type(pipe).__name__} has two denoisers, one for each part of the noise levels; "
            "only models with one can be trained"
        )
    network: Any = family.denoiser(pipe)

    def call(denoiser: Any, noisy: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        device, kind = next(network.parameters()).device, network.dtype
        told = {name: value.to(device, None if name in EXACT else kind) for name, value in conditioning.items()}
        inputs = way.inputs(pipe, noisy.to(device, kind), timestep.to(device), told)
        answer = denoiser(**inputs, return_dict=False)[0]
        return family.prediction_sign * way.plain(answer, noisy).float()

    return call


def _way(pipe: Any) -> Way:
    for base in type(pipe).__mro__:
        if base.__name__ in WAYS:
            return WAYS[base.__name__]
    raise UserError(f"it is not known how to train a {type(pipe).__name__}; known pipelines: {', '.join(WAYS)}")


def _unet(pipe: Any, noisy: Tensor, timestep: Tensor, told: Conditioning) -> dict[str, Any]:
    return {"sample": noisy, "timestep": timestep, **told}


def _unet_xl(pipe: Any, noisy: Tensor, timestep: Tensor, told: Conditioning) -> dict[str, Any]:
    return {
        "sample": noisy,
        "timestep": timestep,
        "encoder_hidden_states": told["encoder_hidden_states"],
        "added_cond_kwargs": {"text_embeds": told["text_embeds"], "time_ids": told["time_ids"]},
    }


def _transformer(pipe: Any, noisy: Tensor, timestep: Tensor, told: Conditioning) -> dict[str, Any]:
    return {"hidden_states": noisy, "timestep": timestep, **told}


def _flux(pipe: Any, noisy: Tensor, timestep: Tensor, told: Conditioning) -> dict[str, Any]:
    height, width = (side // 2 for side in noisy.shape[-2:])
    words = told["encoder_hidden_states"]
    return {
        "hidden_states": rearrange(noisy, TOKENS, p=2, q=2),
        "timestep": timestep / 1000,
        "guidance": _guidance(pipe, noisy),
        "img_ids": pipe._prepare_latent_image_ids(len(noisy), height, width, noisy.device, noisy.dtype),
        "txt_ids": words.new_zeros(words.shape[1], 3),
        **told,
    }


def _guidance(pipe: Any, noisy: Tensor) -> Tensor | None:
    embeds = pipe.transformer.config.guidance_embeds
    return torch.full((len(noisy),), EMBEDDED_GUIDANCE, device=noisy.device) if embeds else None


def _flux2(pipe: Any, noisy: Tensor, timestep: Tensor, told: Conditioning) -> dict[str, Any]:
    return {
        "hidden_states": rearrange(noisy, PIXELS),
        "timestep": timestep / 1000,
        "guidance": _guidance(pipe, noisy),
        "img_ids": pipe._prepare_latent_ids(noisy).to(noisy.device),
        "txt_ids": pipe._prepare_text_ids(told["encoder_hidden_states"]).to(noisy.device),
        **told,
    }


def _z_image(pipe: Any, noisy: Tensor, timestep: Tensor, told: Conditioning) -> dict[str, Any]:
    """Lists of pictures, which are clips of one frame, and of captions without padding."""
    lengths = told["cap_feats_mask"].bool().sum(1).tolist()
    return {
        "x": list(noisy.unsqueeze(2)),
        "t": (1000 - timestep) / 1000,  # 0 is noise to this network
        "cap_feats": [words[:length] for words, length in zip(told["cap_feats"], lengths, strict=True)],
    }


def _qwen(pipe: Any, noisy: Tensor, timestep: Tensor, told: Conditioning) -> dict[str, Any]:
    height, width = (side // 2 for side in noisy.shape[-2:])
    mask = told["encoder_hidden_states_mask"].bool()
    longest = max(1, int(mask.sum(1).max()))  # tokens after that are padding in every row
    mask = mask[:, :longest]
    return {
        "hidden_states": rearrange(noisy, TOKENS, p=2, q=2),
        "timestep": timestep / 1000,
        "guidance": _guidance(pipe, noisy),
        "img_shapes": [[(1, height, width)]] * len(noisy),
        "encoder_hidden_states": told["encoder_hidden_states"][:, :longest],
        "encoder_hidden_states_mask": None if bool(mask.all()) else mask,
    }


def _lumina2(pipe: Any, noisy: Tensor, timestep: Tensor, told: Conditioning) -> dict[str, Any]:
    return {
        "hidden_states": noisy,
        "timestep": 1 - timestep / pipe.scheduler.config.num_train_timesteps,  # 0 is noise to this network
        "encoder_hidden_states": told["encoder_hidden_states"],
        "encoder_attention_mask": told["encoder_attention_mask"].long(),
    }


def _pixart(pipe: Any, noisy: Tensor, timestep: Tensor, told: Conditioning) -> dict[str, Any]:
    sizes: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
    if pipe.transformer.config.sample_size == 128 and pipe.transformer.use_additional_conditions:
        height, width = (side * pipe.vae_scale_factor for side in noisy.shape[-2:])
        pixels = noisy.new_tensor([[height, width]]).repeat(len(noisy), 1)
        sizes = {"resolution": pixels, "aspect_ratio": noisy.new_full((len(noisy), 1), height / width)}
    return {"hidden_states": noisy, "timestep": timestep, "added_cond_kwargs": sizes, **told}


def _sana(pipe: Any, noisy: Tensor, timestep: Tensor, told: Conditioning) -> dict[str, Any]:
    scale = pipe.transformer.config.timestep_scale
    return {"hidden_states": noisy, "timestep": timestep * scale, **told}


def _wan(pipe: Any, noisy: Tensor, timestep: Tensor, told: Conditioning) -> dict[str, Any]:
    if pipe.config.expand_timesteps:  # Wan 2.2 5B is told the timestep of every patch
        frames, height, width = noisy.shape[-3:]
        timestep = timestep[:, None].expand(-1, frames * (height // 2) * (width // 2))
    return {"hidden_states": noisy, "timestep": timestep, **told}


def _ltx(pipe: Any, noisy: Tensor, timestep: Tensor, told: Conditioning) -> dict[str, Any]:
    frames, height, width = noisy.shape[-3:]
    space, time = pipe.vae_spatial_compression_ratio, pipe.vae_temporal_compression_ratio
    return {
        "hidden_states": rearrange(noisy, CLIP_TOKENS),
        "timestep": timestep,
        "num_frames": frames,
        "height": height,
        "width": width,
        "rope_interpolation_scale": (time / argument(pipe, "frame_rate"), space, space),
        **told,
    }


def _svd(pipe: Any, noisy: Tensor, timestep: Tensor, told: Conditioning) -> dict[str, Any]:
    """The picture stands in the channels of every frame; time is a quarter of log sigma, as the scheduler has it."""
    picture = told["image_latents"][:, None].expand(-1, noisy.shape[2], -1, -1, -1)
    return {
        "sample": torch.cat([rearrange(noisy, "b c t h w -> b t c h w"), picture], dim=2),
        "timestep": timestep,
        "encoder_hidden_states": told["encoder_hidden_states"],
        "added_time_ids": told["added_time_ids"],
    }


def _unpacked(answer: Tensor, noisy: Tensor) -> Tensor:
    height, width = (side // 2 for side in noisy.shape[-2:])
    plain: Tensor = rearrange(answer, PATCHES, h=height, w=width, p=2, q=2)
    return plain


def _spread(answer: Tensor, noisy: Tensor) -> Tensor:
    plain: Tensor = rearrange(answer, "b (h w) c -> b c h w", h=noisy.shape[-2])
    return plain


def _stacked(answer: Sequence[Tensor], noisy: Tensor) -> Tensor:
    return torch.stack(list(answer)).squeeze(2)


def _clip(answer: Tensor, noisy: Tensor) -> Tensor:
    frames, height, width = noisy.shape[-3:]
    plain: Tensor = rearrange(answer, "b (t h w) c -> b c t h w", t=frames, h=height, w=width)
    return plain


def _frames_second(answer: Tensor, noisy: Tensor) -> Tensor:
    plain: Tensor = rearrange(answer, "b t c h w -> b c t h w")
    return plain


def _mean_alone(answer: Tensor, noisy: Tensor) -> Tensor:
    """Networks that predict a variance too keep it in further channels."""
    return answer[:, : noisy.shape[1]]


WAYS: dict[str, Way] = {
    "StableDiffusionPipeline": Way(_unet),
    "StableDiffusionXLPipeline": Way(_unet_xl),
    "StableDiffusion3Pipeline": Way(_transformer),
    "FluxPipeline": Way(_flux, _unpacked),
    "Flux2Pipeline": Way(_flux2, _spread),
    "Flux2KleinPipeline": Way(_flux2, _spread),
    "ZImagePipeline": Way(_z_image, _stacked),
    "Lumina2Pipeline": Way(_lumina2),
    "QwenImagePipeline": Way(_qwen, _unpacked),
    "PixArtAlphaPipeline": Way(_pixart, _mean_alone),
    "PixArtSigmaPipeline": Way(_pixart, _mean_alone),
    "SanaPipeline": Way(_sana, _mean_alone),
    "WanPipeline": Way(_wan),
    "LTXPipeline": Way(_ltx, _clip),
    "StableVideoDiffusionPipeline": Way(_svd, _frames_second),
}
"""By pipeline class; subclasses are found through their bases."""
