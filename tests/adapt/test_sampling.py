"""Sampling of noise levels: rising maps whose densities are the published ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from adapt.objectives import Objective, objective_of
from adapt.sampling import LAST, density, sampler_of
from adapt.settings import ObjectiveSettings
from spectra.errors import UserError

FLOW = objective_of(FlowMatchEulerDiscreteScheduler())
EVENLY = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000


class Prior:
    """What a sampler reads of a prior."""

    def __init__(self, log_snr: tuple[float, ...]) -> None:
        self.timestep_log_snr = log_snr


def settings(**changes: Any) -> ObjectiveSettings:
    return ObjectiveSettings(**changes)


@given(
    name=st.sampled_from(["uniform", "logit_normal", "mode", "cosmap"]),
    mean=st.floats(-2, 2), std=st.floats(0.2, 2), scale=st.floats(-1, 1.75), shift=st.none() | st.floats(0.3, 8),
)  # fmt: skip
def test_every_map_rises_and_stays_in_the_noise_range(
    name: str, mean: float, std: float, scale: float, shift: float | None
) -> None:
    config = settings(timesteps=name, logit_mean=mean, logit_std=std, mode_scale=scale, shift=shift)
    found = sampler_of(config, FLOW)(torch.linspace(0, LAST, 500, dtype=torch.float64))
    assert (found.diff() >= -1e-12).all()
    assert found[0] >= 0
    assert found[-1] <= LAST


def cumulative(name: str) -> Any:
    """Distribution functions of the densities in Esser et al., section 3.1."""
    by_name: dict[str, Any] = {
        "uniform": lambda t: t,
        "logit_normal": lambda t: stats.norm.cdf((np.log(t / (1 - t)) - 0.5) / 0.8),
        # 2 / (pi (1 - 2 t + 2 t^2)) integrated
        "cosmap": lambda t: 0.5 + 2 / math.pi * np.arctan(2 * t - 1),
    }
    return by_name[name]


@pytest.mark.parametrize("name", ["uniform", "logit_normal", "cosmap"])
def test_levels_follow_the_papers_density(name: str) -> None:
    config = settings(timesteps=name, logit_mean=0.5, logit_std=0.8)
    found = sampler_of(config, FLOW)(EVENLY).numpy()
    assert stats.kstest(found, cumulative(name)).statistic < 1e-3


@pytest.mark.parametrize(
    ("name", "more"), [("logit_normal", {"logit_mean": -0.3, "logit_std": 1.2}), ("mode", {"mode_scale": 1.29})]
)
def test_levels_are_distributed_as_those_of_diffusers(name: str, more: dict[str, float]) -> None:
    theirs = compute_density_for_timestep_sampling(
        name, 20_000, **more, generator=torch.Generator().manual_seed(0)
    ).numpy()
    ours = sampler_of(settings(timesteps=name, **more), FLOW)(EVENLY).numpy()
    assert stats.ks_2samp(ours, theirs).pvalue > 0.01


def test_mode_samples_most_in_the_middle_and_its_map_is_the_papers() -> None:
    scale = 0.8
    ours = sampler_of(settings(timesteps="mode", mode_scale=scale), FLOW)(EVENLY)
    u = 1 - EVENLY
    torch.testing.assert_close(ours, 1 - u - scale * ((math.pi * u / 2).cos() ** 2 - 1 + u))
    by_cell = density(sampler_of(settings(timesteps="mode", mode_scale=scale), FLOW), torch.linspace(0, 1, 6))
    assert by_cell.argmax() == 2


@pytest.mark.parametrize("own", [1.0, 3.0])
def test_a_shift_replaces_the_models_own(own: float) -> None:
    objective = objective_of(FlowMatchEulerDiscreteScheduler(shift=own))
    level = objective.noise_level(objective.timestep(sampler_of(settings(shift=2.0), objective)(EVENLY)))
    torch.testing.assert_close(level, 2 * EVENLY / (1 + EVENLY))
    kept = objective.noise_level(objective.timestep(sampler_of(settings(), objective)(EVENLY)))
    torch.testing.assert_close(kept, own * EVENLY / (1 + (own - 1) * EVENLY))


def test_a_shift_of_a_denoiser_is_refused() -> None:
    with pytest.raises(UserError, match="this model is a denoiser; leave it out"):
        sampler_of(settings(shift=2.0), objective_of(DDIMScheduler()))


@pytest.mark.parametrize(
    "objective",
    [
        objective_of(FlowMatchEulerDiscreteScheduler(shift=3.0)),
        objective_of(DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True)),
        objective_of(EulerDiscreteScheduler(prediction_type="v_prediction", timestep_type="continuous",
                                            use_karras_sigmas=True, sigma_min=0.002, sigma_max=700.0)),
    ],
    ids=["flow", "v", "continuous"],
)  # fmt: skip
def test_a_priors_levels_have_its_distribution_of_log_snr(objective: Objective) -> None:
    wanted = tuple(np.linspace(4.0, -5.0, 7) ** 3 / 30)  # from clean to noisy
    sampler = sampler_of(settings(timesteps="prior"), objective, Prior(wanted))  # type: ignore[arg-type]
    found = objective.log_snr(objective.noise_level(objective.timestep(sampler(EVENLY)))).double().numpy()
    knots = np.quantile(found, np.linspace(1, 0, 7)[1:-1])
    np.testing.assert_allclose(knots, wanted[1:-1], atol=0.05)
    assert (np.diff(found) <= 1e-9).all()


def test_levels_beyond_the_models_range_are_its_ends() -> None:
    sampler = sampler_of(settings(timesteps="prior"), FLOW, Prior((90.0, 50.0, -50.0, -90.0)))  # type: ignore[arg-type]
    found = sampler(torch.tensor([0.0, 0.1, 0.95], dtype=torch.float64))
    assert found.tolist() == pytest.approx([0.0, 0.0, LAST])


def test_timesteps_of_a_prior_need_one() -> None:
    with pytest.raises(UserError, match="needs a prior"):
        sampler_of(settings(timesteps="prior"), FLOW)


def test_the_density_sums_to_one_and_is_one_for_uniform_levels() -> None:
    edges = torch.tensor([0.0, 0.1, 0.45, 0.8, 1.0])
    torch.testing.assert_close(density(sampler_of(settings(), FLOW), edges), torch.ones(4).double(), rtol=1e-3, atol=0)
    found = density(sampler_of(settings(timesteps="logit_normal"), FLOW), edges)
    assert float((found * edges.diff()).sum()) == pytest.approx(1, abs=1e-4)
    expected = np.diff(
        stats.norm.cdf(np.log(np.array([1e-9, 0.1, 0.45, 0.8, 1 - 1e-9]) / np.array([1, 0.9, 0.55, 0.2, 1e-9])))
    )
    np.testing.assert_allclose(found * edges.diff(), expected, atol=1e-3)


def test_the_density_counts_levels_at_the_very_ends() -> None:
    """A prior whose log-SNR reaches beyond the model's puts a part of the samples at an end of the noise range."""
    edges = torch.linspace(0, 1, 5)
    found = density(lambda quantile: torch.where(quantile < 0.2, 0.0, quantile).clamp_max(LAST), edges) * edges.diff()
    torch.testing.assert_close(found, torch.tensor([0.25, 0.25, 0.25, 0.25]).double(), atol=1e-4, rtol=0)


def test_evenly_spread_quantiles_stay_evenly_spread_in_probability() -> None:
    """Stratification survives: each of 8 parts of equal probability gets one of 8 stratified samples."""
    strata = (torch.arange(8) + torch.rand(8, generator=torch.Generator().manual_seed(0))) / 8
    found = sampler_of(settings(timesteps="logit_normal"), FLOW)(strata)
    parts = stats.norm.cdf(torch.logit(found.double()).numpy()) * 8
    assert parts.astype(int).tolist() == list(range(8))
