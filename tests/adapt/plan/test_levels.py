"""Where training looks and where sampling goes: densities of known distributions, and the sampler's own levels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from adapt.objectives import objective_of
from adapt.plan.levels import Levels, levels_of, sampler_log_snr
from spectra.models import load_pipeline
from tests.adapt.small import config, model


def levels(tmp: Any, family: str, **changes: Any) -> Levels:
    pipe = load_pipeline(str(model(family)))
    return levels_of(config(tmp / "run", family, **changes), pipe, objective_of(pipe.scheduler), None, (4, 16, 16))


def test_uniform_training_of_a_denoiser_has_density_one_everywhere(tmp_path: Any) -> None:
    found = levels(tmp_path, "sd")
    assert np.allclose(found.training, 1, atol=0.03)
    assert found.edges[0] == 0
    assert found.neglected() == 0


@pytest.mark.parametrize("family", ["sd", "sd3"])
def test_densities_average_to_one(family: str, tmp_path: Any) -> None:
    found = levels(tmp_path, family, timesteps="logit_normal", logit_std=0.5)
    assert found.training.mean() == pytest.approx(1, rel=1e-6)


def test_a_narrow_spread_neglects_the_ends_of_the_sampler(tmp_path: Any) -> None:
    wide, narrow = (levels(tmp_path, "sd", timesteps="logit_normal", logit_std=s, sample_steps=20) for s in (1.0, 0.3))
    assert narrow.neglected() > wide.neglected()
    assert narrow.neglected() > 0.3


def test_steps_of_a_sampler_of_timesteps_are_its_timesteps(tmp_path: Any) -> None:
    pipe: Any = load_pipeline(str(model("sd")))
    pipe.scheduler.set_timesteps(10)
    found = levels(tmp_path, "sd", sample_steps=10)
    assert np.allclose(found.sampler, pipe.scheduler.timesteps.numpy(), atol=1)


def test_steps_of_a_flow_are_its_sigmas() -> None:
    pipe: Any = load_pipeline(str(model("sd3")))
    pipe.scheduler.set_timesteps(10)
    sigma = pipe.scheduler.sigmas[:-1].double()
    expected = (2 * ((1 - sigma) / sigma).log()).numpy()
    assert np.allclose(sampler_log_snr(pipe, 10, 64), expected, atol=1e-5)


def test_the_pipelines_own_scheduler_is_left_alone() -> None:
    pipe: Any = load_pipeline(str(model("sd")))
    pipe.scheduler.set_timesteps(7)
    before = torch.as_tensor(pipe.scheduler.timesteps).clone()
    sampler_log_snr(pipe, 10, 64)
    assert torch.equal(before, pipe.scheduler.timesteps)
