from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from scipy.fft import idctn
from scipy.ndimage import gaussian_filter
from torch import Tensor

from adapt.fera import FeraConfig
from adapt.fera.features import FEATURES_OF, Reader, log_relative, statistics_of
from adapt.fera.noise import Clock, schedule_of
from adapt.settings.method import MethodSettings
from spectra.bands import FilterBank
from spectra.errors import UserError

SCALES = (0.8, 1.6, 3.2)
BANK = FilterBank(SCALES)
SCHEDULES = {
    "flow": schedule_of(diffusers.FlowMatchEulerDiscreteScheduler()),
    "vp": schedule_of(diffusers.DDPMScheduler()),
}


def reader(features: tuple[str, ...], kind: str = "flow") -> Reader:
    width = sum(1 if name == "log_snr" else 4 for name in features)
    return Reader(features, 4, BANK, Clock.of(SCHEDULES[kind]), (0.0,) * width, (1.0,) * width, 0.7)


def scipy_energy(x: Tensor) -> np.ndarray:
    """(batch, 4), over channels and frames."""
    sigma = (0,) * (x.ndim - 2)
    blurred = [gaussian_filter(x.double().numpy(), (*sigma, s, s), mode="reflect") for s in reversed(SCALES)]
    levels = [np.zeros_like(blurred[0]), *blurred, x.double().numpy()]
    return np.stack([((b - a) ** 2).reshape(len(x), -1).sum(1) for a, b in pairwise(levels)], -1)


@pytest.mark.parametrize("shape", [(3, 4, 16, 12), (3, 2, 5, 16, 12)])
def test_snr_is_the_energy_over_that_of_the_noise_alone(shape: tuple[int, ...]) -> None:
    """The expectation is measured here: the mean of many draws of the noise part."""
    x, t = torch.randn(shape), torch.tensor([100.0, 500.0, 900.0])
    found = reader(("snr",))(x, t)
    noise = scipy_energy(torch.randn(600, *shape[1:], generator=torch.Generator().manual_seed(0))).mean(0)
    expected = np.log(scipy_energy(x) / ((t.numpy()[:, None] / 1000) ** 2 * noise))
    np.testing.assert_allclose(found, expected, atol=0.06)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_pure_noise_has_an_snr_feature_of_zero_at_every_resolution(kind: str) -> None:
    for side in (16, 40):
        x = torch.randn(64, 4, side, side, generator=torch.Generator().manual_seed(side))
        assert reader(("snr",), kind)(x, torch.full((64,), 999.0)).mean(0).abs().max() < 0.1


def test_snr_sees_a_fixed_picture_the_better_the_less_noise_there_is() -> None:
    picture = torch.from_numpy(gaussian_filter(np.random.default_rng(0).standard_normal((1, 4, 32, 32)), (0, 0, 2, 2)))
    t = torch.tensor([950.0, 600.0, 200.0])
    noisy = (1 - t / 1000).reshape(-1, 1, 1, 1) * picture * 4 + (t / 1000).reshape(-1, 1, 1, 1) * torch.randn(
        3, 4, 32, 32
    )
    features = reader(("snr",))(noisy, t)
    assert (features.diff(dim=0)[:, :2] > 0).all()


def test_features_stand_in_the_order_of_their_names() -> None:
    x, t = torch.randn(2, 4, 16, 16), torch.tensor([300.0, 800.0])
    both = reader(("log_snr", "shares"))(x, t)
    torch.testing.assert_close(both[:, :1], reader(("log_snr",))(x, t))
    torch.testing.assert_close(both[:, 1:], reader(("shares",))(x, t))
    torch.testing.assert_close(both[:, 0], 2 * torch.log((1 - t / 1000) / (t / 1000)))


def test_the_clock_does_not_see_the_latent_and_shares_not_the_clock() -> None:
    one, two = torch.randn(2, 4, 16, 16), torch.randn(2, 4, 16, 16)
    early, late = torch.tensor([900.0, 900.0]), torch.tensor([100.0, 100.0])
    assert torch.equal(reader(("log_snr",))(one, early), reader(("log_snr",))(two, early))
    assert torch.equal(reader(("shares",))(one, early), reader(("shares",))(one, late))
    assert not torch.allclose(reader(("snr",))(one, early), reader(("snr",))(one, late))


def test_a_call_without_timestep_is_refused_where_it_is_needed() -> None:
    with pytest.raises(UserError, match="no timestep"):
        reader(("shares", "log_snr"))(torch.randn(1, 4, 16, 16), None)


def test_bands_that_a_grid_does_not_have_count_as_noise() -> None:
    energy = torch.tensor([[4.0, 0.0, 1e-30]])
    found = log_relative(energy, torch.tensor([[2.0, 0.0, 2.0]]))
    np.testing.assert_allclose(found, [[math.log(2), 0, math.log(1e-8)]], rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("t", [0.0, 1000.0])
def test_features_are_finite_at_both_ends_and_in_half_precision(dtype: torch.dtype, t: float) -> None:
    x = (torch.randn(2, 16, 128, 128) * 20).to(dtype)
    found = reader(("shares", "snr", "log_snr"))(x, torch.full((2,), t))
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("kind", SCHEDULES)
def test_features_never_ask_a_device_for_values(kind: str) -> None:
    """Tensors of the device `meta` have none, so asking would fail."""
    x, t = torch.empty(2, 4, 16, 12, device="meta"), torch.empty(2, device="meta")
    assert reader(("shares", "snr", "log_snr"), kind)(x, t).shape == (2, 9)
    assert replace(reader(("shares",)), bank=None)(x, None).shape == (2, 4)


@pytest.mark.parametrize("size", [16, 64])
@pytest.mark.parametrize("kind", SCHEDULES)
def test_statistics_of_nothing_measured_centre_pink_pictures_in_noise(size: int, kind: str) -> None:
    bank, clock = FilterBank.octaves(4, (size, size)), Clock.of(SCHEDULES[kind])
    features = ("shares", "snr", "log_snr")
    mean, std = statistics_of(features, bank, (size, size), clock)
    draw = np.random.default_rng(0)
    f = np.hypot(np.arange(size)[:, None], np.arange(size)) + (np.arange(size * size).reshape(size, size) == 0)
    pink = idctn(draw.standard_normal((64, size, size)) / f, axes=(1, 2), norm="ortho")
    t = np.linspace(0.02, 0.98, 64)
    if kind == "flow":
        weights = 1 - t, t
    else:
        square = diffusers.DDPMScheduler().alphas_cumprod.numpy()[(t * 999).astype(int)]
        weights = np.sqrt(square), np.sqrt(1 - square)
    signal, noise = (weight[:, None, None] for weight in weights)
    mixed = torch.from_numpy(signal * pink / pink.std() + noise * draw.standard_normal(pink.shape))[:, None]
    found = Reader(features, 4, bank, clock, mean, std, 0.7)(
        mixed, torch.from_numpy(t * (1000 if kind == "flow" else 999))
    )
    assert len(mean) == len(std) == 9
    assert found.mean(0).abs().max() < 1
    assert 0.2 < found.std(0).min() < found.std(0).max() < 3


def test_every_kind_of_router_among_the_settings_is_a_configuration() -> None:
    names = MethodSettings.model_fields["router"].annotation
    assert set(FEATURES_OF) == set(names.__args__)  # type: ignore[union-attr]
    widths = {"energy": 4, "energy+snr": 8, "energy+clock": 5, "clock": 1, "uniform": 4}
    for name, (features, gates) in FEATURES_OF.items():
        more: dict[str, Any] = {"noise_schedule": SCHEDULES["flow"]}
        config = FeraConfig(target_modules=["x"], features=features, gates=gates, **more)
        assert config.feature_width == widths[name]
        assert config.timed == (name in ("energy+snr", "energy+clock", "clock"))
