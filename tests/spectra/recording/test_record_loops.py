"""Sampling loops that are written by hand."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

import spectra
from spectra.errors import UserError
from spectra.record import record
from tests.spectra.witness import BANK, energies, scipy_energies, seeded
from tests.tiny import tiny_sd, tiny_sd3

SIGMAS = [10.0, 3.0, 1.0, 0.0]
EXPLICIT = {"space": "ve", "prediction_type": "sample"}


class Denoiser(torch.nn.Module):
    """D(x, sigma) of white Gaussian data, with a weight so that it has a hash."""

    def __init__(self) -> None:
        super().__init__()
        self.variance = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        return x * self.variance / (self.variance + sigma**2)


def noise(*seeds: int) -> torch.Tensor:
    return torch.cat([torch.randn(1, 4, 16, 16, generator=generator) for generator in seeded(*seeds)])


def test_a_loop_around_the_schedulers_step_is_heard(tmp_path: Path) -> None:
    pipe, states = tiny_sd3(), [noise(1, 2)]
    pipe.scheduler.set_timesteps(3)
    with record(pipe.scheduler, tmp_path / "c.zarr", bank=BANK) as recorder:
        with recorder.sampling(["a", "b"], seed=[1, 2], guidance_scale=2.0, negative_prompt="n"):
            for t in pipe.scheduler.timesteps:
                states.append(pipe.scheduler.step(states[-1] / 2, t, states[-1]).prev_sample)
        assert recorder.runs == 2
    cube = spectra.open_cube(tmp_path / "c.zarr")
    np.testing.assert_allclose(energies(cube, "latent"), np.stack([scipy_energies(x) for x in states], 1), rtol=1e-4)
    np.testing.assert_allclose(cube.noise_level, pipe.scheduler.sigmas)
    assert cube.prompt.values.tolist() == ["a", "b"]
    assert cube.seed.values.tolist() == [1, 2]
    assert cube.negative_prompt.values.tolist() == ["n", "n"]
    assert cube.guidance_scale.values.tolist() == [2, 2]
    assert cube.attrs["model_hash"] == "unknown"


@torch.no_grad()
def euler(model: Any, x: torch.Tensor, run: Any) -> torch.Tensor:
    """As k-diffusion samples: no scheduler, x = x0 + sigma eps, the model gives x0."""
    for sigma, lower in itertools.pairwise(SIGMAS):
        denoised = model(x, sigma)
        run.observe(x, denoised, noise_level=sigma)
        x = x + (x - denoised) / sigma * (lower - sigma)
    run.finish(x)
    return x


def test_a_loop_without_any_scheduler_is_recorded_by_its_noise_levels(tmp_path: Path) -> None:
    model, start = Denoiser(), 10 * noise(3)
    with record(model, tmp_path / "c.zarr", bank=BANK, signals=("latent", "x0", "eps", "prediction")) as recorder:
        with recorder.sampling("a", seed=3, **EXPLICIT) as run:
            end = euler(model, start, run)
        with recorder.sampling("b", seed=3, **EXPLICIT):
            euler(model, start, recorder)  # the recorder knows which loop is meant
    cube = spectra.open_cube(tmp_path / "c.zarr")
    assert cube.noise_level.values.tolist() == SIGMAS
    assert cube.signal_level.values.tolist() == [1, 1, 1, 1]
    assert cube.timestep.values[:-1].tolist() == SIGMAS[:-1]
    assert cube.attrs["state_space"] == "ve"
    assert len(cube.attrs["model_hash"]) == 32
    np.testing.assert_array_equal(cube.energy[0], cube.energy[1])
    np.testing.assert_allclose(energies(cube, "latent")[:1, 0], scipy_energies(start), rtol=1e-4)
    np.testing.assert_allclose(energies(cube, "latent")[:1, -1], scipy_energies(end), rtol=1e-4)
    np.testing.assert_allclose(energies(cube, "x0")[:1, 0], scipy_energies(start / 101), rtol=1e-4)
    np.testing.assert_allclose(energies(cube, "eps")[:1, 0], scipy_energies(start * (1 - 1 / 101) / 10), rtol=1e-4)
    np.testing.assert_allclose(cube.coherence[0, :-1], 1, atol=1e-5)


def test_levels_may_be_tensors_and_carry_timesteps_of_their_own(tmp_path: Path) -> None:
    model, x = Denoiser(), noise(3)
    with record(model, tmp_path / "c.zarr") as recorder, recorder.sampling("a", space="flow") as run:
        for level in torch.tensor([1.0, 0.5]):
            recorder.observe(x, x / 3, 1000 * level, noise_level=level)
        run.finish(x, noise_level=0.25)
    cube = spectra.open_cube(tmp_path / "c.zarr")
    assert cube.noise_level.values.tolist() == [1, 0.5, 0.25]
    assert cube.timestep.values[:2].tolist() == [1000, 500]
    assert cube.attrs["prediction_type"] == "flow_prediction"


def test_a_scheduler_whose_step_is_not_called_still_tells_the_levels(tmp_path: Path) -> None:
    scheduler, x = diffusers.EulerDiscreteScheduler(), noise(3)
    scheduler.set_timesteps(3)
    with record(scheduler, tmp_path / "c.zarr") as recorder, recorder.sampling("a"):
        for t in scheduler.timesteps:
            recorder.observe(x, x / 2, t)
        recorder.finish(x)
    np.testing.assert_allclose(spectra.open_cube(tmp_path / "c.zarr").noise_level, scheduler.sigmas, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"space": "round"}, "spaces are ve, vp, flow"),
        ({"space": "ve"}, "prediction types epsilon"),
        ({"space": "flow", "prediction_type": "v_prediction"}, "is not known"),
    ],
)
def test_kinds_of_loops_that_are_not_known_are_refused(options: Any, message: str, tmp_path: Path) -> None:
    with (
        record(Denoiser(), tmp_path / "c.zarr") as recorder,
        pytest.raises(UserError, match=message),
        recorder.sampling("a", **options),
    ):
        pytest.fail("the block must not be entered")


def observed(recorder: Any, x: torch.Tensor, level: Any, **kind: Any) -> None:
    """One step that leaves the state as it is."""
    with recorder.sampling(**kind) as run:
        run.observe(x, x, noise_level=level)
        run.finish(x)


@pytest.mark.parametrize(
    ("space", "level"),
    [("vp", 1.5), ("flow", 1.2), ("ve", -1.0), ("ve", float("inf")), ("vp", float("nan")), ("vp", torch.tensor(2.0))],
)
def test_noise_levels_that_no_state_has_are_refused(space: str, level: Any, tmp_path: Path) -> None:
    model, x = Denoiser(), noise(3)
    with (
        record(model, tmp_path / "c.zarr") as recorder,
        pytest.raises(UserError, match=f"noise level of a {space} state"),
    ):
        observed(recorder, x, level, space=space, prediction_type="sample")


def test_levels_repeated_for_each_sample_are_one_and_different_ones_are_refused(tmp_path: Path) -> None:
    model, x = Denoiser(), noise(3, 4)
    with record(model, tmp_path / "c.zarr") as recorder:
        observed(recorder, x, torch.tensor([2.0, 2.0]), **EXPLICIT)
        with pytest.raises(UserError, match="no common noise level"):
            observed(recorder, x, torch.tensor([2.0, 1.0]), **EXPLICIT)
    assert spectra.open_cube(tmp_path / "c.zarr").noise_level.values.tolist() == [2, 0]


def test_a_guidance_rule_does_not_claim_what_was_only_observed(tmp_path: Path) -> None:
    model, x = Denoiser(), noise(3)
    with (
        record(model, tmp_path / "c.zarr", guidance="cfg-zero-star") as recorder,
        pytest.raises(UserError, match="acts on a scheduler's step"),
        recorder.sampling("a", guidance_scale=4.0, **EXPLICIT) as run,
    ):
        run.observe(x, x, noise_level=1.0)


def test_a_loop_is_labelled_by_its_own_arguments_not_by_the_last_call_of_the_pipeline(tmp_path: Path) -> None:
    pipe, x = tiny_sd(), noise(1)
    pipe("a", num_inference_steps=1, guidance_scale=5.0, output_type="latent")
    pipe.scheduler.set_timesteps(2)
    with record(pipe, tmp_path / "c.zarr") as recorder, recorder.sampling("a", seed=1, guidance_scale=1.0):
        for t in pipe.scheduler.timesteps:
            x = pipe.scheduler.step(x / 2, t, x).prev_sample
    assert spectra.open_cube(tmp_path / "c.zarr").guidance_rule.values.tolist() == ["none"]


@pytest.mark.filterwarnings("ignore:nothing was recorded at")
def test_a_loop_that_was_not_told_of_is_refused(tmp_path: Path) -> None:
    model, x = Denoiser(), noise(3)
    with record(model, tmp_path / "c.zarr") as recorder:
        with pytest.raises(UserError, match="observe within"):
            recorder.observe(x, x, noise_level=1.0)
        with (
            pytest.raises(UserError, match=r"call run.observe\(...\) at each step"),
            recorder.sampling("a", **EXPLICIT),
        ):
            pass
        with pytest.raises(UserError, match=r"call run.finish\(x\)"), recorder.sampling("a", **EXPLICIT) as run:
            run.observe(x, x, noise_level=1.0)  # never finished
        with pytest.raises(UserError, match="noise_level="), recorder.sampling("a", **EXPLICIT) as run:
            run.observe(x, x)
        with pytest.raises(UserError, match="space="), recorder.sampling("a"):
            pass
        with pytest.raises(AttributeError), recorder.sampling("a", **EXPLICIT):
            euler(model, x, None)
    assert recorder.runs == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:nothing was recorded at")
def test_a_finished_sample_is_also_missed_where_a_scheduler_is_only_asked_for_levels(tmp_path: Path) -> None:
    scheduler, x = diffusers.EulerDiscreteScheduler(), noise(3)
    scheduler.set_timesteps(3)
    with record(scheduler, tmp_path / "c.zarr") as recorder:
        with pytest.raises(UserError, match=r"call run.finish\(x\)"), recorder.sampling("a") as run:
            run.observe(x, x / 2, scheduler.timesteps[0])
        with pytest.raises(UserError, match="calling step of its scheduler"), recorder.sampling("a"):
            pass


def test_a_loop_outside_of_sampling_is_warned_of(tmp_path: Path) -> None:
    scheduler, x = diffusers.EulerDiscreteScheduler(), noise(3)
    scheduler.set_timesteps(3)
    with (
        pytest.warns(UserWarning, match=r"inside `with recorder.sampling\(...\)`") as said,
        record(scheduler, tmp_path / "c.zarr"),
    ):
        scheduler.step(x / 2, scheduler.timesteps[0], x)
    assert [Path(one.filename) for one in said] == [Path(__file__)]
    assert not list(tmp_path.iterdir())


def test_a_loop_of_another_length_does_not_fit_the_cube(tmp_path: Path) -> None:
    model, x = Denoiser(), noise(3)
    with record(model, tmp_path / "c.zarr") as recorder:
        with recorder.sampling("a", **EXPLICIT) as run:
            euler(model, x, run)
        short = recorder.sampling("a", **EXPLICIT)
        run = short.__enter__()
        run.observe(x, x, noise_level=1.0)
        run.finish(x)
        with pytest.raises(UserError, match="steps was 4, is 2"):
            short.__exit__(None, None, None)


@torch.no_grad()
def test_a_loop_over_the_parts_of_a_pipeline_has_cond_and_uncond(tmp_path: Path) -> None:
    pipe, x = tiny_sd(), noise(1)
    text = pipe.encode_prompt("a", torch.device("cpu"), 1, True)
    pipe.scheduler.set_timesteps(3)
    with (
        record(pipe, tmp_path / "c.zarr", signals=("latent", "guidance")) as recorder,
        recorder.sampling("a", seed=1, guidance_scale=3.0),
    ):
        for t in pipe.scheduler.timesteps:
            uncond, cond = pipe.unet(torch.cat([x, x]), t, torch.cat([text[1], text[0]])).sample.chunk(2)
            x = pipe.scheduler.step(uncond + 3.0 * (cond - uncond), t, x).prev_sample
    cube = spectra.open_cube(tmp_path / "c.zarr")
    assert str(cube["split"].values[0]) == ""
    assert (cube.energy.sel(signal="guidance").isel(step=slice(-1)).sum(("channel", "band")) > 0).all()
