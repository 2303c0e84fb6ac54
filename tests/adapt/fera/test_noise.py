from __future__ import annotations

import json
import math
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from adapt.fera.noise import Clock, schedule_of
from adapt.trajectory import MOST_LOG_SNR as MOST
from spectra.errors import UserError

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
SVD = {"prediction_type": "v_prediction", "timestep_type": "continuous", "use_karras_sigmas": True, "sigma_min": 0.002,
       "sigma_max": 700.0}  # fmt: skip


def clock(scheduler: Any) -> Clock:
    return Clock.of(json.loads(json.dumps(schedule_of(scheduler))))


def euler_levels(scheduler: Any, steps: int) -> tuple[torch.Tensor, np.ndarray]:
    """Timesteps of a variance exploding sampler, fractional ones too, and log-SNRs by its own sigmas."""
    scheduler.set_timesteps(steps)
    return scheduler.timesteps, -2 * np.log(scheduler.sigmas[:-1].double().numpy())


@pytest.mark.parametrize("spacing", ["linspace", "trailing", "leading"])
def test_a_table_gives_the_levels_that_a_sampler_visits_between_its_entries_too(spacing: str) -> None:
    timesteps, expected = euler_levels(diffusers.EulerDiscreteScheduler(timestep_spacing=spacing, **SD), 7)
    np.testing.assert_allclose(clock(diffusers.DDPMScheduler(**SD)).log_snr(timesteps), expected, atol=2e-3)
    if spacing == "linspace":
        assert (timesteps != timesteps.round()).any()


def test_a_table_without_signal_at_its_end_is_kept_finite() -> None:
    scheduler = diffusers.DDIMScheduler(rescale_betas_zero_snr=True, **SD)
    assert clock(scheduler).log_snr(torch.tensor([999.0])).item() == -MOST


def test_flow_timesteps_count_the_noise_in_thousandths() -> None:
    levels = clock(diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)).log_snr(torch.tensor([500.0, 900.0, 1000, 0]))
    np.testing.assert_allclose(levels, [0, 2 * math.log(1 / 9), -MOST, MOST], atol=1e-6)


@pytest.mark.parametrize("name", ["UniPCMultistepScheduler", "DPMSolverMultistepScheduler"])
def test_solvers_of_flows_are_flows(name: str) -> None:
    assert schedule_of(getattr(diffusers, name)(**FLOW)) == {"kind": "flow", "steps": 1000}


def test_inverted_timesteps_count_the_signal() -> None:
    found = clock(diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True))
    np.testing.assert_allclose(found.log_snr(torch.tensor([900.0])), 2 * math.log(9), rtol=1e-5)


def test_continuous_timesteps_are_a_quarter_of_the_logarithm_of_sigma() -> None:
    timesteps, expected = euler_levels(diffusers.EulerDiscreteScheduler(**SVD), 6)
    np.testing.assert_allclose(clock(diffusers.EulerDiscreteScheduler(**SVD)).log_snr(timesteps), expected, atol=1e-5)


@pytest.mark.parametrize("sigma_data", [0.5, 1.0])
def test_edm_knows_the_scale_of_its_input(sigma_data: float) -> None:
    scheduler = diffusers.EDMEulerScheduler(sigma_data=sigma_data)
    sigma = torch.tensor([0.1, 2.0, 60.0])
    level = clock(scheduler).log_snr(sigma.log() / 4)
    np.testing.assert_allclose(level, -2 * sigma.log(), rtol=1e-5)
    into = torch.tensor([float(scheduler._get_conditioning_c_in(one)) for one in sigma])
    np.testing.assert_allclose(clock(scheduler).noise_variance(level), (into * sigma).square(), rtol=1e-5)


def test_trigflow_is_told_the_share_of_the_noise() -> None:
    angle = torch.tensor([0.3, 1.0, 1.4])
    told, found = angle.sin() / (angle.cos() + angle.sin()), clock(diffusers.SCMScheduler(sigma_data=0.5))
    level = found.log_snr(told)
    np.testing.assert_allclose(level, 2 * torch.log(angle.cos() / (0.5 * angle.sin())), rtol=1e-5)
    np.testing.assert_allclose(found.noise_variance(level), told.square(), rtol=1e-5)


def test_the_noise_of_a_variance_preserving_input_is_one_less_the_signal() -> None:
    scheduler = diffusers.DDPMScheduler(**SD)
    found, t = clock(scheduler), torch.tensor([10, 400, 990])
    np.testing.assert_allclose(found.noise_variance(found.log_snr(t)), 1 - scheduler.alphas_cumprod[t], rtol=1e-4)


def test_the_noise_of_a_flow_is_its_timestep() -> None:
    found, t = clock(diffusers.FlowMatchEulerDiscreteScheduler()), torch.tensor([30.0, 500.0, 970.0])
    np.testing.assert_allclose(found.noise_variance(found.log_snr(t)), (t / 1000).square(), rtol=1e-4)


def test_wuerstchen_has_a_cosine_between_0_and_1() -> None:
    scheduler = diffusers.DDPMWuerstchenScheduler()
    ratio = torch.tensor([0.15, 0.5, 0.87654], dtype=torch.float64)
    square = scheduler._alpha_cumprod(ratio, torch.device("cpu"))
    np.testing.assert_allclose(clock(scheduler).log_snr(ratio), torch.log(square / (1 - square)), atol=1e-3)


@pytest.mark.parametrize(
    "scheduler",
    [diffusers.DDPMScheduler(**SD), diffusers.FlowMatchEulerDiscreteScheduler(), diffusers.EDMEulerScheduler(),
     diffusers.SCMScheduler()],
    ids=lambda scheduler: type(scheduler).__name__,
)  # fmt: skip
def test_training_levels_fall_and_are_finite(scheduler: Any) -> None:
    levels = clock(scheduler).levels(50) * (-1 if type(scheduler).__name__ == "EDMEulerScheduler" else 1)
    assert np.isfinite(levels).all()
    assert (np.diff(levels) < 0).all()


def test_schedulers_without_a_known_schedule_are_refused() -> None:
    ratios = diffusers.FlowMatchEulerDiscreteScheduler()
    ratios.register_to_config(sigma_max=80.0)  # as Cosmos 2 does, which tells its network another time
    for scheduler in (diffusers.IPNDMScheduler(), ratios):
        with pytest.raises(UserError, match="no known noise schedule"):
            schedule_of(scheduler)


@pytest.mark.parametrize(
    "saved",
    [{}, {"kind": "flow"}, {"kind": "vp", "last": 999}, {"kind": "vp", "last": 1, "log_snr": [1.0, math.inf]},
     {"kind": "flow", "steps": 0}, {"kind": "cosine", "steps": 1}, {"kind": "edm", "sigma_data": "x"}],
)  # fmt: skip
def test_what_is_no_schedule_is_refused(saved: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="not a noise schedule"):
        Clock.of(saved)
