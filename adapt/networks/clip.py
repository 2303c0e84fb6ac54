"""CLIP: pictures and captions in one space (Radford et al. 2021), by transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from adapt.networks import pretrained
from adapt.networks.network import Features, Network, Pictures
from adapt.networks.resizing import ROUNDED, describe
from adapt.networks.weights import weights_hash

if TYPE_CHECKING:
    from torch import Tensor


def open_clip(given: str, device: str | torch.device) -> Network:
    """CLIP's projected features, before they are brought to length one, from a folder or a hub id."""
    from transformers import CLIPModel

    where = pretrained.place("clip", given)
    config = pretrained.settings_of("clip", where, {"clip": "CLIP"})
    processor = pretrained.load_processor(where)
    tokenizer = pretrained.load_tokenizer(where, config.text_config.vocab_size)
    model: Any = pretrained.load_weights(CLIPModel, where, device)
    longest = model.config.text_config.max_position_embeddings

    @torch.inference_mode()
    def see(images: Pictures) -> Features:
        pixels = pretrained.to_input(processor, images).to(device)
        return _array(model.get_image_features(pixel_values=pixels))

    @torch.inference_mode()
    def read(texts: list[str]) -> Features:
        words = tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt").to(device)
        return _array(model.get_text_features(words["input_ids"], words["attention_mask"]))

    return Network(
        name="clip",
        what="CLIP, projected features of pictures and texts",
        source=pretrained.source_of(where),
        sha256=weights_hash(model),
        size=pretrained.seen_side(processor),
        resize=describe(processor),
        quantisation=ROUNDED,
        dims=model.config.projection_dim,
        reads_text=True,
        see=see,
        read=read,
    )


def _array(output: Any) -> Features:
    """The projected features, which newer versions of transformers put in a slot of a larger output."""
    features: Tensor = output if isinstance(output, torch.Tensor) else output.pooler_output
    found: Features = features.float().cpu().numpy()
    return found
