"""Tiny random CLIP and DINO models as folders of transformers, with processors of the Pillow kind."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    BitImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2Model,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

from tests.tiny import text_config, tokenizer

SIZE: dict[str, Any] = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}
BODY: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32}


@cache
def clip_folder() -> Path:
    torch.manual_seed(1)
    folder = Path(tempfile.mkdtemp(prefix="clip-"))
    vision = CLIPVisionConfig(**BODY, intermediate_size=48, patch_size=8, projection_dim=20)
    config = CLIPConfig(text_config=text_config().to_dict(), vision_config=vision.to_dict(), projection_dim=20)
    CLIPModel(config).save_pretrained(folder)
    CLIPProcessor(CLIPImageProcessorPil(**SIZE), tokenizer()).save_pretrained(folder)
    return folder


@cache
def dino_folder(kind: str = "dinov2") -> Path:
    torch.manual_seed(2)
    folder = Path(tempfile.mkdtemp(prefix=f"{kind}-"))
    if kind == "dinov2":
        Dinov2Model(Dinov2Config(**BODY, patch_size=8, mlp_ratio=2)).save_pretrained(folder)
        BitImageProcessorPil(**SIZE).save_pretrained(folder)
    else:
        ViTModel(ViTConfig(**BODY, patch_size=8, intermediate_size=48), add_pooling_layer=False).save_pretrained(folder)
        ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def pictures(count: int = 5, height: int = 40, width: int = 56, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
