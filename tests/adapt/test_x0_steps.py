"""What a network foresees of a sample on the way: the same as spectra records, at evenly spread steps."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    StableDiffusionPipeline,
)

import spectra
from adapt.generating import generate, pictures
from adapt.x0_steps import Foreseen, foresee, labelled
from spectra.bands import FilterBank
from spectra.errors import UserError
from spectra.schedulers import SCHEDULERS
from spectra.signals import clean_and_noise
from tests.tiny import tiny_sd, tiny_sd3

SETTINGS: dict[str, Any] = {"steps": 6, "guidance": 3.0}
VP: list[Any] = [DDIMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler, HeunDiscreteScheduler]
FLOW: list[Any] = [FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler]


def piped(scheduler: Any) -> Any:
    pipe = tiny_sd3() if scheduler in FLOW else tiny_sd()
    kept = {} if scheduler in FLOW else {"prediction_type": "v_prediction"}
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config, **kept)
    return pipe


@pytest.mark.parametrize("scheduler", VP + FLOW)
def test_energies_and_levels_are_those_of_a_recording(scheduler: Any, tmp_path: Path) -> None:
    pipe = piped(scheduler)
    found = foresee(pipe, "a ramp", 3, **SETTINGS, count=100)
    bank = FilterBank.octaves(4, (16, 16))
    with spectra.record(pipe, tmp_path / "cube.zarr", bank=bank):
        generate(pipe, ["a ramp"], [3], **SETTINGS)
    cube = spectra.open_cube(tmp_path / "cube.zarr").isel(run=0)
    first = [cube.step.values.tolist().index(step) for step in found.step.tolist()]  # some solvers make two calls
    at = cube.sel(signal="x0").isel(step=first)
    np.testing.assert_allclose(bank.energies(found.latents), at.energy, rtol=1e-4)
    np.testing.assert_allclose(found.noise_level, at.noise_level, rtol=1e-6)
    assert found.step.tolist() == list(range(6))


def test_steps_are_evenly_spread_and_the_first_and_last_are_among_them() -> None:
    pipe = piped(FlowMatchEulerDiscreteScheduler)
    assert foresee(pipe, "a", 0, steps=20, guidance=1.0).step.tolist() == [0, 2, 5, 7, 10, 12, 14, 17, 19]
    assert foresee(pipe, "a", 0, steps=3, guidance=1.0).step.tolist() == [0, 1, 2]
    assert foresee(pipe, "a", 0, steps=1, guidance=1.0).step.tolist() == [0]


def test_steps_that_tell_nothing_in_numbers_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from adapt import x0_steps

    def lost(x: Any, out: Any, level: Any, schedule: Any) -> Any:
        clean, noise = clean_and_noise(x, out, level, schedule)
        return (clean * torch.nan if level.noise > 0.9 else clean), noise

    monkeypatch.setattr(x0_steps, "clean_and_noise", lost)
    found = foresee(piped(FlowMatchEulerDiscreteScheduler), "a", 0, steps=4, guidance=1.0)
    assert found.step.tolist() == [1, 2, 3]
    assert found.latents.isfinite().all()


def test_a_generation_that_breaks_down_is_refused_in_a_sentence() -> None:
    """Predicted noise at zero terminal SNR: x0 = (x - b e) / 0."""
    pipe = tiny_sd("epsilon")
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, rescale_betas_zero_snr=True)
    with pytest.raises(UserError, match="no step of DDIMScheduler tells x0 in finite numbers"):
        foresee(pipe, "a", 0, steps=4, guidance=1.0)


def test_pictures_and_energies_have_names() -> None:
    pipe = piped(FlowMatchEulerDiscreteScheduler)
    one, two = (foresee(pipe, "a", seed, **SETTINGS, count=3) for seed in (0, 1))
    found = labelled(pipe, {"base": one, "adapter": two})
    assert found.x0_image.dims == ("x0_source", "x0_step", "y", "x", "rgb")
    assert found.x0_image.shape == (2, 3, 64, 64, 3)
    assert found.x0_step.values.tolist() == one.step.tolist()
    np.testing.assert_array_equal(found.x0_image.sel(x0_source="adapter"), pictures(pipe, two.latents))
    energy = FilterBank.octaves(4, (16, 16)).energies(two.latents).sum(1)
    np.testing.assert_allclose(found.x0_energy.sel(x0_source="adapter"), energy, rtol=1e-5)


def test_of_clips_the_middle_frame_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    from adapt import x0_steps

    clips = np.arange(2 * 5, dtype=np.uint8).reshape(2, 5, 1, 1, 1) * np.ones((1, 1, 8, 8, 3), np.uint8)
    monkeypatch.setattr(x0_steps, "pictures", lambda pipe, latents: clips)
    latents = torch.randn(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = labelled(None, {"base": Foreseen(torch.tensor([0, 1]), torch.tensor([1.0, 0.5]), latents)})
    assert found.x0_image.values[0, :, 0, 0, 0].tolist() == [2, 7]
    frames = FilterBank.octaves(4, (8, 8)).energies(latents)
    np.testing.assert_allclose(found.x0_energy[0], frames.mean(2).sum(1), rtol=1e-5)


def test_a_scheduler_that_tells_no_x0_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = piped(DDIMScheduler)
    monkeypatch.delitem(SCHEDULERS, "DDIMScheduler")
    with pytest.raises(UserError, match="DDIMScheduler has no known rule for x0"):
        foresee(pipe, "a", 0, **SETTINGS)


def test_a_pipeline_that_steps_a_copy_of_its_scheduler_is_refused_in_a_sentence() -> None:
    class Copying(StableDiffusionPipeline):  # type: ignore[misc]
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            own: Any = self.scheduler  # type: ignore[has-type]
            self.scheduler = copy.deepcopy(own)
            try:
                return super().__call__(*args, **kwargs)
            finally:
                self.scheduler = own

    Copying.__call__.__signature__ = inspect.signature(StableDiffusionPipeline.__call__)  # type: ignore[attr-defined]
    pipe = piped(DDIMScheduler)
    pipe.__class__ = Copying
    with pytest.raises(UserError, match="of a copy"):
        foresee(pipe, "a", 0, **SETTINGS)
