"""The flow-matching objective is that of diffusers' scheduler, sign included."""

from __future__ import annotations

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from adapt.objectives import SAMPLINGS, flow, objective_of
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
    slope = (flow.add_noise(x0, noise, high) - flow.add_noise(x0, noise, low)) / 0.5
    torch.testing.assert_close(flow.target(x0, noise), slope, rtol=1e-4, atol=1e-5)


def test_noise_level_and_timestep_are_inverse_to_each_other() -> None:
    objective, sigma = objective_of(FlowMatchEulerDiscreteScheduler(shift=3.0)), torch.linspace(0.01, 0.99, 9)
    torch.testing.assert_close(objective.noise_level(objective.timestep_of(sigma)), sigma)


def test_log_snr_is_that_of_signal_over_noise() -> None:
    objective = objective_of(FlowMatchEulerDiscreteScheduler())
    torch.testing.assert_close(objective.log_snr(torch.tensor([0.2])), torch.tensor([0.8**2 / 0.2**2]).log())


def test_min_snr_is_refused_for_a_flow() -> None:
    with pytest.raises(UserError, match="flow matching"):
        objective_of(FlowMatchEulerDiscreteScheduler(), min_snr=5.0)


def test_logit_normal_sampling_prefers_the_middle_and_keeps_order() -> None:
    quantiles = (torch.arange(1000) + 0.5) / 1000
    spread = SAMPLINGS["logit_normal"](quantiles)
    assert (spread.diff() >= 0).all()
    inside = ((spread > 0.25) & (spread < 0.75)).float().mean()
    assert inside == pytest.approx(0.728, abs=0.01)  # P(|N(0, 1)| < log 3)
