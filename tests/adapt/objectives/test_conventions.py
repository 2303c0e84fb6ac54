"""The convention sheet: conversions invert each other and agree with diffusers' schedulers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st

from adapt.objectives import conventions
from spectra.errors import UserError

LEVELS = {"vp": conventions.preserving, "flow": conventions.straight}
kinds = st.sampled_from(sorted(conventions.KINDS))


def fields(count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    x0, noise = torch.randn(2, count, 2, 4, 4, generator=generator, dtype=torch.float64)
    return x0, noise


@given(source=kinds, target=kinds, space=st.sampled_from(sorted(LEVELS)), level=st.floats(0.02, 0.98))
def test_every_conversion_is_undone_by_the_way_back(source: str, target: str, space: str, level: float) -> None:
    x0, noise = fields()
    weights = LEVELS[space](torch.full((3,), level, dtype=torch.float64))
    x, value = conventions.mix(x0, noise, weights), conventions.answer(x0, noise, source, *weights)
    there = conventions.convert(x, value, source, target, *weights)
    torch.testing.assert_close(there, conventions.answer(x0, noise, target, *weights), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(conventions.convert(x, there, target, source, *weights), value, rtol=1e-7, atol=1e-7)


@given(kind=kinds, space=st.sampled_from(sorted(LEVELS)), level=st.floats(0.02, 0.98))
def test_a_state_and_an_answer_determine_picture_and_noise(kind: str, space: str, level: float) -> None:
    x0, noise = fields()
    weights = LEVELS[space](torch.full((3,), level, dtype=torch.float64))
    x, value = conventions.mix(x0, noise, weights), conventions.answer(x0, noise, kind, *weights)
    found = conventions.pair(x, value, kind, *weights)
    for one, expected in zip(found, (x0, noise), strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("step", [30, 500, 970])
def test_the_picture_of_an_answer_is_that_of_ddpm(kind: str, step: int) -> None:
    scheduler = DDPMScheduler(prediction_type=kind, clip_sample=False)
    bar = scheduler.alphas_cumprod[step].double()
    x, value = fields()
    expected = scheduler.step(value.float(), step, x.float()).pred_original_sample
    a, b = bar.sqrt().expand(3), (1 - bar).sqrt().expand(3)
    torch.testing.assert_close(conventions.pair(x, value, kind, a, b)[0].float(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_picture_of_an_answer_is_that_of_euler_whose_state_keeps_the_signal(kind: str) -> None:
    scheduler = EulerDiscreteScheduler(prediction_type=kind)
    scheduler.set_timesteps(5)
    sigma = scheduler.sigmas[2].double().expand(3)
    x, value = fields()
    expected = scheduler.step(value.float(), scheduler.timesteps[2], x.float()).pred_original_sample
    weights = conventions.preserving(sigma)
    given = conventions.mix(x, x, (weights[0], torch.zeros(3)))  # scale_model_input
    torch.testing.assert_close(
        conventions.pair(given, value, kind, *weights)[0].float(), expected, rtol=1e-4, atol=1e-4
    )


def test_a_flow_is_followed_to_the_picture_of_the_answer() -> None:
    """Euler's step from sigma to 0 with a constant answer ends at the picture that the answer implies."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=[0.7])
    x, value = fields()
    end = scheduler.step(value.float(), scheduler.timesteps[0], x.float()).prev_sample
    weights = conventions.straight(scheduler.sigmas[:1].double().expand(3))
    found = conventions.pair(x, value, "flow_prediction", *weights)[0]
    torch.testing.assert_close(found.float(), end, rtol=1e-4, atol=1e-5)


def test_the_flow_prediction_is_the_slope_of_the_path_and_velocity_is_its_negative() -> None:
    x0, noise = fields()
    low, high = (torch.full((3,), level, dtype=torch.float64) for level in (0.3, 0.300001))
    path = [conventions.mix(x0, noise, conventions.straight(level)) for level in (low, high)]
    slope = (path[1] - path[0]) / 1e-6
    weights = conventions.straight(low)
    torch.testing.assert_close(conventions.answer(x0, noise, "flow_prediction", *weights), slope, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(conventions.answer(x0, noise, "velocity", *weights), -slope, rtol=1e-6, atol=1e-6)


def test_the_score_is_the_gradient_of_the_log_density() -> None:
    x0, noise = fields()
    a, b = conventions.preserving(torch.full((3,), 0.8, dtype=torch.float64))
    x = conventions.mix(x0, noise, (a, b)).requires_grad_()
    density = torch.distributions.Normal(float(a[0]) * x0, float(b[0])).log_prob(x).sum()
    (gradient,) = torch.autograd.grad(density, x)
    torch.testing.assert_close(conventions.answer(x0, noise, "score", a, b), gradient)


def test_the_expected_velocity_of_a_gaussian_is_its_closed_form() -> None:
    """x0 ~ N(0, s^2): E[x0 - e | x] = (t s^2 - (1 - t)) / (t^2 s^2 + (1 - t)^2) x with t = 1 - sigma, by regression."""
    s, sigma = 0.6, 0.35
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 400_000, generator=generator, dtype=torch.float64)
    x0 = s * x0
    weights = conventions.straight(torch.full((len(x0),), sigma, dtype=torch.float64))
    x, value = conventions.mix(x0, noise, weights), conventions.answer(x0, noise, "velocity", *weights)
    t = 1 - sigma
    expected = (t * s**2 - sigma) / (t**2 * s**2 + sigma**2)
    assert float((x * value).mean() / x.square().mean()) == pytest.approx(expected, abs=0.01)


def test_pure_noise_has_no_signal_and_v_still_tells_the_picture() -> None:
    a, b = conventions.preserving(torch.tensor([math.inf], dtype=torch.float64))
    assert (float(a), float(b)) == (0.0, 1.0)
    x0, noise = fields(1)
    x, value = conventions.mix(x0, noise, (a, b)), conventions.answer(x0, noise, "v_prediction", a, b)
    torch.testing.assert_close(conventions.pair(x, value, "v_prediction", a, b)[0], x0)
    assert not conventions.pair(x, noise, "epsilon", a, b)[0].isfinite().any()


def test_an_unknown_kind_is_refused() -> None:
    one: Any = torch.ones(1)
    with pytest.raises(UserError, match="'direction'"):
        conventions.answer(one, one, "direction", one, one)
