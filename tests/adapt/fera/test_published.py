"""The published mode against a second implementation, in float64 by plain scipy convolutions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.signal import convolve2d
from torch import Tensor

from adapt.fera import FeraConfig
from adapt.fera.loss import fecl
from adapt.fera.published import bands_of, consistency_loss, indicator, scales_of
from adapt.fera.router import reader_of, start_of
from spectra.bands import FilterBank
from spectra.errors import UserError

Array = NDArray[np.float64]


def kernel(sigma: float) -> Array:
    size = int(8 * sigma + 1)
    size += 1 - size % 2
    offset = np.arange(size) - size // 2
    taps = np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * sigma**2))
    whole: Array = taps / taps.sum()
    return whole


def components(z: Array, count: int) -> list[Array]:
    """All n + 1 components (b, c, h, w), low to high."""
    kappa = min(z.shape[-2:]) / 128
    pyramid = [z]
    for i in range(count):
        taps = kernel(kappa * 2**i)
        pyramid.append(np.stack([[convolve2d(field, taps, "same") for field in sample] for sample in z]))
    high_to_low = [pyramid[i] - pyramid[i + 1] for i in range(count)]
    return [pyramid[-1], *reversed(high_to_low)]


def energies(z: Array, count: int) -> Array:
    return np.stack([(band**2).sum((1, 2, 3)) for band in components(z, count)[:count]], -1)


def reference_indicator(z: Array, count: int) -> Array:
    energy = energies(z, count)
    found: Array = energy / (energy.sum(1, keepdims=True) + 1e-8)
    return found


def reference_loss(prediction: Array, base: Array, target: Array, count: int, weight: float) -> float:
    losses = []
    for delta, error in zip(prediction - base, prediction - target, strict=True):
        d, r = energies(delta[None], count)[0], energies(error[None], count)[0]
        w = r / (r.sum() + 1e-8)
        ratio = np.sqrt(d) / (np.sqrt((delta**2).sum()) + 1e-8)
        losses.append((w * (ratio - np.sqrt(r) / (np.sqrt((error**2).sum()) + 1e-8)) ** 2).sum())
    return weight * float(np.mean(losses))


def draw(seed: int, *shape: int) -> Tensor:
    """Noise that is not white, and differs from sample to sample."""
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return noise + 2 * noise.roll(1, -1) + torch.arange(shape[0]).reshape(-1, 1, 1, 1) * noise.roll(2, -2)


@pytest.mark.parametrize("shape", [(2, 4, 64, 64), (2, 3, 32, 48), (1, 2, 128, 96), (2, 1, 8, 8)])
@pytest.mark.parametrize("count", [1, 3, 4])
def test_the_indicator_is_that_of_plain_convolutions(shape: tuple[int, ...], count: int) -> None:
    z = draw(0, *shape)
    np.testing.assert_allclose(indicator(z, count), reference_indicator(z.numpy(), count), rtol=1e-9, atol=1e-15)


def test_all_components_but_the_top_one_are_kept_in_order() -> None:
    z = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = components(z.numpy(), 3)
    np.testing.assert_allclose(bands_of(z, 3), expected[:3], atol=1e-12)
    np.testing.assert_allclose(sum(expected), z, atol=1e-12)
    missing = np.linalg.norm(z.numpy() - bands_of(z, 3).sum(0).numpy()) / np.linalg.norm(z)
    assert missing == pytest.approx(0.42, abs=0.01)


def test_scales_follow_the_shorter_side() -> None:
    assert scales_of((64, 64), 3) == (0.5, 1.0, 2.0)
    assert scales_of((200, 128), 3) == (1.0, 2.0, 4.0)


@pytest.mark.parametrize(
    ("side", "shares"),
    [(32, (0.164, 0.473, 0.363)), (64, (0.069, 0.127, 0.804)), (96, (0.092, 0.175, 0.733)),
     (128, (0.101, 0.178, 0.721))],
)  # fmt: skip
def test_white_noise_has_the_known_shares(side: int, shares: tuple[float, ...]) -> None:
    noise = torch.randn(64, 4, side, side, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(indicator(noise, 3).mean(0), shares, atol=6e-3)


def test_white_noise_loses_its_top_band() -> None:
    """Shares of all n + 1 component energies, and what is left of the energy itself."""
    noise = np.random.default_rng(0).standard_normal((6, 4, 64, 64))
    energy = np.array([(band**2).sum() for band in components(noise, 3)])
    np.testing.assert_allclose(energy / energy.sum(), (0.042, 0.078, 0.495, 0.384), atol=5e-3)
    kept = float(bands_of(torch.from_numpy(noise), 3).square().sum())
    assert kept / (noise**2).sum() == pytest.approx(0.28, abs=0.01)


def test_a_constant_leaks_into_higher_bands_at_the_border() -> None:
    shares = indicator(torch.ones(1, 4, 64, 64), 3)[0]
    np.testing.assert_allclose(shares, (0.9937, 0.0035, 0.0028), atol=5e-5)


def test_shares_do_not_see_the_scale_but_an_offset() -> None:
    z = draw(2, 2, 4, 32, 32)
    torch.testing.assert_close(indicator(z, 3), indicator(14.6 * z, 3), atol=1e-8, rtol=0)
    assert (indicator(z + 1, 3) - indicator(z, 3))[:, 0].min() > 0.01


def test_frames_count_as_fields_of_one_sample() -> None:
    z = draw(3, 2, 6, 16, 16)
    torch.testing.assert_close(indicator(z.unflatten(1, (2, 3)), 3), indicator(z, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    z = (20 * torch.randn(1, 16, 128, 128)).to(dtype)  # its energy overflows float16
    shares = indicator(z, 3)
    assert shares.dtype == torch.float32
    torch.testing.assert_close(shares, indicator(z.float(), 3))


@pytest.mark.parametrize("shape", [(2, 64, 16), (4, 4)])
def test_what_is_no_field_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="published bands"):
        indicator(torch.zeros(shape), 3)


@pytest.mark.parametrize("weight", [1.0, 0.1])
def test_the_loss_is_that_of_plain_convolutions(weight: float) -> None:
    prediction, base, target = (draw(seed, 3, 4, 32, 24) for seed in (1, 2, 3))
    found = consistency_loss(prediction, base, target, 3, weight).item()
    assert found == pytest.approx(reference_loss(*(x.numpy() for x in (prediction, base, target)), 3, weight), rel=1e-9)


def test_its_gradient_is_that_of_finite_differences() -> None:
    """Of the second implementation, so through the correction, the error and its weights alike."""
    prediction, base, target = (draw(seed, 2, 1, 16, 16) for seed in (1, 2, 3))
    prediction.requires_grad_()
    consistency_loss(prediction, base, target, 2, 0.1).backward()
    at, step = prediction.detach().numpy(), 1e-6
    directions = [np.random.default_rng(seed).standard_normal(at.shape) for seed in range(3)]
    for v in directions:
        ends = [reference_loss(at + side * v, base.numpy(), target.numpy(), 2, 0.1) for side in (step, -step)]
        assert prediction.grad is not None
        assert float((prediction.grad.numpy() * v).sum()) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5)


def test_a_correction_along_the_error_costs_nothing_whatever_its_sign() -> None:
    error, target = draw(1, 2, 4, 32, 32), draw(2, 2, 4, 32, 32)
    for c in (-0.5, 0.3, 2.0):
        assert consistency_loss(target + error, target + error - c * error, target, 3, 1.0).item() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_no_correction_yet_gives_a_finite_loss_and_gradient(dtype: torch.dtype) -> None:
    """Where the training of adapters starts; a square root of a sum of squares would give NaN."""
    target, base = (draw(seed, 2, 4, 32, 32).to(dtype) for seed in (1, 2))
    prediction = base.clone().requires_grad_()
    loss = consistency_loss(prediction, base, target, 3, 0.1)
    loss.backward()
    assert 0 < loss.item() < 0.1
    assert prediction.grad is not None
    assert torch.isfinite(prediction.grad).all()
    perfect = target.clone().requires_grad_()
    whole = consistency_loss(perfect, target, target, 3, 0.1)
    whole.backward()
    assert whole.item() == 0
    assert perfect.grad is not None
    assert torch.isfinite(perfect.grad).all()


def gradient_ratio(loss: Callable[[Tensor, Tensor, Tensor], Tensor], size: float) -> float:
    """Gradient of a consistency loss of weight 0.1 over that of the squared error, for a smooth correction."""
    draw = torch.Generator().manual_seed(0)
    base, target = (torch.randn(1, 4, 64, 64, generator=draw, dtype=torch.float64) for _ in range(2))
    wave = torch.cos(torch.arange(64) * 2 * torch.pi / 64)
    smooth = (wave[:, None] + wave).expand(1, 4, 64, 64)
    prediction = (base + size * smooth / smooth.square().mean().sqrt()).requires_grad_()
    (extra,) = torch.autograd.grad(loss(prediction, base, target), prediction)
    (plain,) = torch.autograd.grad((prediction - target).square().mean(), prediction)
    return float(extra.norm() / plain.norm())


def test_the_published_gradient_grows_without_bound_towards_no_correction_and_ours_does_not() -> None:
    """Several times the squared error's at a correction of RMS 1e-3 (6.8 for the one that was reported), as 1 / |d|."""
    bank = FilterBank.octaves(4, (64, 64))
    published = [gradient_ratio(lambda p, b, t: consistency_loss(p, b, t, 3, 0.1), size) for size in (1e-1, 1e-3, 1e-5)]
    ours = [gradient_ratio(lambda p, b, t: 0.1 * fecl(p, b, t, bank), size) for size in (1e-1, 1e-3, 1e-5, 1e-9)]
    assert 5 < published[1] < 10
    assert published[2] == pytest.approx(100 * published[1], rel=0.05)
    assert max(ours) < 0.5


def test_the_router_has_the_published_size_and_reads_plain_shares() -> None:
    config = FeraConfig(target_modules=["to_q"], mode="published")
    weights = start_of(config)
    assert sum(weight.numel() for weight in weights) == 451
    reader = reader_of(config)
    assert reader is not None
    z = draw(4, 2, 4, 64, 64).float()
    assert torch.equal(reader(z, None), indicator(z, 3))


@pytest.mark.parametrize(("r", "experts", "alpha"), [(4, 3, None), (2, 5, 8.0)])
def test_the_scale_of_an_expert_is_alpha_over_its_rank_as_published(r: int, experts: int, alpha: float | None) -> None:
    """Gates are multiplied by their number here, and alpha is divided by the total rank."""
    config = FeraConfig(r=r, num_experts=experts, target_modules=["to_q"], mode="published", alpha=alpha)
    assert experts * config.scaling == pytest.approx((alpha or 1.0) / r)
