"""DINO and DINOv2: vision transformers that learned without captions (Caron et al. 2021, Oquab et al. 2023)."""

from __future__ import annotations

from typing import Any

import torch

from adapt.networks import pretrained
from adapt.networks.network import Features, Network, Pictures
from adapt.networks.resizing import ROUNDED, describe
from adapt.networks.weights import weights_hash

KINDS = {
    "dinov2": "DINOv2",
    "dinov2_with_registers": "DINOv2 with registers",
    "dinov3_vit": "DINOv3",
    "vit": "vision transformer (DINO, where it was trained so)",
}


def open_dino(given: str, device: str | torch.device) -> Network:
    """The class token after the last layer norm, from a folder or a hub id.

    Of transformers' ViT the pooler is left out: DINO's checkpoints have none.
    """
    from transformers import AutoModel

    where = pretrained.place("dino", given)
    config = pretrained.settings_of("dino", where, KINDS)
    processor = pretrained.load_processor(where)
    without = {"add_pooling_layer": False} if config.model_type == "vit" else {}
    model: Any = pretrained.load_weights(AutoModel, where, device, **without)

    @torch.inference_mode()
    def see(images: Pictures) -> Features:
        pixels = pretrained.to_input(processor, images).to(device)
        found: Features = model(pixel_values=pixels).last_hidden_state[:, 0].float().cpu().numpy()
        return found

    return Network(
        name="dino",
        what=f"{KINDS[config.model_type]}, class token after the last layer norm",
        source=pretrained.source_of(where),
        sha256=weights_hash(model),
        size=pretrained.seen_side(processor),
        resize=describe(processor),
        quantisation=ROUNDED,
        dims=config.hidden_size,
        reads_text=False,
        see=see,
    )
