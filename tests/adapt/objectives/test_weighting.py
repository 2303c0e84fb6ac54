"""Each weighting is its paper's, by a second derivation."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_loss_weighting_for_sd3

from adapt.objectives import conventions, objective_of, weighting
from adapt.sampling import cosmap
from spectra.errors import UserError

SIGMA = torch.tensor([0.02, 0.3, 1.0, 4.0, 80.0], dtype=torch.float64)
KINDS = ("epsilon", "sample", "v_prediction")


def error_of(kind: str, sigma: torch.Tensor, off: float = 0.5) -> torch.Tensor:
    """Squared error of an answer of `kind` whose implied picture is off by `off`."""
    x0, noise = torch.randn(2, len(sigma), 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = conventions.preserving(sigma)
    x = conventions.mix(x0, noise, weights)
    wrong = conventions.convert(x, x0 + off, "sample", kind, *weights)
    right = conventions.answer(x0, noise, kind, *weights)
    return (wrong - right).square().mean(1)


@pytest.mark.parametrize("name", list(weighting.DENOISING))
def test_a_denoising_weighting_weighs_the_error_of_the_picture_alike_for_every_prediction(name: str) -> None:
    losses = [weighting.denoising(name, 5.0, kind, 100.0)(SIGMA) * error_of(kind, SIGMA) for kind in KINDS]
    for loss in losses[1:]:
        torch.testing.assert_close(loss, losses[0], rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("min_snr", "sample", [5.0, 5.0, 1.0, 1 / 16, 1 / 6400]),
        ("min_snr", "epsilon", [5 * 0.02**2, 5 * 0.09, 1.0, 1.0, 1.0]),
        ("soft_min_snr", "epsilon", [5 / (2500 + 5), 5 / (1 / 0.09 + 5), 5 / 6, 5 / (1 / 16 + 5), 5 / (1 / 6400 + 5)]),
        ("debiased", "epsilon", [0.02, 0.3, 1.0, 4.0, 80.0]),
        ("debiased", "sample", [50.0, 1 / 0.3, 1.0, 0.25, 1 / 80]),
    ],
)
def test_denoising_weights_are_those_worked_out_by_hand(name: str, kind: str, expected: list[float]) -> None:
    found = weighting.denoising(name, 5.0, kind, 100.0)(SIGMA)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-5, atol=0)


def test_soft_min_snr_is_below_min_snr_and_at_least_half_of_it() -> None:
    hard, soft = (weighting.denoising(name, 5.0, "sample", 100.0)(SIGMA) for name in ("min_snr", "soft_min_snr"))
    assert ((soft < hard) & (soft >= hard / 2)).all()


@pytest.mark.parametrize("name", list(weighting.DENOISING))
def test_weights_are_finite_at_zero_terminal_snr(name: str) -> None:
    ends = torch.tensor([math.inf, 0.01], dtype=torch.float64)
    for kind in ("sample", "v_prediction"):
        assert weighting.denoising(name, 5.0, kind, math.inf)(ends).isfinite().all()
    if name == "debiased":
        with pytest.raises(UserError, match="zero terminal SNR"):
            weighting.denoising(name, 5.0, "epsilon", math.inf)
    else:
        assert weighting.denoising(name, 5.0, "epsilon", math.inf)(ends)[0] == 1.0


@pytest.mark.parametrize("name", list(weighting.FLOW))
def test_flow_weights_are_those_of_diffusers(name: str) -> None:
    sigma = torch.linspace(0.01, 1, 50)
    found = weighting.flow(name, 1e-3)(sigma)
    torch.testing.assert_close(found, compute_loss_weighting_for_sd3(name, sigma).float(), rtol=1e-5, atol=0)


def test_sigma_sqrt_stops_rising_at_the_smallest_level_of_the_schedule() -> None:
    assert weighting.flow("sigma_sqrt", 1e-3)(torch.tensor([0.0, 1e-3])).tolist() == pytest.approx([1e6, 1e6])


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_smallest_level_is_that_of_the_shifted_schedule(shift: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    found = objective_of(scheduler, "sigma_sqrt").weight(torch.tensor([0.0, float(scheduler.timesteps[-1]) / 2]))
    assert found.tolist() == pytest.approx([float(scheduler.sigmas[-1]) ** -2] * 2, rel=1e-4)


def test_weighing_by_cosmap_is_sampling_by_cosmap() -> None:
    """The mean of any function over cosmap's levels is its weighted mean over uniform ones."""
    quantile = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    weigh = weighting.flow("cosmap", 1e-3)
    for power in (1, 2, 5):
        sampled = cosmap(quantile).pow(power).mean()
        assert float((weigh(quantile) * quantile.pow(power)).mean()) == pytest.approx(float(sampled), rel=1e-4)


def test_without_a_weighting_every_level_weighs_the_same() -> None:
    for weigh in (weighting.denoising("none", 5.0, "epsilon", math.inf), weighting.flow("none", 1e-3)):
        assert torch.equal(weigh(SIGMA), torch.ones(5))


def test_a_weighting_of_the_other_kind_of_model_is_refused_in_one_sentence() -> None:
    for name in weighting.FLOW:
        with pytest.raises(UserError, match="is for flow matching; this model is a denoiser"):
            weighting.denoising(name, 5.0, "epsilon", 1.0)
    for name in weighting.DENOISING:
        with pytest.raises(UserError, match="trained by flow matching"):
            weighting.flow(name, 1e-3)
