"""What a filter bank promises about scales, types, devices, precision and bad input (theorems: tests/properties)."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from spectra.bands import FilterBank, coefficients, coherence
from spectra.errors import UserError
from tests.properties.laws import scipy_bands

BANK = FilterBank((0.8, 1.6, 3.2))


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def test_transfers_need_no_torch() -> None:
    code = """
import sys
from spectra.bands import FilterBank, radial_modes, radii
bank = FilterBank.octaves(4, (16, 16))
bank.transfer(5, 7), bank.white_noise(5, 7), bank.frequency, radii(8, 5, 7), radial_modes(8, 5, 7)
assert "torch" not in sys.modules
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_scales_are_sorted_and_banks_compare_by_them() -> None:
    assert FilterBank([3.2, 0.8, 1.5]) == FilterBank(iter((0.8, 1.5, 3.2)))
    assert FilterBank(np.float32([2, 0.5])).scales == (0.5, 2.0)
    assert FilterBank(s for s in (4, 2)).scales == (2.0, 4.0)
    assert hash(FilterBank([1, 2])) == hash(FilterBank((2.0, 1.0)))
    assert FilterBank.from_dict(BANK.to_dict()) == BANK


@pytest.mark.parametrize("scales", [(0.0,), (-1.0,), (1.0, 1.0), (float("nan"),), (float("inf"),), ("a",), 3.0, (1e7,)])
def test_impossible_scales_are_refused(scales: object) -> None:
    with pytest.raises(UserError, match="scales of a filter bank"):
        FilterBank(scales)  # type: ignore[arg-type]


def test_descriptions_of_other_banks_are_refused() -> None:
    for saved in ({"scales": [1.0], "truncate": 3.0}, {"sigmas": [1.0]}):
        with pytest.raises(UserError, match="not a filter bank"):
            FilterBank.from_dict(saved)


def test_octaves_double_where_they_fit() -> None:
    assert FilterBank.octaves(4, (16, 16)).scales == (0.8, 1.6, 3.2)
    assert FilterBank.octaves(4, (64, 96)).scales == (3.2, 6.4, 12.8)
    assert FilterBank.octaves(2, (16, 16)).scales == (0.8,)
    assert FilterBank.octaves(1, (16, 16)).scales == ()
    with pytest.raises(UserError, match="at least 1 band"):
        FilterBank.octaves(0, (16, 16))


@pytest.mark.parametrize("grid", [(1, 1), (1, 40), (4, 4), (7, 9), (16, 16), (24, 32), (64, 64), (128, 60)])
@pytest.mark.parametrize("bands", [2, 3, 4, 6, 9])
def test_octaves_stay_between_half_a_pixel_and_the_grid(bands: int, grid: tuple[int, int]) -> None:
    bank = FilterBank.octaves(bands, grid)
    side = min(n for n in (*grid, max(grid)) if n > 1 or max(grid) == 1)
    assert bank.bands == bands
    assert bank.scales[0] >= 0.5
    assert bank.scales[-1] <= max(0.4 * side, 1.0) + 1e-6
    assert all(t / s <= 2 + 1e-6 for s, t in zip(bank.scales, bank.scales[1:], strict=False))


def test_relative_scales_are_fractions_of_the_shorter_side() -> None:
    assert FilterBank.relative((0.1, 0.2), (20, 40)).scales == (2.0, 4.0)


def test_band_labels_run_from_low_to_high() -> None:
    assert BANK.scale_low == (float("inf"), 3.2, 1.6, 0.8)
    assert BANK.scale_high == (3.2, 1.6, 0.8, 0.0)
    assert BANK.frequency[0] == 0.0
    assert BANK.frequency[-1] == 0.5
    assert sorted(BANK.frequency) == list(BANK.frequency)
    assert len(BANK.frequency) == BANK.bands
    assert FilterBank(()).frequency == (0.0,)


def test_frequency_is_where_the_transfer_peaks() -> None:
    n = 400
    D = FilterBank((1.5, 3.0, 6.0)).transfer(n, n)[:, :, 0]
    for band, frequency in list(enumerate(FilterBank((1.5, 3.0, 6.0)).frequency))[1:-1]:
        assert D[band].argmax() / (2 * n) == pytest.approx(frequency, abs=1.5 / (2 * n))


def test_pure_cosine_has_the_squared_transfer_as_its_energies() -> None:
    X = np.zeros((12, 10))
    X[3, 2] = 1.0
    n, m = np.arange(12), np.arange(10)
    x = np.outer(np.cos(np.pi * 3 * (2 * n + 1) / 24) / np.sqrt(6), np.cos(np.pi * 2 * (2 * m + 1) / 20) / np.sqrt(5))
    np.testing.assert_allclose(BANK.energies(torch.tensor(x)), BANK.transfer(12, 10)[:, 3, 2] ** 2, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_low_precision_fields_are_measured_in_float32(dtype: torch.dtype, offset: float) -> None:
    x = (noise(4, 24, 17) + offset).to(dtype)
    for method in (BANK.energies, BANK.power, BANK.shares, BANK.split, coefficients):
        got = method(x)
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), method(x.double()), rtol=3e-6, atol=3e-6 * (1 + offset))


SIZES = [(h, w) for h in range(1, 8) for w in range(1, 8)] + [
    (1, 300),
    (300, 1),
    (63, 65),
    (64, 64),
    (128, 96),
    (90, 7),
]
WIDE = FilterBank((0.3, 0.8, 2.0, 5.0, 31.0))  # kernels of up to 249 pixels, wider than nearly all of these


@pytest.mark.parametrize("grid", SIZES)
def test_energies_are_those_of_scipy_on_every_grid(grid: tuple[int, int]) -> None:
    x = noise(3, *grid, seed=sum(grid)) - 0.4
    expected = scipy_bands(WIDE, x).square().sum((-2, -1))
    size = x.square().sum((-2, -1))[:, None]
    rounding = 1e-14 * size  # what differences of nearly equal fields leave in empty bands
    assert ((WIDE.energies(x) - expected).abs() <= 1e-12 * expected + rounding).all()
    single = x.float()
    expected = scipy_bands(WIDE, single).square().sum((-2, -1))
    usual = size * torch.tensor(WIDE.transfer(*grid) ** 2).mean((1, 2))  # where a band has least by chance
    assert ((WIDE.energies(single) - expected).abs() <= 1e-6 * torch.maximum(expected, usual) + rounding).all()


@pytest.mark.parametrize("offset", [0.0, 30.0])
@pytest.mark.parametrize("octaves", [3, 5, 8])
@pytest.mark.parametrize("shape", [(16, 64, 64), (80, 64, 64), (20, 128, 128), (2, 61, 104)])
def test_float32_energies_are_right_to_a_millionth(shape: tuple[int, ...], octaves: int, offset: float) -> None:
    """Of a band's energy, or of what it has on average where single modes have next to nothing by chance."""
    bank, x = FilterBank.octaves(octaves, (shape[-2], shape[-1])), noise(*shape).float() + offset
    E, exact = bank.energies(x), bank.energies(x.double())
    usual = torch.tensor(bank.white_noise(*shape[-2:]).mean)
    assert ((E - exact).abs() <= 1e-6 * torch.maximum(exact, usual)).all()


def test_large_half_precision_values_do_not_overflow() -> None:
    assert BANK.energies(torch.full((16, 16), 300.0, dtype=torch.float16)).isfinite().all()


def test_integers_are_fields_too() -> None:
    x = torch.arange(30, dtype=torch.uint8).view(5, 6)
    torch.testing.assert_close(BANK.energies(x), BANK.energies(x.float()))


def test_a_sample_does_not_see_its_neighbours() -> None:
    x = noise(3, 2, 16, 16)
    alone = BANK.energies(x[1])
    x[0], x[2] = float("nan"), float("inf")
    torch.testing.assert_close(BANK.energies(x)[1], alone, rtol=1e-14, atol=0)


def test_shares_sum_to_one_and_are_safe_at_zero() -> None:
    x = torch.stack([noise(16, 16), torch.zeros(16, 16, dtype=torch.float64)]).requires_grad_()
    shares = BANK.shares(x)
    torch.testing.assert_close(shares.sum(-1), torch.tensor([1.0, 0.0], dtype=torch.float64))
    (gradient,) = torch.autograd.grad(shares[..., 0].sum(), x)
    assert gradient.isfinite().all()


def test_white_noise_has_the_stated_mean_covariance_and_freedom() -> None:
    E = BANK.energies(noise(20_000, 16, 12)).numpy()
    floor = BANK.white_noise(16, 12)
    assert (abs(E.mean(0) - floor.mean) < 4 * np.sqrt(floor.variance / len(E))).all()
    spread = np.sqrt(np.outer(floor.variance, floor.variance))
    np.testing.assert_allclose(np.cov(E.T) / spread, floor.covariance / spread, atol=0.06)
    np.testing.assert_array_equal(floor.covariance.diagonal(), floor.variance)
    np.testing.assert_allclose(floor.dof, 2 * floor.mean**2 / floor.variance)


def test_energies_of_noise_spread_like_a_chi_squared_of_the_stated_freedom() -> None:
    E, floor = BANK.energies(noise(20_000, 16, 12)).numpy(), BANK.white_noise(16, 12)
    for band in range(BANK.bands):
        expected = chi2.ppf((0.5, 0.95), floor.dof[band]) / floor.dof[band]
        np.testing.assert_allclose(np.quantile(E[:, band] / floor.mean[band], (0.5, 0.95)), expected, atol=0.03)


def by_hand(scales: tuple[float, ...], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance on n x n from integrals over the circle and their end terms, without a transform.

    Per axis, (1/n) sum of products of Gaussians over the modes is 1 / sqrt(2 pi sum s^2) + 1 / (2 n).
    """
    widths = (math.inf, *reversed(scales), 0.0)  # of the Gaussians from the empty one to the identity

    def product(*which: int) -> float:
        total = sum(widths[i] ** 2 for i in which)
        side = 1.0 if total == 0 else 0.0 if math.isinf(total) else 1 / math.sqrt(2 * math.pi * total) + 1 / (2 * n)
        return n * n * side**2

    def band(b: int) -> list[tuple[int, tuple[int, int]]]:
        return [(1, (b + 1, b + 1)), (-2, (b + 1, b)), (1, (b, b))]

    bands = range(len(scales) + 1)
    mean = [sum(p * product(*i) for p, i in band(a)) for a in bands]
    covariance = [
        [2 * sum(p * q * product(*i, *j) for p, i in band(a) for q, j in band(b)) for b in bands] for a in bands
    ]
    return np.array(mean), np.array(covariance)


@pytest.mark.parametrize(("scales", "n"), [((1.0, 2.0, 4.0), 64), ((2.0, 4.0, 8.0), 96), ((1.5,), 128)])
def test_white_noise_agrees_with_the_closed_form_without_transforms(scales: tuple[float, ...], n: int) -> None:
    mean, covariance = by_hand(scales, n)
    floor = FilterBank(scales).white_noise(n, n)
    np.testing.assert_allclose(floor.mean, mean, rtol=1e-3)
    spread = np.sqrt(np.outer(floor.variance, floor.variance))
    np.testing.assert_allclose(floor.covariance / spread, covariance / spread, atol=3e-3)


@pytest.mark.parametrize("grid", [(16, 16), (48, 32), (64, 64)])
def test_noise_is_one_relative_to_its_floor_at_every_resolution(grid: tuple[int, int]) -> None:
    floor, count = BANK.white_noise(*grid), 400
    relative = BANK.relative_to_noise(BANK.energies(3 * noise(count, *grid)), *grid, variance=9.0)
    assert (abs(relative.mean(0).numpy() - 1) < 4 * np.sqrt(2 / floor.dof / count)).all()
    as_array = BANK.relative_to_noise(BANK.energies(3 * noise(count, *grid)).numpy(), *grid, variance=9.0)
    np.testing.assert_allclose(as_array, relative, rtol=1e-14)


def test_bands_that_a_grid_does_not_have_are_not_a_number_relative_to_noise() -> None:
    assert np.isnan(BANK.relative_to_noise(np.ones((2, 4)), 1, 1)[:, 1:]).all()
    assert BANK.relative_to_noise(torch.ones(4), 1, 1)[0] == 1
    assert BANK.relative_to_noise(torch.ones(4, dtype=torch.bfloat16), 8, 8).dtype == torch.float32
    with pytest.raises(UserError, match="energies of this bank"):
        BANK.relative_to_noise(np.ones(3), 8, 8)


def test_coherence_is_a_cosine_over_channels_and_pixels() -> None:
    x, y = noise(2, 4, 16, 12), noise(2, 4, 16, 12, seed=1)
    a, b = (BANK.split(f).movedim(-3, 1).flatten(2) for f in (x, y))
    torch.testing.assert_close(coherence(x, y, BANK), torch.cosine_similarity(a, b, dim=-1))
    torch.testing.assert_close(coherence(x, 3 * x, BANK), torch.ones(2, 4, dtype=torch.float64))
    torch.testing.assert_close(coherence(x, -x, BANK), -torch.ones(2, 4, dtype=torch.float64))


def test_coherence_is_zero_where_there_is_nothing_and_broadcasts_a_reference() -> None:
    x = noise(3, 4, 8, 8)
    assert torch.equal(coherence(x, torch.zeros_like(x), BANK), torch.zeros(3, 4, dtype=torch.float64))
    torch.testing.assert_close(coherence(x, x[0], BANK)[0], torch.ones(4, dtype=torch.float64))
    assert coherence(x.bfloat16(), x, BANK).dtype == torch.float64
    with pytest.raises(UserError, match="two fields"):
        coherence(x, x[..., :4], BANK)
    with pytest.raises(UserError, match="two fields"):
        coherence(x[0, 0], x[0, 0], BANK)
