"""What a filter bank promises about scales, types, devices, precision and bad input (theorems: tests/properties)."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from spectra.bands import FilterBank, coefficients, coherence, radial_modes, radial_spectrum, radii
from spectra.errors import UserError

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


def test_coefficients_are_the_orthonormal_dct() -> None:
    x = noise(3, 9, 5) + 7
    np.testing.assert_allclose(coefficients(x), dctn(x.numpy(), axes=(-2, -1), norm="ortho"), atol=1e-13)
    assert torch.equal(BANK.coefficients(x), coefficients(x))


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


def test_float32_energies_are_right_to_a_millionth() -> None:
    x = noise(8, 128, 128)
    torch.testing.assert_close(BANK.energies(x.float()).double(), BANK.energies(x), rtol=1e-6, atol=0)


def test_large_half_precision_values_do_not_overflow() -> None:
    assert BANK.energies(torch.full((16, 16), 300.0, dtype=torch.float16)).isfinite().all()


def test_integers_are_fields_too() -> None:
    x = torch.arange(30, dtype=torch.uint8).view(5, 6)
    torch.testing.assert_close(BANK.energies(x), BANK.energies(x.float()))


def test_autocast_does_not_lower_the_precision() -> None:
    x = noise(2, 4, 16, 16, dtype=torch.float32)
    plain = BANK.energies(x), BANK.split(x), coherence(x, x.roll(1, 0), BANK), radial_spectrum(x, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = BANK.energies(x), BANK.split(x), coherence(x, x.roll(1, 0), BANK), radial_spectrum(x, 8)
    assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))


def test_reduced_matmul_precision_does_not_reach_the_products() -> None:
    x, before = noise(4, 16, 16), torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        got = BANK.energies(x.float())
    finally:
        torch.set_float32_matmul_precision(before)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), BANK.energies(x.float().double()), rtol=1e-7, atol=0)


def test_matrices_first_made_in_inference_mode_serve_in_training() -> None:
    bank = FilterBank((0.77, 2.345))  # used nowhere else, hence not cached
    with torch.inference_mode():
        bank.energies(torch.ones(11, 13))
    x = noise(11, 13, dtype=torch.float32).requires_grad_()
    bank.energies(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_a_sample_does_not_see_its_neighbours() -> None:
    x = noise(3, 2, 16, 16)
    alone = BANK.energies(x[1])
    x[0], x[2] = float("nan"), float("inf")
    torch.testing.assert_close(BANK.energies(x)[1], alone, rtol=1e-14, atol=0)


def test_strides_do_not_matter() -> None:
    x = noise(9, 14, 3, 2)
    torch.testing.assert_close(BANK.energies(x.permute(3, 2, 1, 0)), BANK.energies(x.permute(3, 2, 1, 0).contiguous()))


def test_shapes_only_are_enough_on_a_device_without_data() -> None:
    assert BANK.energies(torch.empty(2, 4, 16, 16, device="meta")).shape == (2, 4, 4)
    assert BANK.split(torch.empty(2, 4, 16, 16, device="meta")).shape == (2, 4, 4, 16, 16)


@pytest.mark.parametrize("x", [torch.zeros(4), torch.zeros(0, 4), torch.zeros(4, 4, dtype=torch.complex64)])
def test_what_is_not_a_field_is_refused(x: torch.Tensor) -> None:
    with pytest.raises(UserError, match="a field is a real tensor"):
        BANK.energies(x)


def test_shares_sum_to_one_and_are_safe_at_zero() -> None:
    x = torch.stack([noise(16, 16), torch.zeros(16, 16, dtype=torch.float64)]).requires_grad_()
    shares = BANK.shares(x)
    torch.testing.assert_close(shares.sum(-1), torch.tensor([1.0, 0.0], dtype=torch.float64))
    (gradient,) = torch.autograd.grad(shares[..., 0].sum(), x)
    assert gradient.isfinite().all()


def test_white_noise_has_the_stated_mean_variance_and_freedom() -> None:
    E = BANK.energies(noise(20_000, 16, 12)).numpy()
    mean, variance, dof = BANK.white_noise(16, 12)
    error = np.sqrt(variance / len(E))
    assert (abs(E.mean(0) - mean) < 4 * error).all()
    np.testing.assert_allclose(E.var(0), variance, rtol=0.08)
    np.testing.assert_allclose(dof, 2 * mean**2 / variance)


def test_white_noise_agrees_with_the_closed_form_of_the_infinite_sums() -> None:
    n, s = 64, (2.0, 4.0)
    side = [
        [1 / np.sqrt(2 * np.pi * (a * a + b * b)) + 1 / (2 * n) if a or b else 1.0 for b in (0.0, *s)]
        for a in (0.0, *s)
    ]
    T = np.array(side) ** 2
    exact = n * n * np.array([T[2, 2], T[1, 1] - 2 * T[1, 2] + T[2, 2], T[0, 0] - 2 * T[0, 1] + T[1, 1]])
    np.testing.assert_allclose(FilterBank(s).white_noise(n, n).mean, exact, rtol=2e-3)


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


@pytest.mark.parametrize(("h", "w", "bins"), [(16, 16, 16), (9, 14, 5), (4, 4, 40), (1, 1, 3)])
def test_radial_spectrum_sums_to_the_squared_norm(h: int, w: int, bins: int) -> None:
    x = noise(2, 3, h, w) + 1
    spectrum = radial_spectrum(x, bins)
    assert spectrum.shape == (2, 3, bins)
    torch.testing.assert_close(spectrum.sum(-1), x.square().sum((-2, -1)))
    assert radial_modes(bins, h, w).sum() == h * w


def test_radial_spectrum_puts_a_cosine_into_the_bin_of_its_frequency() -> None:
    h, w, bins, k = 20, 32, 12, 9
    x = torch.cos(torch.pi * k * (2 * torch.arange(w, dtype=torch.float64) + 1) / (2 * w)).expand(h, w)
    spectrum = radial_spectrum(x, bins)
    assert spectrum.argmax() == np.abs(radii(bins, h, w) - k / (2 * w)).argmin()
    assert spectrum.max() == pytest.approx(float(x.square().sum()))


def test_radial_bins_need_a_positive_number() -> None:
    for call in (lambda: radii(0, 4, 4), lambda: radial_modes(0, 4, 4), lambda: radial_spectrum(torch.ones(4, 4), 0)):
        with pytest.raises(UserError, match="at least 1"):
            call()
