"""Digests of everything that decides an encoding: the cache is asked by them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from operator import itemgetter
from typing import Any

import torch
from diffusers.utils.import_utils import is_ftfy_available
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from datasets_cache.families.registry import encoding_family
from datasets_cache.families.text import cleaning
from spectra.families import family_of
from spectra.identity import base_weights, settings

BASE = "base_layer"
"""What an adapter's layer calls the one that it is around."""
ARGUMENTS = ("max_sequence_length", "complex_human_instruction", "text_encoder_out_layers")
"""Arguments of a pipeline's call that decide embeddings, by the values that nobody sets."""
WORDS = ("system_prompt", "system_message", "prompt_template_encode", "prompt_template_encode_start_idx")
"""What pipelines put around a prompt, where it is an attribute of theirs."""


def vae_identity(pipe: Any) -> str:
    """Digest of everything that decides the latent of a picture and what the denoiser is told of it."""
    known = encoding_family(pipe)
    told = known.picture.__name__ if known.picture else None
    parts = [_part_digest(getattr(pipe, name, None)) for name in known.picture_parts]
    return _digest([_part_digest(pipe.vae), family_of(pipe).denormalise, known.vae, told, *parts])


def text_identity(pipe: Any, defaults: Mapping[str, Any]) -> str:
    """Digest of everything that decides an embedding: text encoders, tokenizers, words around a prompt, arguments."""
    parts = [_part_digest(getattr(pipe, name, None)) for name in encoding_family(pipe).text_parts]
    known = inspect.signature(type(pipe).__call__).parameters
    told = {name: known[name].default for name in ARGUMENTS if name in known}
    told |= {name: getattr(pipe, name) for name in WORDS if hasattr(pipe, name)}
    return _digest([type(pipe).__name__, told | dict(defaults) | cleaning(pipe), is_ftfy_available(), *parts])


def _part_digest(part: Any) -> str | None:
    if part is None:
        return None
    if isinstance(part, nn.Module):
        return _module_digest(part)
    template = getattr(part, "chat_template", None)
    if hasattr(part, "get_vocab"):
        return _digest(
            [type(part).__name__, part.model_max_length, part.get_vocab(), part.special_tokens_map, template]
        )
    # What prepares pictures for an encoder, or texts by a tokenizer inside.
    return _digest([type(part).__name__, part.to_dict(), template, _part_digest(getattr(part, "tokenizer", None))])


def _module_digest(module: nn.Module) -> str:
    """Digest of class, precision, configuration and weights of a network, and of what changes its answers besides."""
    kind = str(next(module.parameters()).dtype)
    about = [type(module).__name__, kind, settings(module), *_tiles(module), *_adapters(module)]
    digest = sha256(_digest(about).encode())
    _add_weights(digest, base_weights(module))
    return digest.hexdigest()


def _tiles(module: nn.Module) -> list[Any]:
    """The tiles in which an autoencoder works, if it does: at their seams latents differ."""
    if not getattr(module, "use_tiling", False):
        return []
    return [{name: value for name, value in vars(module).items() if name.startswith("tile_")}]


def _adapters(module: nn.Module) -> list[Any]:
    """The adapters in use within a network, which `base_weights` leaves out."""
    parts = {name: part for name, part in module.named_modules() if isinstance(part, BaseTunerLayer)}
    used = {name: part for name, part in parts.items() if part.active_adapters and not part.disable_adapters}
    return [[name, part.active_adapters, getattr(part, "scaling", None), _own(part)] for name, part in used.items()]


def _own(layer: Any) -> str:
    """Digest of an adapter layer's weights, those of the layer inside left out."""
    digest, inside = sha256(), f"{BASE}."
    _add_weights(digest, ((name, value) for name, value in layer.state_dict().items() if not name.startswith(inside)))
    return digest.hexdigest()


def _add_weights(digest: Any, weights: Iterable[tuple[str, Tensor]]) -> None:
    for name, value in sorted(weights, key=itemgetter(0)):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())


def _digest(parts: object) -> str:
    return sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
