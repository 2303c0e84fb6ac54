"""Calls of the tiny whole pipelines, for two captions or two pictures."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from spectra.models import call_defaults
from tests.matrix.train_models import MODELS, opened

CAPTIONS = ("a dot", "two squares on a line")
STEPS = 3


def first_frames(name: str) -> list[Image.Image]:
    """Two pictures of the model's size, for those that animate pictures."""
    height, width = MODELS[name].size
    drawn = (torch.rand(2, height, width, 3, generator=torch.Generator().manual_seed(5)) * 255).to(torch.uint8)
    return [Image.fromarray(one.numpy()) for one in drawn]


def arguments(name: str) -> dict[str, Any]:
    """A call of the pipeline for two captions, or two pictures."""
    case, noise = MODELS[name], [torch.Generator().manual_seed(0) for _ in CAPTIONS]
    frames = {"num_frames": case.frames} if case.frames else {}
    told = {"image": first_frames(name)} if name == "svd" else {"prompt": list(CAPTIONS)}
    sizes = {"height": case.size[0], "width": case.size[1], **frames}
    own = call_defaults(opened(name))
    return {
        **told,
        **sizes,
        **own,
        **case.unguided,
        "generator": noise,
        "num_inference_steps": STEPS,
        "output_type": "latent",
    }
