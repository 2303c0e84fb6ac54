"""Captions -> what a denoiser is told about them, by each pipeline's own `encode_prompt`.

Each function takes the pipeline, a caption and the arguments that this pipeline has to be called with
(`spectra.models.call_defaults`); everything else is as in a call of the pipeline, `max_sequence_length` included.
Tensors have a batch axis of one. Each function that ends in `_empty` gives what the pipeline itself sets against the
prompt when it guides, which is not always the embedding of an empty prompt.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from diffusers.utils.import_utils import is_bs4_available, is_ftfy_available
from torch import Tensor

Conditioning = dict[str, Tensor]
"""What the denoiser is told beside latent and timestep, by names that the family's call knows."""
Defaults = Mapping[str, Any]


def argument(pipe: Any, name: str, defaults: Defaults | None = None) -> Any:
    """The value of an argument of the pipeline's call that nobody sets."""
    given = defaults or {}
    return given[name] if name in given else inspect.signature(type(pipe).__call__).parameters[name].default


def cleaning(pipe: Any) -> dict[str, bool]:
    """Whether captions are cleaned of markup: where the call does so by itself, and what it needs is installed."""
    known = inspect.signature(type(pipe).__call__).parameters
    if "clean_caption" not in known:
        return {}
    return {"clean_caption": bool(known["clean_caption"].default) and is_bs4_available() and is_ftfy_available()}


def _length(pipe: Any, defaults: Defaults) -> dict[str, Any]:
    return {"max_sequence_length": argument(pipe, "max_sequence_length", defaults)}


def stable_diffusion(pipe: Any, caption: str, defaults: Defaults) -> Conditioning:
    """(1, 77, d)"""
    embeds, _ = pipe.encode_prompt(caption, pipe.device, 1, do_classifier_free_guidance=False)
    return {"encoder_hidden_states": embeds}


def stable_diffusion_xl(pipe: Any, caption: str, defaults: Defaults) -> Conditioning:
    """Both encoders' embeddings (1, 77, d1 + d2) and the pooled one (1, d2)."""
    embeds, _, pooled, _ = pipe.encode_prompt(caption, device=pipe.device, do_classifier_free_guidance=False)
    return {"encoder_hidden_states": embeds, "text_embeds": pooled}


def stable_diffusion_xl_empty(pipe: Any, defaults: Defaults) -> Conditioning:
    """Zeros where the checkpoint says so."""
    empty = stable_diffusion_xl(pipe, "", defaults)
    if not pipe.config.force_zeros_for_empty_prompt:
        return empty
    return {name: torch.zeros_like(value) for name, value in empty.items()}


def stable_diffusion_3(pipe: Any, caption: str, defaults: Defaults) -> Conditioning:
    """CLIP's and T5's embeddings, one after the other; zeros where there is no T5, as the model was trained."""
    embeds, _, pooled, _ = pipe.encode_prompt(
        caption, None, None, device=pipe.device, do_classifier_free_guidance=False, **defaults
    )
    return {"encoder_hidden_states": embeds, "pooled_projections": pooled}


def flux(pipe: Any, caption: str, defaults: Defaults) -> Conditioning:
    """T5's embedding (1, 512, d) and CLIP's pooled one; the places of tokens are zeros, so they are not kept."""
    embeds, pooled, _ = pipe.encode_prompt(caption, device=pipe.device, **_length(pipe, defaults))
    return {"encoder_hidden_states": embeds, "pooled_projections": pooled}


def flux2(pipe: Any, caption: str, defaults: Defaults) -> Conditioning:
    """Three layers of a language model, side by side: (1, 512, 3 d)."""
    embeds, _ = pipe.encode_prompt(caption, device=pipe.device, **_length(pipe, defaults))
    return {"encoder_hidden_states": embeds}


def z_image(pipe: Any, caption: str, defaults: Defaults) -> Conditioning:
    """Embeddings of as many tokens as there are, padded with zeros to the most that the pipeline takes, and a mask."""
    longest = int(argument(pipe, "max_sequence_length", defaults))
    (embeds,), _ = pipe.encode_prompt(
        caption, device=pipe.device, do_classifier_free_guidance=False, max_sequence_length=longest
    )
    missing = longest - len(embeds)
    return {
        "cap_feats": torch.nn.functional.pad(embeds[None], (0, 0, 0, missing)),
        "cap_feats_mask": torch.nn.functional.pad(torch.ones(1, len(embeds), device=embeds.device), (0, missing)),
    }


def qwen(pipe: Any, caption: str, defaults: Defaults) -> Conditioning:
    """Embeddings of as many tokens as there are, padded with zeros to the most that the pipeline takes, and a mask."""
    longest = int(argument(pipe, "max_sequence_length", defaults))
    embeds, mask = pipe.encode_prompt(caption, device=pipe.device, max_sequence_length=longest)
    mask = torch.ones(embeds.shape[:2], device=embeds.device) if mask is None else mask
    missing = longest - embeds.shape[1]
    return {
        "encoder_hidden_states": torch.nn.functional.pad(embeds, (0, 0, 0, missing)),
        "encoder_hidden_states_mask": torch.nn.functional.pad(mask.float(), (0, missing)),
    }


def masked(pipe: Any, caption: str, defaults: Defaults) -> Conditioning:
    """Embeddings of a fixed length and a mask: LTX, PixArt, Lumina 2."""
    embeds, mask, _, _ = pipe.encode_prompt(
        caption, do_classifier_free_guidance=False, device=pipe.device, **_length(pipe, defaults), **cleaning(pipe)
    )
    return {"encoder_hidden_states": embeds, "encoder_attention_mask": mask}


def masked_empty(pipe: Any, defaults: Defaults) -> Conditioning:
    """The negative prompt of a call without one: Lumina 2 puts its system prompt before prompts alone."""
    _, _, embeds, mask = pipe.encode_prompt(
        "", do_classifier_free_guidance=True, device=pipe.device, **_length(pipe, defaults)
    )
    return {"encoder_hidden_states": embeds, "encoder_attention_mask": mask}


def sana(pipe: Any, caption: str, defaults: Defaults) -> Conditioning:
    """The caption after the instruction with which Sana's language model is asked to improve it."""
    embeds, mask, _, _ = pipe.encode_prompt(
        caption,
        do_classifier_free_guidance=False,
        device=pipe.device,
        complex_human_instruction=argument(pipe, "complex_human_instruction", defaults),
        **_length(pipe, defaults),
    )
    return {"encoder_hidden_states": embeds, "encoder_attention_mask": mask}


def wan(pipe: Any, caption: str, defaults: Defaults) -> Conditioning:
    """UMT5's embedding (1, 512, d), zeros after the last token."""
    embeds, _ = pipe.encode_prompt(
        caption, do_classifier_free_guidance=False, device=pipe.device, **_length(pipe, defaults)
    )
    return {"encoder_hidden_states": embeds}


def no_text(pipe: Any, caption: str, defaults: Defaults) -> Conditioning:
    """Stable Video Diffusion reads no captions."""
    return {}
