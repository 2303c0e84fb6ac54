"""Adapters reach every layer that a style needs, and the same ones for every method."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import SD3Transformer2DModel, UNet2DConditionModel
from torch import nn

from adapt.config import TrainConfig
from adapt.methods import METHODS
from adapt.targets import TARGETS, default_targets, matched, resolve_targets
from spectra.errors import UserError
from tests.tiny import tiny_sd, tiny_sd3

LEFT_ALONE = {
    "UNet2DConditionModel": ("time_emb_proj", "time_embedding."),
    "SD3Transformer2DModel": (
        "context_embedder",
        "norm_out.",
        "time_text_embed.",
        "norm1.linear",
        "norm1_context.linear",
    ),
}
"""Conditioning on time and text: embeddings and the projections that modulate."""


def denoisers() -> list[Any]:
    return [tiny_sd().unet, tiny_sd3().transformer]


@pytest.mark.parametrize("denoiser", denoisers(), ids=lambda denoiser: type(denoiser).__name__)
def test_every_layer_is_reached_but_those_that_embed_the_conditions(denoiser: nn.Module) -> None:
    reached = {name for ending in default_targets(denoiser) for name in matched(denoiser, ending)}
    for name, module in denoiser.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and name not in reached:
            assert any(part in name for part in LEFT_ALONE[type(denoiser).__name__]), name
    assert any(isinstance(denoiser.get_submodule(name), nn.Conv2d) for name in reached)


@pytest.mark.parametrize("denoiser", denoisers(), ids=lambda denoiser: type(denoiser).__name__)
def test_every_method_adapts_the_same_layers(denoiser: Any) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer

    names = default_targets(denoiser)
    expected = {name for ending in names for name in matched(denoiser, ending)}
    for method in METHODS:
        fresh = type(denoiser).from_config(denoiser.config)
        METHODS[method].attach(fresh, TrainConfig(model="m", data="d", out="o", method=method), names, None)
        layers = {
            name
            for name, part in fresh.named_modules()
            if isinstance(part, BaseTunerLayer) and hasattr(part, "base_layer")
        }
        assert layers == expected, method
        assert all("fera" in name or "lora" in name for name, p in fresh.named_parameters() if p.requires_grad)


def test_the_names_fit_the_public_architectures() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, layers_per_block=1)
        transformer = SD3Transformer2DModel(
            num_layers=2, num_attention_heads=2, attention_head_dim=8, caption_projection_dim=16
        )
    assert default_targets(unet) == list(TARGETS["UNet2DConditionModel"])
    assert default_targets(transformer) == list(TARGETS["SD3Transformer2DModel"])


def test_a_target_that_matches_nothing_is_an_error_with_the_nearest_names() -> None:
    with pytest.raises(UserError, match=r"'to_k_proj' matches no Linear .* near it: .*add_k_proj"):
        resolve_targets(tiny_sd3().transformer, ["to_q", "to_k_proj"])


def test_endings_are_whole_parts_of_names() -> None:
    unet = tiny_sd().unet
    assert matched(unet, "onv1") == []
    assert all(name.split(".")[-1] == "conv1" for name in matched(unet, "conv1"))


def test_an_unknown_denoiser_asks_for_targets() -> None:
    with pytest.raises(UserError, match="name the layers to adapt as 'targets'"):
        default_targets(nn.Linear(2, 2))
    with pytest.raises(UserError, match="lacks the layers"):
        default_targets(type("UNet2DConditionModel", (nn.Module,), {})())
