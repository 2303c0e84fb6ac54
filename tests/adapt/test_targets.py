"""Adapters reach every layer that a style needs, and the same ones for every method."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from diffusers import SD3Transformer2DModel, UNet2DConditionModel
from torch import nn

from adapt.config import TrainConfig
from adapt.fera import FeraConfig, coverage
from adapt.fera.layer import layer_class
from adapt.methods import METHODS
from adapt.targets import TARGETS, default_targets, matched, resolve_targets
from spectra.errors import UserError
from tests.matrix import image_diffusion, image_flow, image_tokens, video_models
from tests.tiny import tiny_sd, tiny_sd3

CONDITIONS = re.compile(
    r"time|adaln|adaLN|caption|context_embedder|text_embedder|text_proj|text_embeddings|cap_embedder|txt_in|_mod\."
    r"|modulation|distilled_guidance|t_embedder|add_embedding|encoder_hid_proj"
    r"|norm\d?(_context)?\.linear|norm_out\.linear"
)
"""Conditioning on time and text: embeddings and the projections that modulate."""

BUILDERS: dict[str, Callable[[], Any]] = {
    "sd": lambda: tiny_sd().unet,
    "sd3": lambda: tiny_sd3().transformer,
    "sdxl": lambda: image_diffusion.sdxl().unet,
    "kandinsky 2.2": lambda: image_diffusion.kandinsky22().unet,
    "pixart": lambda: image_diffusion.pixart().transformer,
    "hunyuan-dit": lambda: image_diffusion.hunyuan_dit().transformer,
    "cogview3": lambda: image_diffusion.cogview3().transformer,
    "cogview4": lambda: image_flow.cogview4().transformer,
    "z-image": lambda: image_flow.z_image().transformer,
    "lumina2": lambda: image_flow.lumina2().transformer,
    "auraflow": lambda: image_flow.aura_flow().transformer,
    "sana": lambda: image_flow.sana().transformer,
    "flux": lambda: image_tokens.flux().transformer,
    "chroma": lambda: image_tokens.chroma().transformer,
    "flux2": lambda: image_tokens.flux2().transformer,
    "qwen-image": lambda: image_tokens.qwen().transformer,
    "bria": lambda: image_tokens.bria().transformer,
    "ovis": lambda: image_tokens.ovis().transformer,
    "wan": lambda: video_models.wan().transformer,
    "wan from pictures": lambda: video_models.wan_image().transformer,
    "skyreels": lambda: video_models.skyreels().transformer,
    "svd": lambda: video_models.svd().unet,
    "ltx": lambda: video_models.ltx().transformer,
    "hunyuan-video": lambda: video_models.hunyuan().transformer,
    "cogvideox": lambda: video_models.cogvideox(diffusers.CogVideoXDDIMScheduler).transformer,
    "mochi": lambda: video_models.mochi().transformer,
    "latte": lambda: video_models.latte().transformer,
    "allegro": lambda: video_models.allegro().transformer,
    "animatediff": lambda: video_models.animatediff().unet,
    "cosmos": lambda: video_models.cosmos().transformer,
    "sana-video": lambda: video_models.sana().transformer,
}


def reached(denoiser: nn.Module, preset: str = "default") -> set[str]:
    return {name for target in default_targets(denoiser, preset) for name in matched(denoiser, target)}


def in_a_block(name: str) -> bool:
    return re.search(r"blocks?\.|layers\.|refiner", name) is not None and "distilled" not in name


@pytest.mark.parametrize("family", BUILDERS)
def test_every_layer_is_reached_but_those_that_embed_the_conditions(family: str) -> None:
    """And with them at least six tenths of the parameters of the blocks."""
    denoiser = BUILDERS[family]()
    layers = reached(denoiser)
    for name, module in denoiser.named_modules():
        if layer_class(module) is not None and name not in layers:
            assert CONDITIONS.search(name), name
        assert not (name in layers and "norm" in name and in_a_block(name)), name
    sizes = {name: p.numel() for name, p in denoiser.named_parameters() if in_a_block(name)}
    covered = sum(size for name, size in sizes.items() if name.rpartition(".")[0] in layers)
    assert covered >= 0.6 * sum(sizes.values())


@pytest.mark.parametrize("family", BUILDERS)
def test_the_attention_preset_reaches_attention_alone_with_the_context_projections(family: str) -> None:
    denoiser = BUILDERS[family]()
    layers = reached(denoiser, "attention")
    assert layers < reached(denoiser)
    assert all(re.search(r"\.(attn\d?|attention|self_attention|cross_attention|attentions\.\d+)\.", n) for n in layers)
    joint = {name for name, _ in denoiser.named_modules() if re.search(r"\.(add_[qkv]_proj|to_add_out)$", name)}
    assert {name for name in joint if layer_class(denoiser.get_submodule(name)) is not None} <= layers


@pytest.mark.parametrize("family", ["sd", "sd3", "flux2", "svd", "wan", "z-image"])
def test_fera_attaches_to_exactly_these_layers(family: str) -> None:
    from peft import inject_adapter_in_model

    denoiser = BUILDERS[family]()
    expected = reached(denoiser)
    config = FeraConfig(r=1, target_modules=default_targets(denoiser), grid=(8, 8))
    inject_adapter_in_model(config, denoiser)
    assert {n for n, m in denoiser.named_modules() if hasattr(m, "base_layer")} == expected
    assert coverage(denoiser).share > 0.1


@pytest.mark.parametrize("denoiser", [tiny_sd().unet, tiny_sd3().transformer], ids=lambda d: type(d).__name__)
@pytest.mark.parametrize("method", ["fera", "lora"])
def test_every_method_adapts_the_same_layers(denoiser: Any, method: str) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer

    names = default_targets(denoiser)
    expected = {name for ending in names for name in matched(denoiser, ending)}
    fresh = type(denoiser).from_config(denoiser.config)
    METHODS[method].attach(fresh, TrainConfig(model="m", data="d", out="o", method=method), names, None)
    layers = {
        name for name, part in fresh.named_modules() if isinstance(part, BaseTunerLayer) and hasattr(part, "base_layer")
    }
    assert layers == expected
    assert all("fera" in name or "lora" in name for name, p in fresh.named_parameters() if p.requires_grad)


def test_the_names_fit_the_public_architectures() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, layers_per_block=1)
        transformer = SD3Transformer2DModel(
            num_layers=2, num_attention_heads=2, attention_head_dim=8, caption_projection_dim=16
        )
    missing = {"add_k_proj", "add_v_proj"}  # of Kandinsky 2.2
    assert default_targets(unet) == [t for t in TARGETS["UNet2DConditionModel"].all if t not in missing]
    assert default_targets(transformer) == list(TARGETS["SD3Transformer2DModel"].all)


def test_a_preset_can_be_asked_for_by_name() -> None:
    unet = tiny_sd().unet
    assert resolve_targets(unet, None) == resolve_targets(unet, ["default"]) == default_targets(unet)
    assert resolve_targets(unet, ["attention"]) == ["to_q", "to_k", "to_v", "to_out.0"]


def test_a_star_stands_for_one_part_of_a_name() -> None:
    unet = tiny_sd().unet
    assert resolve_targets(unet, ["up_blocks.1.resnets.*.conv1"]) == [
        "up_blocks.1.resnets.0.conv1",
        "up_blocks.1.resnets.1.conv1",
    ]
    assert matched(unet, "up_blocks.*.conv1") == []
    assert matched(unet, "attn*.to_q") == matched(unet, "to_q")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["to_q", "to_k_proj"], r"'to_k_proj' matches no module .*nearest names are .*add_k_proj"),
        (["attn"], "attn, a Attention"),
        (["transformer_blocks.*.attn.*"], "a ModuleList"),
        (["attention", "default"], "'attention' matches no module"),
    ],
)
def test_a_target_that_matches_no_layer_is_an_error_with_the_nearest_names(asked: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        resolve_targets(tiny_sd3().transformer, asked)


def test_endings_are_whole_parts_of_names() -> None:
    unet = tiny_sd().unet
    assert matched(unet, "onv1") == []
    assert all(name.split(".")[-1] == "conv1" for name in matched(unet, "conv1"))


def test_an_unknown_denoiser_asks_for_targets_and_names_its_layers() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.ModuleDict({"mix": nn.Linear(2, 2)}) for _ in range(2)])
            self.out = nn.Sequential(nn.Linear(2, 2))

    with pytest.raises(UserError, match=r"for a Net; name the layers to adapt as 'targets'.* end in: mix, out\.0"):
        default_targets(Net())
    with pytest.raises(UserError, match="lacks the layers"):
        default_targets(type("UNet2DConditionModel", (nn.Module,), {})())
