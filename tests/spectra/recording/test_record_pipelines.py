"""Pipelines of every make: compiled, offloaded, in half precision, with pictures, controls and adapters, modular."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

import spectra
from spectra.record import record
from tests.spectra.witness import ALL, BANK, CALL, Witness, energies, scipy_energies, seeded
from tests.tiny import tiny_controlnet, tiny_sd, tiny_sd3, tiny_sdxl_parts

PICTURE = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
GUIDED = ("latent", "x0", "guidance")


def recorded(pipe: Any, store: Path, signals: tuple[str, ...] = ("latent", "x0"), **call: Any) -> Any:
    """The cube of one call, whose latents are those that the scheduler saw and the pipeline gave."""
    witness = Witness(pipe)
    with record(pipe, store, bank=BANK, signals=signals):
        end = pipe(**{"generator": seeded(1)[0], **CALL, **call}).images
    cube = spectra.open_cube(store)
    expected = np.stack([scipy_energies(x.float()) for x in (*witness.states, end)], 1)
    np.testing.assert_allclose(energies(cube, "latent"), expected, rtol=1e-4)
    return cube


def test_a_compiled_denoiser_is_recorded_as_the_plain_one(tmp_path: Path) -> None:
    plain, compiled = tiny_sd3(), tiny_sd3()
    compiled.transformer = torch.compile(compiled.transformer, backend="eager")
    one = recorded(plain, tmp_path / "1.zarr", GUIDED, prompt="a", guidance_scale=3.0)
    two = recorded(compiled, tmp_path / "2.zarr", GUIDED, prompt="a", guidance_scale=3.0)
    np.testing.assert_allclose(one.energy, two.energy, rtol=1e-3)
    assert one.attrs["model_hash"] == two.attrs["model_hash"]
    assert set(two["split"].values) == {""}


def test_weights_that_are_elsewhere_until_they_are_needed_change_nothing(tmp_path: Path) -> None:
    import accelerate

    plain, offloaded = tiny_sd(), tiny_sd()
    accelerate.cpu_offload(offloaded.unet, execution_device=torch.device("cpu"))
    assert next(offloaded.unet.parameters()).is_meta
    one = recorded(plain, tmp_path / "1.zarr", GUIDED, prompt="a", guidance_scale=3.0)
    two = recorded(offloaded, tmp_path / "2.zarr", GUIDED, prompt="a", guidance_scale=3.0)
    np.testing.assert_array_equal(one.energy, two.energy)
    assert one.attrs["model_hash"] == two.attrs["model_hash"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("make", [tiny_sd, tiny_sd3])
def test_half_precision_is_recorded_with_its_split(make: Any, dtype: torch.dtype, tmp_path: Path) -> None:
    pipe = make().to(dtype)
    cube = recorded(pipe, tmp_path / "c.zarr", GUIDED, prompt="a", guidance_scale=3.0)
    assert cube.attrs["dtype"] == str(dtype).removeprefix("torch.")
    assert set(cube["split"].values) == {""}
    assert np.isfinite(cube.energy.isel(step=slice(-1))).all()


def test_prompts_times_images_are_that_many_runs_in_order(tmp_path: Path) -> None:
    cube = recorded(
        tiny_sd(), tmp_path / "c.zarr", GUIDED, prompt=["a", "b"], num_images_per_prompt=2, guidance_scale=3.0,
        generator=seeded(1, 2, 1, 2),
    )  # fmt: skip
    assert cube.prompt.values.tolist() == ["a", "a", "b", "b"]
    noise = cube.energy.sel(signal="latent").isel(step=0)
    np.testing.assert_allclose(noise[0], noise[2], rtol=1e-5)
    guidance = cube.energy.sel(signal="guidance").isel(step=0)
    assert not np.allclose(guidance[0], guidance[2], rtol=1e-3)  # the same noise under another prompt


def test_pictures_that_are_changed_start_where_their_strength_says(tmp_path: Path) -> None:
    pipe = diffusers.StableDiffusionImg2ImgPipeline(**tiny_sd().components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    cube = recorded(pipe, tmp_path / "c.zarr", GUIDED, prompt="a", image=PICTURE, strength=0.5, guidance_scale=3.0)
    assert cube.sizes["step"] == 3
    assert cube.attrs["num_inference_steps"] == "4"
    assert set(cube["split"].values) == {""}


def test_inpainting_is_recorded(tmp_path: Path) -> None:
    pipe = diffusers.StableDiffusionInpaintPipeline(**tiny_sd().components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 32:] = 1
    cube = recorded(
        pipe, tmp_path / "c.zarr", GUIDED, prompt="a", image=PICTURE, mask_image=mask, strength=1.0, guidance_scale=3.0
    )
    assert cube.sizes["step"] == 5
    assert set(cube["split"].values) == {""}


def test_controlled_generation_is_recorded_and_its_model_is_another(tmp_path: Path) -> None:
    plain = tiny_sd()
    cube = recorded(tiny_controlnet(plain), tmp_path / "1.zarr", GUIDED, prompt="a", image=PICTURE, guidance_scale=3.0)
    assert set(cube["split"].values) == {""}
    assert cube.attrs["model_hash"] != recorded(plain, tmp_path / "2.zarr", prompt="a").attrs["model_hash"]


def test_modular_pipelines_are_recorded_with_what_their_guider_does(tmp_path: Path) -> None:
    pipe = diffusers.StableDiffusionXLAutoBlocks().init_pipeline()
    pipe.update_components(**tiny_sdxl_parts())
    call = {"num_inference_steps": 3, "height": 64, "width": 64, "output_type": "latent", "output": "latents"}
    plain = pipe(prompt=["a", "b"], generator=seeded(1, 2), **call)
    with record(pipe, tmp_path / "c.zarr", bank=BANK, signals=GUIDED):
        watched = pipe(prompt=["a", "b"], generator=seeded(1, 2), **call)
    assert torch.equal(plain, watched)
    cube = spectra.open_cube(tmp_path / "c.zarr")
    np.testing.assert_allclose(energies(cube, "latent")[:, -1], scipy_energies(watched), rtol=1e-4)
    assert cube.attrs["family"] == "sdxl"
    assert cube.prompt.values.tolist() == ["a", "b"]
    assert cube.seed.values.tolist() == [1, 2]
    assert cube.guidance_scale.values.tolist() == [pipe.guider.guidance_scale] * 2
    assert set(cube["split"].values) == {""}
    assert set(cube.guidance_rule.values) == {"cfg"}
    assert (cube.energy.sel(signal="guidance").isel(step=slice(-1)).sum(("channel", "band")) > 0).all()


def adapted(change: Callable[[Any], None] = lambda unet: None) -> Any:
    from peft import LoraConfig

    pipe = tiny_sd()
    torch.manual_seed(0)
    pipe.unet.add_adapter(LoraConfig(r=2, lora_alpha=4, target_modules=["to_q"]), adapter_name="style")
    for name, weight in pipe.unet.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    change(pipe.unet)
    return pipe


def details(cube: Any) -> list[list[dict[str, Any]]]:
    return [json.loads(text) if text else [] for text in cube.adapter_detail.values]


def test_adapters_are_described_by_name_scale_and_content(tmp_path: Path) -> None:
    pipe = adapted()
    with record(pipe, tmp_path / "c.zarr"):
        pipe("a", **CALL)
        pipe("a", **CALL)
        with torch.no_grad():
            next(w for name, w in pipe.unet.named_parameters() if "lora_B" in name).add_(1)
        pipe("a", **CALL)
        pipe.unet.disable_adapters()
        pipe("a", **CALL)
    cube = spectra.open_cube(tmp_path / "c.zarr")
    first, second, trained, off = details(cube)
    assert [(one["network"], one["name"], one["scale"]) for one in first] == [("unet", "style", 2.0)]
    assert first == second
    assert trained[0]["hash"] != first[0]["hash"]
    assert len(first[0]["hash"]) == 32
    assert off == []
    assert cube.adapter.values.tolist() == ["style", "style", "style", ""]


@pytest.mark.parametrize("scale", [0.5, 0.0])
def test_the_scale_that_a_call_gives_its_adapters_is_recorded(scale: float, tmp_path: Path) -> None:
    pipe, seen = adapted(), set()
    layer = next(module for module in pipe.unet.modules() if hasattr(module, "lora_A"))
    layer.lora_A["style"].register_forward_hook(lambda module, args, out: seen.add(layer.scaling["style"]))
    with record(pipe, tmp_path / "c.zarr"):
        pipe("a", cross_attention_kwargs={"scale": scale}, **CALL)
    assert [one["scale"] for one in details(spectra.open_cube(tmp_path / "c.zarr"))[0]] == list(seen) == [2.0 * scale]


def test_the_hash_of_an_adapter_is_of_its_values_alone(tmp_path: Path) -> None:
    from spectra.recording.attached import Attached

    same, half = adapted(), adapted(lambda unet: unet.to(torch.bfloat16).to(torch.float32))
    renamed = adapted(lambda unet: unet.set_adapter("style"))
    hashes = [json.loads(Attached(pipe).look()[1])[0]["hash"] for pipe in (adapted(), same, renamed, half)]
    assert hashes[0] == hashes[1] == hashes[2] != hashes[3]


def test_everything_at_once_changes_no_picture(tmp_path: Path) -> None:
    pipe = adapted()
    plain = pipe("a", generator=seeded(1), **CALL | {"guidance_scale": 3.0}).images
    with record(pipe, tmp_path / "c.zarr", signals=(*ALL, *GUIDED[2:], "blocks")):
        watched = pipe("a", generator=seeded(1), **CALL | {"guidance_scale": 3.0}).images
    assert torch.equal(plain, watched)
