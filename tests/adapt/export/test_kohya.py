"""kohya's files: every key is known to diffusers' reader, and what it reads is the adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.utils import convert_unet_state_dict_to_peft
from safetensors.torch import load_file

from adapt.export.factors import Factors, text_factors
from adapt.export.files import write_file
from adapt.export.kohya import joined, kohya_tensors, stability_name
from adapt.methods import attach_text_encoders
from adapt.methods.text_encoders import clip_encoders
from spectra.errors import UserError
from tests.adapt.export.conftest import PIPES, exported, worst
from tests.adapt.methods.conftest import settings
from tests.tiny import tiny_sd, tiny_sdxl_parts

LARGE_UNET: dict[str, Any] = {
    "sample_size": 128, "block_out_channels": (320, 640, 1280), "layers_per_block": 2, "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20), "transformer_layers_per_block": (1, 2, 10), "use_linear_projection": True,
    "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}  # fmt: skip
"""The shape of SDXL."""
SMALL_UNET: dict[str, Any] = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
"""The shape of SD 1.5."""


@pytest.mark.parametrize(
    ("family", "method"),
    [
        *((family, "lora") for family in ("sd", "sdxl", "flux")),
        ("flux", "fera"),
        *(pytest.param(family, "fera", marks=pytest.mark.slow) for family in ("sd", "sdxl")),
    ],
)
def test_diffusers_reads_the_file_as_the_adapter(tmp_path: Path, family: str, method: str) -> None:
    facts = exported(family, method, "kohya", tmp_path / "out")
    static = exported(family, method, "static-lora", tmp_path / "static")
    assert facts["layers"] == static["layers"]
    for one, other in zip(facts["error"], static["error"], strict=True):
        assert one["of_effect"] == pytest.approx(other["of_effect"], abs=1e-5)
    if method == "lora":
        assert worst(facts) < 1e-5
    tensors = load_file(tmp_path / "out" / facts["file"])
    assert {key.split(".", 1)[1] for key in tensors} == {"lora_down.weight", "lora_up.weight", "alpha"}
    for key, value in tensors.items():
        if key.endswith("alpha"):
            assert value == len(tensors[key.replace("alpha", "lora_down.weight")])


def test_layers_of_different_ranks_are_read_with_their_own_scale(tmp_path: Path) -> None:
    """Of attention layers diffusers reads an alpha that most layers do not have as that of most."""
    pipe = tiny_sd()
    names = [f"down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_{name}" for name in "qkv"]
    draw, shapes = torch.Generator().manual_seed(0), [pipe.unet.get_submodule(name).weight.shape for name in names]
    factors = {
        name: Factors(torch.randn(rank, shape[1], generator=draw), torch.randn(shape[0], rank, generator=draw))
        for name, shape, rank in zip(names, shapes, (3, 5, 5), strict=True)
    }
    write_file(tmp_path / "a.safetensors", kohya_tensors(pipe, pipe.unet, factors, {}), {})
    pipe.load_lora_weights(str(tmp_path), weight_name="a.safetensors", adapter_name="a")
    for name, found in factors.items():
        layer: Any = pipe.unet.get_submodule(name)
        read = layer.scaling["a"] * layer.lora_B["a"].weight @ layer.lora_A["a"].weight
        torch.testing.assert_close(read.detach(), found.delta)


@pytest.mark.slow
def test_dora_becomes_its_nearest_lora(tmp_path: Path) -> None:
    facts = exported("sd", "dora", "kohya", tmp_path / "out", rank=1000)
    assert worst(facts) < 1e-4
    assert "DoRA" in facts["how"]


def test_other_families_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"SD 1.5, SDXL and FLUX.1, not for StableDiffusion3Pipeline"):
        exported("sd3", "lora", "kohya", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_of_a_layer_of_sdxl_are_those_of_stabilitys_network() -> None:
    with torch.device("meta"):
        rename = stability_name(UNet2DConditionModel(**LARGE_UNET))
    known = {
        "conv_in": "input_blocks.0.0",
        "down_blocks.0.resnets.1.conv1": "input_blocks.2.0.in_layers.2",
        "down_blocks.0.downsamplers.0.conv": "input_blocks.3.0.op",
        "down_blocks.1.attentions.0.transformer_blocks.1.norm1": "input_blocks.4.1.transformer_blocks.1.norm1",
        "down_blocks.2.attentions.1.proj_in": "input_blocks.8.1.proj_in",
        "mid_block.resnets.1.conv2": "middle_block.2.out_layers.3",
        "mid_block.attentions.0.proj_out": "middle_block.1.proj_out",
        "up_blocks.0.attentions.2.transformer_blocks.9.ff": "output_blocks.2.1.transformer_blocks.9.ff",
        "up_blocks.0.upsamplers.0.conv": "output_blocks.2.2.conv",
        "up_blocks.2.resnets.2.conv_shortcut": "output_blocks.8.0.skip_connection",
        "conv_out": "out.2",
        "time_embedding.linear_1": "time_embed.0",
    }  # fmt: skip
    assert {name: rename(name) for name in known} == known
    with pytest.raises(UserError, match="no name for the layer strange"):
        rename("strange.layer")


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_every_layer_comes_back_from_diffusers_reader_under_its_own_name(kind: str) -> None:
    """All Linear and Conv2d layers at the real sizes of the networks, with factors of rank one."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**(LARGE_UNET if kind == "sdxl" else SMALL_UNET))
    reader: Any = StableDiffusionXLPipeline if kind == "sdxl" else StableDiffusionPipeline
    factors = _random(unet)
    tensors = kohya_tensors(reader.__new__(reader), unet, factors, {})
    read, alphas = reader.lora_state_dict(dict(tensors), unet_config=unet.config)
    assert alphas is not None
    assert len(read) == 2 * len(factors)
    peft = {key.removeprefix("unet."): value for key, value in convert_unet_state_dict_to_peft(read).items()}
    for name, found in factors.items():
        assert torch.equal(peft[f"{name}.lora_A.weight"], found.down), name
        assert torch.equal(peft[f"{name}.lora_B.weight"], found.up), name


def test_fused_layers_of_flux_come_back_exactly_at_the_real_sizes() -> None:
    with torch.device("meta"):
        flux = FluxTransformer2DModel(num_layers=1, num_single_layers=1)
    names = [name for name in _adaptable(flux) if "transformer_blocks." in name]
    factors = {name: found for name, found in _random(flux, rank=2).items() if name in names}
    pipe = FluxPipeline.__new__(FluxPipeline)
    read = FluxPipeline.lora_state_dict(dict(kohya_tensors(pipe, flux, factors, {})))
    assert len(read) == 2 * len(factors) == 2 * 20
    for name, found in factors.items():
        down, up = (read[f"transformer.{name}.lora_{part}.weight"] for part in "AB")
        assert len(down) == 2  # the block-diagonal up was taken apart again
        torch.testing.assert_close(up[:64] @ down, found.delta[:64])


def test_layers_of_flux_without_an_update_stay_without_one() -> None:
    with torch.device("meta"):
        flux = FluxTransformer2DModel(num_layers=1, num_single_layers=1)
    name = "single_transformer_blocks.0.attn.to_v"
    factors = {name: _random(flux, rank=2)[name]}
    read = FluxPipeline.lora_state_dict(dict(kohya_tensors(FluxPipeline.__new__(FluxPipeline), flux, factors, {})))
    for part in ("attn.to_q", "attn.to_k", "proj_mlp"):
        up, down = (read[f"transformer.single_transformer_blocks.0.{part}.lora_{side}.weight"] for side in "BA")
        assert not (up.abs().sum() and down.abs().sum())
    up, down = (read[f"transformer.{name}.lora_{side}.weight"] for side in "BA")
    torch.testing.assert_close(up[:64] @ down, factors[name].delta[:64])


def test_layers_outside_the_blocks_of_flux_are_refused_because_readers_drop_them() -> None:
    factors = {"x_embedder": Factors(torch.ones(1, 16), torch.ones(32, 1))}
    with pytest.raises(UserError, match="leave x_embedder out of 'targets'"):
        kohya_tensors(PIPES["flux"](), PIPES["flux"]().transformer, factors, {})


def test_joined_factors_are_the_joined_layers() -> None:
    one, other = (Factors(torch.randn(rank, 5), torch.randn(out, rank)) for rank, out in ((2, 3), (1, 4)))
    whole = joined([one, None, other], [3, 2, 4])
    torch.testing.assert_close(whole.delta, torch.cat([one.delta, torch.zeros(2, 5), other.delta]))


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_text_encoders_come_back_too(tmp_path: Path, family: str) -> None:
    make = tiny_sd if family == "sd" else _tiny_sdxl
    pipe = make()
    encoders = attach_text_encoders(pipe, settings("lora", text_encoder=True))
    with torch.no_grad():
        for encoder in encoders.values():
            for p in encoder.parameters():
                if p.requires_grad:
                    p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(0)), alpha=0.3)
        expected = {name: _encoded(encoder) for name, encoder in encoders.items()}
    factors = {"conv_in": Factors(torch.ones(1, 4, 3, 3), torch.ones(16, 1, 1, 1))}
    tensors = kohya_tensors(pipe, pipe.unet, factors, text_factors(pipe))
    write_file(tmp_path / "x.safetensors", tensors, {})
    fresh = make()
    fresh.load_lora_weights(str(tmp_path), weight_name="x.safetensors")
    with torch.no_grad():
        for name, encoder in clip_encoders(fresh).items():
            torch.testing.assert_close(_encoded(encoder), expected[name])


def _tiny_sdxl() -> Any:
    torch.manual_seed(0)
    return StableDiffusionXLPipeline(**tiny_sdxl_parts(), add_watermarker=False)


def _encoded(encoder: Any) -> torch.Tensor:
    ids = torch.arange(10)[None] % encoder.config.vocab_size
    output: torch.Tensor = encoder(ids, output_hidden_states=True).hidden_states[-1]
    return output


def _adaptable(model: torch.nn.Module) -> dict[str, Any]:
    return {name: m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)}


def _random(model: torch.nn.Module, rank: int = 1) -> dict[str, Factors]:
    draw = torch.Generator().manual_seed(0)
    made = {}
    for name, module in _adaptable(model).items():
        out, *into = (int(size) for size in module.weight.shape)
        tail = (1, 1) if into[1:] else ()
        down, up = torch.randn(rank, *into, generator=draw), torch.randn(out, rank, *tail, generator=draw)
        made[name] = Factors(down, up)
    return made
