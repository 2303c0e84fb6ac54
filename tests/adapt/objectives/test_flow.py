"""The flow-matching objective is that of diffusers' scheduler, sign included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    FlowMapEulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from adapt.objectives import conventions, objective_of
from spectra.errors import UserError


def fields() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 4, 8, 8, generator=generator), torch.randn(5, 4, 8, 8, generator=generator)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_noise_is_that_of_the_scheduler(shift: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    x0, noise = fields()
    timestep = scheduler.timesteps[[0, 1, 500, 998, 999]]
    expected = scheduler.scale_noise(x0, timestep, noise)
    torch.testing.assert_close(objective_of(scheduler).add_noise(x0, noise, timestep), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_quantiles_are_shifted_as_the_schedule_is(shift: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    quantiles = torch.arange(1, 1001).flip(0) / 1000
    torch.testing.assert_close(objective_of(scheduler).timestep(quantiles), scheduler.timesteps, rtol=1e-4, atol=1e-3)


def test_one_sampler_step_with_a_perfect_answer_recovers_the_picture() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(1)
    x0, noise = fields()
    answer = objective_of(scheduler).target(x0, noise, scheduler.timesteps)
    torch.testing.assert_close(scheduler.step(answer, scheduler.timesteps[0], noise).prev_sample, x0)


def test_the_target_is_the_slope_of_the_path() -> None:
    x0, noise = fields()
    low, high = torch.full((5,), 0.3), torch.full((5,), 0.8)
    ends = [conventions.mix(x0, noise, conventions.straight(level)) for level in (low, high)]
    target = objective_of(FlowMatchEulerDiscreteScheduler()).target(x0, noise, torch.full((5,), 500.0))
    torch.testing.assert_close(target, (ends[1] - ends[0]) / 0.5, rtol=1e-4, atol=1e-5)


def test_noise_level_and_timestep_are_inverse_to_each_other() -> None:
    objective, sigma = objective_of(FlowMatchEulerDiscreteScheduler(shift=3.0)), torch.linspace(0.01, 0.99, 9)
    torch.testing.assert_close(objective.noise_level(objective.timestep_of(sigma)), sigma)


def test_log_snr_is_that_of_signal_over_noise() -> None:
    objective = objective_of(FlowMatchEulerDiscreteScheduler())
    torch.testing.assert_close(objective.log_snr(torch.tensor([0.2])), torch.tensor([0.8**2 / 0.2**2]).log())


def test_min_snr_is_refused_for_a_flow() -> None:
    with pytest.raises(UserError, match="min_snr weighs denoising losses only"):
        objective_of(FlowMatchEulerDiscreteScheduler(), "min_snr")


DYNAMIC: dict[str, dict[str, Any]] = {
    "FLUX.1-dev": {"shift": 3.0},
    "Qwen-Image": {"max_shift": 0.9, "max_image_seq_len": 8192},
    "LTX": {"base_shift": 0.95, "max_shift": 2.05, "base_image_seq_len": 1024},
    "linear": {"time_shift_type": "linear"},
}


@pytest.mark.parametrize("name", list(DYNAMIC))
@pytest.mark.parametrize("tokens", [256, 1024, 4096])
def test_dynamic_shifts_are_those_of_the_pipelines_for_pictures_of_a_size(name: str, tokens: int) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, **DYNAMIC[name])
    config = scheduler.config
    mu = calculate_shift(
        tokens, config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift
    )
    quantiles = np.linspace(1, 0.05, 20)
    scheduler.set_timesteps(sigmas=quantiles.tolist(), mu=mu)
    objective = objective_of(scheduler, tokens=tokens)
    torch.testing.assert_close(
        objective.timestep(torch.from_numpy(quantiles).float()), scheduler.timesteps, rtol=1e-4, atol=1e-3
    )


def test_solvers_of_flows_are_flows_too() -> None:
    """Wan's UniPC and Sana's DPM++ have a table of alphas that their flows do not use."""
    for kind in (UniPCMultistepScheduler, DPMSolverMultistepScheduler):
        scheduler = kind(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
        scheduler.set_timesteps(8)
        objective, (x0, noise) = objective_of(scheduler), fields()
        assert (objective.name, objective.shift) == ("flow", 3.0)
        sigma = scheduler.sigmas[2:3].expand(5)
        timestep = objective.timestep_of(sigma)
        assert abs(float(timestep[0]) - float(scheduler.timesteps[2])) < 1
        scheduler._step_index = 2
        noisy = objective.add_noise(x0, noise, timestep)
        clean = scheduler.convert_model_output(objective.target(x0, noise, timestep), sample=noisy)
        torch.testing.assert_close(clean, x0, rtol=1e-4, atol=1e-5)
        quantiles = torch.linspace(1, 1 / 1000, 9)[:-1]
        # the two begin their evenly spaced grids one in a thousand apart, and round timesteps down
        torch.testing.assert_close(objective.timestep(quantiles), scheduler.timesteps.float(), rtol=0, atol=3)


@pytest.mark.parametrize(
    ("scheduler", "sentence"),
    [
        (FlowMatchEulerDiscreteScheduler(invert_sigmas=True), "invert_sigmas"),
        (UniPCMultistepScheduler(prediction_type="epsilon", use_flow_sigmas=True), "flow that predicts 'epsilon'"),
        (FlowMapEulerDiscreteScheduler(), "cannot train with a FlowMapEulerDiscreteScheduler"),
        (EDMEulerScheduler(), "cannot train with a EDMEulerScheduler"),
    ],
)
def test_what_is_neither_is_refused_in_one_sentence(scheduler: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        objective_of(scheduler)
