"""Calls and steps of schedulers, levels between steps and at the end, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import spectra
from spectra.errors import UserError
from spectra.schedulers import REFUSED
from spectra.signals import schedule_of
from tests.matrix.driving import (
    ALL,
    BETAS,
    STEPS,
    brownian,
    make,
    random_run,
    schedule_of_set,
)
from tests.tiny import tiny_sd


@pytest.fixture(autouse=True)
def noise(monkeypatch: pytest.MonkeyPatch) -> None:
    brownian(monkeypatch)


COUNTS = {
    "DDIMScheduler": (0, 1, 2, 3, 4),
    "DPMSolverSinglestepScheduler": (0, 1, 2, 3, 4),
    **dict.fromkeys(
        ("HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "DPMSolverSDEScheduler",
         "FlowMatchHeunDiscreteScheduler"),
        (0, 0, 1, 1, 2, 2, 3, 3, 4),
    ),
    "PNDMScheduler": (0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 4),
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTS)
def test_calls_are_counted_to_the_steps_that_were_asked_for(name: str) -> None:
    scheduler = make(name)
    schedule = schedule_of_set(scheduler)
    assert schedule.steps_of(len(scheduler.timesteps)) == COUNTS[name]


def test_the_first_step_without_warm_up_is_corrected_once() -> None:
    scheduler = make("PNDMScheduler", skip_prk_steps=True)
    assert schedule_of_set(scheduler).steps_of(len(scheduler.timesteps)) == (0, 0, 1, 2, 3, 4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", ["KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "DPMSolverSDEScheduler"])
def test_levels_between_steps_are_the_geometric_middle(name: str, kind: str) -> None:
    calls = random_run(make(name, prediction_type=kind, **BETAS))[1]
    noise = [call.level.noise for call in calls]
    assert noise == pytest.approx(sorted(noise, reverse=True), rel=1e-4)
    for i in range(1, len(noise), 2):
        ancestral = noise[i + 1] ** 2 / noise[i - 1]  # where a step goes before it is given noise again
        end = ancestral if "Ancestral" in name else noise[i + 1]
        assert noise[i] == pytest.approx(math.sqrt(noise[i - 1] * end), rel=1e-4)


def test_video_of_stable_diffusion_ends_at_its_own_lowest_noise() -> None:
    options = {"prediction_type": "v_prediction", "timestep_type": "continuous", "sigma_min": 0.002, "sigma_max": 700.0}
    scheduler = make("EulerDiscreteScheduler", use_karras_sigmas=True, final_sigmas_type="zero", **options, **BETAS)
    schedule = schedule_of_set(scheduler)
    levels = [schedule.at(t, i) for i, t in enumerate(scheduler.timesteps)]
    assert [level.noise for level in levels[:: STEPS - 1]] == pytest.approx([700, 0.002], rel=1e-3)
    assert [level.timestep for level in levels] == pytest.approx([0.25 * math.log(level.noise) for level in levels])
    assert schedule.final.noise == 0
    assert math.isnan(schedule.final.timestep)
    scheduler = make("EulerDiscreteScheduler", final_sigmas_type="sigma_min", **options, **BETAS)
    final = schedule_of_set(scheduler).final
    assert final.noise == pytest.approx(0.0292, rel=1e-2)  # of the betas
    assert final.timestep == pytest.approx(0.25 * math.log(final.noise))


def test_mean_velocities_tell_no_clean_sample_but_their_levels() -> None:
    scheduler = make("FlowMapEulerDiscreteScheduler", shift=3.0)
    with pytest.raises(UserError, match="predicts 'mean_velocity' in a flow state"):
        schedule_of_set(scheduler)
    schedule = schedule_of(scheduler, ("latent", "prediction"))
    x0, eps = torch.randn(2, 1, 1, 4, 4, dtype=torch.float64)
    x = eps
    for i, t in enumerate(scheduler.timesteps):
        level = schedule.at(t, i)
        torch.testing.assert_close(x, level.signal * x0 + level.noise * eps)
        x = scheduler.step(eps - x0, t, x, return_dict=False)[0]
    torch.testing.assert_close(x, x0)


@pytest.mark.parametrize("name", ["AmusedScheduler", "HeliosDMDScheduler", "PiflowScheduler", "ScoreSdeVeScheduler"])
def test_what_cannot_be_recorded_is_refused_with_its_reason(name: str) -> None:
    cls: Any = type(name, (), {})
    with pytest.raises(UserError, match=f"{name} .*{REFUSED[name]}, so it cannot be recorded"):
        schedule_of(cls(), ("latent",))


def test_samples_at_different_timesteps_are_refused() -> None:
    schedule = schedule_of_set(make("DDIMScheduler"))
    assert schedule.at(torch.tensor([400, 400]), None) == schedule.at(400, None)
    with pytest.raises(UserError, match="different timesteps"):
        schedule.at(torch.tensor([400, 200]), None)


@pytest.mark.parametrize(
    ("name", "options", "timing", "message"),
    [
        ("FlowMatchLCMScheduler", {"scale_factors": [2.0], "upscale_mode": "nearest"}, {}, "changes the size"),
        ("LTXEulerAncestralRFScheduler", {}, {"sigmas": [1.0, 0.5, 0.0]}, "give num_inference_steps instead"),
        ("EDMEulerScheduler", {"prediction_type": "sample"}, {}, "predicts 'sample', which it cannot step"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(
    name: str, options: dict[str, Any], timing: dict[str, Any], message: str
) -> None:
    scheduler = make(name, **options)
    scheduler.set_timesteps(**(timing or {"num_inference_steps": 3}))
    with pytest.raises(UserError, match=message):
        schedule_of(scheduler, ALL)


CALLED: list[tuple[str, dict[str, Any], tuple[int, ...]]] = [
    ("HeunDiscreteScheduler", {}, (0, 0, 1, 1, 2, 2, 3, 3, 4, 5)),
    ("KDPM2DiscreteScheduler", {}, (0, 0, 1, 1, 2, 2, 3, 3, 4, 5)),
    ("KDPM2AncestralDiscreteScheduler", {"use_karras_sigmas": True}, (0, 0, 1, 1, 2, 2, 3, 3, 4, 5)),
    ("DPMSolverSDEScheduler", {}, (0, 0, 1, 1, 2, 2, 3, 3, 4, 5)),
    ("PNDMScheduler", {}, (0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 4, 5)),
    ("PNDMScheduler", {"skip_prk_steps": True}, (0, 0, 1, 2, 3, 4, 5)),
    *((name, {}, (0, 1, 2, 3, 4, 5))
      for name in ("DPMSolverSinglestepScheduler", "LCMScheduler", "TCDScheduler", "SASolverScheduler",
                   "EulerAncestralDiscreteScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options", "steps"), CALLED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_recording_tells_calls_from_steps_and_ends_at_the_final_level(
    name: str, options: dict[str, Any], steps: tuple[int, ...], tmp_path: Path
) -> None:
    pipe = tiny_sd("epsilon")
    pipe.scheduler = make(name, **BETAS, **options)
    bank = spectra.FilterBank((1.0,))
    with spectra.record(pipe, tmp_path / "c.zarr", bank=bank, signals=ALL):
        end = pipe("a", num_inference_steps=STEPS, guidance_scale=1.0, output_type="latent").images
    cube = spectra.open_cube(tmp_path / "c.zarr")
    schedule = schedule_of(pipe.scheduler, ALL)
    assert tuple(cube["step"].values) == steps
    assert tuple(cube["call"].values) == tuple(range(len(steps)))
    assert cube.noise_level.values[-1] == schedule.final.noise
    assert np.all(np.diff(cube.noise_level.values) < 1e-6)
    last = cube.energy.sel(signal="latent").isel(step=-1).transpose("run", "channel", "band")
    np.testing.assert_allclose(last, bank.energies(end), rtol=1e-4)
    assert np.isfinite(cube.energy.sel(signal=["x0", "eps"]).isel(step=slice(-1))).all()
