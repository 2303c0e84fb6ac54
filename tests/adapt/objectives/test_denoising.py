"""The denoising objective is that of diffusers' schedulers."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler

from adapt.objectives import denoising, objective_of
from spectra.errors import UserError

TIMESTEPS = torch.tensor([0, 1, 500, 998, 999])


def fields() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, 4, 8, 8, generator=generator), torch.randn(5, 4, 8, 8, generator=generator)


@pytest.mark.parametrize("zero_snr", [False, True])
def test_noise_and_velocity_are_those_of_the_scheduler(zero_snr: bool) -> None:
    scheduler = DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=zero_snr)
    x0, noise = fields()
    objective = objective_of(scheduler)
    torch.testing.assert_close(objective.add_noise(x0, noise, TIMESTEPS), scheduler.add_noise(x0, noise, TIMESTEPS))
    torch.testing.assert_close(objective.target(x0, noise, TIMESTEPS), scheduler.get_velocity(x0, noise, TIMESTEPS))


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_the_scheduler_recovers_the_picture_from_a_perfect_answer(prediction: str) -> None:
    scheduler = DDPMScheduler(prediction_type=prediction, clip_sample=False)
    x0, noise = fields()
    objective, timestep = objective_of(scheduler), torch.full((5,), 500)
    noisy = objective.add_noise(x0, noise, timestep)
    answer = objective.target(x0, noise, timestep)
    torch.testing.assert_close(scheduler.step(answer, 500, noisy).pred_original_sample, x0, rtol=1e-4, atol=1e-4)


def test_noise_levels_are_the_sigmas_of_the_scheduler() -> None:
    scheduler = EulerDiscreteScheduler()
    levels = objective_of(scheduler).noise_level(torch.arange(1000))
    torch.testing.assert_close(levels.flip(0).float(), scheduler.sigmas[:-1], rtol=1e-3, atol=1e-4)


def test_noise_level_and_timestep_are_inverse_to_each_other() -> None:
    objective = objective_of(DDIMScheduler(rescale_betas_zero_snr=True))
    every = torch.arange(1000)
    assert torch.equal(objective.timestep_of(objective.noise_level(every)), every)


def test_quantiles_reach_every_timestep_once_and_stay_inside() -> None:
    quantiles = (torch.arange(1000) + 0.5) / 1000
    assert torch.equal(denoising.timestep_at(quantiles, 1000), torch.arange(1000))
    assert denoising.timestep_at(torch.tensor([0.0, 1.0]), 1000).tolist() == [0, 999]


def test_without_min_snr_every_timestep_weighs_the_same() -> None:
    assert torch.equal(objective_of(DDPMScheduler()).weight(TIMESTEPS), torch.ones(5))


def test_the_noisiest_level_of_zero_terminal_snr_is_pure_noise() -> None:
    objective = objective_of(DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True))
    x0, noise = fields()
    last = torch.full((5,), 999)
    assert objective.noise_level(last).isinf().all()
    assert objective.log_snr(objective.noise_level(last)).eq(-float("inf")).all()
    torch.testing.assert_close(objective.add_noise(x0, noise, last), noise)
    torch.testing.assert_close(objective.target(x0, noise, last), -x0)


@pytest.mark.parametrize("kind", ["score", "flow_prediction"])
def test_an_unknown_prediction_and_an_unknown_scheduler_are_refused(kind: str) -> None:
    with pytest.raises(UserError, match=kind):
        objective_of(DDPMScheduler(prediction_type=kind))
    with pytest.raises(UserError, match="cannot train with a object"):
        objective_of(object())


def test_continuous_levels_lie_where_the_sampler_goes() -> None:
    scheduler = EulerDiscreteScheduler(
        prediction_type="v_prediction",
        timestep_type="continuous",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700.0,
    )
    scheduler.set_timesteps(9)
    found = objective_of(scheduler).timestep(torch.linspace(1, 0, 9))
    torch.testing.assert_close(found, scheduler.timesteps, rtol=1e-4, atol=1e-4)
