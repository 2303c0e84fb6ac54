from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from adapt.fera import fecl
from spectra.bands import FilterBank

SCALES = (0.8, 1.6, 3.2)
BANK = FilterBank(SCALES)
SHAPE = (3, 4, 16, 16)


def random(seed: int) -> Tensor:
    """White noise plus a smooth field, so that the bands differ from sample to sample."""
    draw = np.random.default_rng(seed)
    smooth = gaussian_filter(draw.standard_normal(SHAPE), (0, 0, 3, 3), mode="reflect")
    return torch.from_numpy(draw.standard_normal(SHAPE) + 8 * draw.random((3, 1, 1, 1)) * smooth)


def reference(prediction: Tensor, base: Tensor, target: Tensor, floor: float) -> float:
    def energy(x: Tensor) -> np.ndarray:
        blurred = [gaussian_filter(x.numpy(), (0, 0, s, s), mode="reflect") for s in reversed(SCALES)]
        levels = [np.zeros_like(blurred[0]), *blurred, x.numpy()]
        return np.array([((b - a) ** 2).sum((1, 2, 3)) for a, b in pairwise(levels)]).T

    losses = []
    for d, r in zip(energy(prediction - base), energy(prediction - target), strict=True):
        w = r / r.sum()
        ratio = np.sqrt(d / (d.sum() + floor * r.sum()) + 1e-5)
        losses.append((w * (ratio - np.sqrt(w + 1e-5)) ** 2).sum())
    return float(np.mean(losses))


@pytest.mark.parametrize("floor", [0.0, 1e-2, 0.3])
def test_it_is_the_formula_on_bands_from_scipy(floor: float) -> None:
    prediction, base, target = random(0), random(1), random(2)
    ours = fecl(prediction, base, target, BANK, floor)
    assert ours.item() == pytest.approx(reference(prediction, base, target, floor), rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_no_correction_yet_gives_a_finite_loss_and_gradient(dtype: torch.dtype) -> None:
    base, target = random(1).to(dtype), random(2).to(dtype)
    prediction = base.clone().requires_grad_()
    loss = fecl(prediction, base, target, BANK)
    loss.backward()
    assert 0 < loss.item() < 1
    assert prediction.grad is not None
    assert torch.equal(prediction.grad, torch.zeros_like(base))


def test_a_correction_that_is_mere_rounding_hardly_pulls() -> None:
    def pull(size: float) -> float:
        base, target = random(1)[:1], random(2)[:1]
        prediction = (base + size * random(3)[:1]).requires_grad_()
        fecl(prediction, base, target, BANK).backward()
        assert prediction.grad is not None
        return float(prediction.grad.norm())

    assert pull(1e-6) < 0.02 * pull(1e-2)


@pytest.mark.parametrize("size", [1e-12, 1e-6, 1e-3, 1e-1])
def test_the_gradient_is_bounded_however_small_the_correction(size: float) -> None:
    base, target = random(1)[:1], random(2)[:1]
    prediction = (base + size * random(3)[:1]).requires_grad_()
    fecl(prediction, base, target, BANK, floor=1e-2).backward()
    assert prediction.grad is not None
    bound = 2 * BANK.bands / (1e-2**0.5 * (base - target).norm().item())
    assert 0 < prediction.grad.norm().item() < bound


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_perfect_prediction_has_no_loss_and_no_nan(dtype: torch.dtype) -> None:
    target, base = random(2).to(dtype), random(1).to(dtype)
    prediction = target.clone().requires_grad_()
    loss = fecl(prediction, base, target, BANK)
    loss.backward()
    assert loss.item() == 0
    assert prediction.grad is not None
    assert torch.isfinite(prediction.grad).all()
    assert fecl(target, target, target, BANK).item() == 0


def test_a_common_scale_changes_nothing() -> None:
    prediction, base, target = random(0), random(1), random(2)
    losses = [fecl(c * prediction, c * base, c * target, BANK).item() for c in (1.0, 1e-3, 1e3)]
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-9)


def test_a_correction_shaped_like_the_error_costs_nothing_but_the_floor() -> None:
    error = random(0)
    for c in (-0.5, 2.0):
        assert fecl(error, (1 - c) * error, torch.zeros(SHAPE), BANK, floor=0.0).item() == pytest.approx(0, abs=1e-12)
    small, large = (fecl(error, (1 - c) * error, torch.zeros(SHAPE), BANK).item() for c in (0.1, 2.0))
    assert small > 10 * large > 0


def test_base_error_and_weights_carry_no_gradient() -> None:
    prediction, base, target = (random(i).requires_grad_() for i in range(3))
    fecl(prediction, base, target, BANK).backward()
    assert base.grad is None
    assert target.grad is None
    p = prediction.detach().requires_grad_()
    frozen = prediction.detach() - target.detach()  # the same error, cut by hand
    fecl(p, base.detach(), p.detach() - frozen, BANK).backward()
    torch.testing.assert_close(prediction.grad, p.grad)


def test_the_loss_is_the_mean_over_samples() -> None:
    prediction, base, target = random(0), random(1), random(2)
    each = [fecl(*(x[i : i + 1] for x in (prediction, base, target)), BANK).item() for i in range(3)]
    assert fecl(prediction, base, target, BANK).item() == pytest.approx(np.mean(each), rel=1e-9)
