"""The finished sample is the one that the pipeline goes on with, at the noise level that the last call led to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import diffusers
import numpy as np
import pytest
import torch
from diffusers.callbacks import PipelineCallback

import spectra
from spectra.record import record
from spectra.recording.ending import CALLBACK, WANTED, heard_callback
from tests.spectra.witness import BANK, CALL, energies, scipy_energies, seeded
from tests.tiny import tiny_sd, tiny_sdxl_parts

PICTURE = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)


def ends_with(cube: Any, latents: torch.Tensor) -> None:
    np.testing.assert_allclose(energies(cube, "latent")[:, -1], scipy_energies(latents), rtol=1e-4)


def inpainting() -> Any:
    return diffusers.StableDiffusionInpaintPipeline(**tiny_sd().components, requires_safety_checker=False)


def inpainting_xl() -> Any:
    return diffusers.StableDiffusionXLInpaintPipeline(**tiny_sdxl_parts())


@pytest.mark.parametrize("make", [inpainting, inpainting_xl])
def test_inpainting_ends_with_the_known_part_put_back(make: Callable[[], Any], tmp_path: Path) -> None:
    pipe = make()
    pipe.set_progress_bar_config(disable=True)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 32:] = 1
    call = CALL | {"image": PICTURE, "mask_image": mask, "strength": 1.0, "height": 64, "width": 64}
    plain = pipe("a", generator=seeded(1)[0], **call).images
    with record(pipe, tmp_path / "c.zarr", bank=BANK):
        watched = pipe("a", generator=seeded(1)[0], **call).images
    assert torch.equal(plain, watched)
    ends_with(spectra.open_cube(tmp_path / "c.zarr"), watched)


def test_modular_inpainting_ends_so_too(tmp_path: Path) -> None:
    pipe = diffusers.StableDiffusionXLAutoBlocks().init_pipeline()
    pipe.update_components(**tiny_sdxl_parts())
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 32:] = 1
    call = {"image": PICTURE, "mask_image": mask, "strength": 0.9, "height": 64, "width": 64, "output": "latents"}
    with record(pipe, tmp_path / "c.zarr", bank=BANK):
        end = pipe(prompt="a", generator=seeded(1)[0], num_inference_steps=4, output_type="latent", **call)
    ends_with(spectra.open_cube(tmp_path / "c.zarr"), end)


def test_what_a_callback_makes_of_the_latents_is_the_finished_sample(tmp_path: Path) -> None:
    pipe, seen = tiny_sd(), []

    def double(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append(sorted(tensors))
        return {"latents": 2 * tensors["latents"]}

    with record(pipe, tmp_path / "c.zarr", bank=BANK):
        end = pipe("a", generator=seeded(1), callback_on_step_end=double, **CALL).images
    assert seen == [["latents"]] * 4
    ends_with(spectra.open_cube(tmp_path / "c.zarr"), end)


def test_a_callback_is_given_what_it_asked_for_and_nothing_else(tmp_path: Path) -> None:
    pipe, seen = tiny_sd(), []

    class Embeddings(PipelineCallback):  # type: ignore[misc]
        tensor_inputs: ClassVar = ["prompt_embeds"]

        def callback_fn(self, pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            seen.append(sorted(tensors))
            return tensors

    def plain(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append(sorted(tensors))
        return {}

    with record(pipe, tmp_path / "c.zarr", bank=BANK):
        pipe("a", generator=seeded(1), callback_on_step_end=Embeddings(cutoff_step_ratio=1.0), **CALL)
        pipe("a", generator=seeded(2), callback_on_step_end=plain, callback_on_step_end_tensor_inputs=[], **CALL)
    assert seen == [["prompt_embeds"]] * 4 + [[]] * 4


def test_a_callback_that_answers_nothing_is_left_to_the_pipeline() -> None:
    pipe, heard = SimpleNamespace(_callback_tensor_inputs=["latents"]), []
    silent = {CALLBACK: lambda pipe, step, timestep, tensors: None, WANTED: ["latents"]}
    callback = heard_callback(pipe, silent, silent, heard.append)[CALLBACK]
    assert callback(pipe, 0, 0, {"latents": "x"}) is None
    assert heard == ["x"]


STOPPED: list[tuple[str, dict[str, Any]]] = [
    ("EulerDiscreteScheduler", {}),
    ("DDIMScheduler", {"timestep_spacing": "trailing"}),
    ("DPMSolverMultistepScheduler", {"timestep_spacing": "trailing"}),
    ("HeunDiscreteScheduler", {}),
]


@pytest.mark.parametrize(("name", "options"), STOPPED, ids=lambda value: value if isinstance(value, str) else "")
def test_a_call_that_stops_early_ends_at_the_level_where_another_would_go_on(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    """As SDXL's base model does for the refiner."""
    pipe = diffusers.StableDiffusionXLPipeline(**tiny_sdxl_parts())
    pipe.scheduler = getattr(diffusers, name)(**options)
    pipe.set_progress_bar_config(disable=True)
    call = CALL | {"num_inference_steps": 10, "height": 64, "width": 64}
    cubes = []
    for end in (None, 0.6):
        with record(pipe, tmp_path / f"{end}.zarr", bank=BANK):
            pipe("a", generator=seeded(1), denoising_end=end, **call)
        cubes.append(spectra.open_cube(tmp_path / f"{end}.zarr"))
    whole, part = cubes
    assert 5 < part.sizes["step"] < whole.sizes["step"]
    for level in ("noise_level", "signal_level", "timestep"):
        np.testing.assert_array_equal(part[level], whole[level][: part.sizes["step"]])


def test_a_loop_that_stops_early_ends_at_the_level_that_it_reached(tmp_path: Path) -> None:
    scheduler, x = tiny_sd().scheduler, torch.randn(1, 4, 16, 16)
    scheduler.set_timesteps(10)
    with record(scheduler, tmp_path / "c.zarr", bank=BANK) as recorder, recorder.sampling("a", seed=0):
        for t in scheduler.timesteps[:4]:
            x = scheduler.step(x / 10, t, x).prev_sample
    cube = spectra.open_cube(tmp_path / "c.zarr")
    assert cube.timestep.values.tolist() == [999, 899, 799, 699, 599]
    assert cube.signal_level.values[-1] ** 2 == pytest.approx(float(scheduler.alphas_cumprod[599]))


def test_a_loop_may_say_where_it_ends_even_after_a_single_step(tmp_path: Path) -> None:
    scheduler, x = diffusers.FlowMatchEulerDiscreteScheduler(), torch.randn(1, 4, 16, 16)
    scheduler.set_timesteps(4)
    with record(scheduler, tmp_path / "c.zarr", bank=BANK) as recorder, recorder.sampling("a", seed=0) as run:
        run.finish(scheduler.step(x, scheduler.timesteps[0], x).prev_sample, noise_level=0.7)
    assert spectra.open_cube(tmp_path / "c.zarr").noise_level.values.tolist() == [1, 0.7]
