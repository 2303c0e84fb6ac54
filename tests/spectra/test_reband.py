"""Other bands from a radial spectrum: the true energies are always within the bounds, and the bounds are attained."""

import subprocess
import sys

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from torch import Tensor

from spectra.bands import FilterBank, from_coefficients, radial_modes, radial_spectrum, radii, radius
from spectra.errors import UserError
from spectra.reband import Rebanded, reband
from spectra.testing import banks, fields, grids


def rebanded(x: Tensor, bins: int, bank: FilterBank) -> Rebanded:
    h, w = x.shape[-2:]
    return reband(radial_spectrum(x, bins).numpy(), radii(bins, h, w), (h, w), bank)


@settings(max_examples=200)
@given(banks(), fields(), st.integers(1, 40))
def test_the_true_energies_are_between_low_and_high(bank: FilterBank, x: Tensor, bins: int) -> None:
    E, found, rounding = bank.energies(x).numpy(), rebanded(x, bins, bank), 1e-12 * float(x.square().sum())
    assert (found.low <= E + rounding).all()
    assert (found.high >= E - rounding).all()
    assert (found.low <= found.value).all()
    assert (found.value <= found.high).all()


@settings(max_examples=50)
@given(banks(), grids(), st.integers(1, 20), st.booleans())
def test_some_field_reaches_either_bound(bank: FilterBank, grid: tuple[int, int], bins: int, upper: bool) -> None:
    """All of a bin's energy in the one mode where a band passes most, or least."""
    assume(grid != (1, 1))
    band = bank.bands - 1
    of_mode = np.minimum((radius(*grid) / radius(*grid).max() * bins).astype(int), bins - 1)
    square = bank.transfer(*grid)[band] ** 2
    X = np.zeros(grid)
    for index in np.unique(of_mode):
        inside = np.where(of_mode == index, square, -np.inf if upper else np.inf)
        X[np.unravel_index(inside.argmax() if upper else inside.argmin(), grid)] = 1.0 + index
    x = from_coefficients(torch.tensor(X))
    found, E = rebanded(x, bins, bank), float(bank.energies(x)[band])
    assert pytest.approx((found.high if upper else found.low)[band], rel=1e-9, abs=1e-12 * (X**2).sum()) == E


@settings(max_examples=50)
@given(banks(), grids(), st.integers(1, 20))
def test_the_estimate_is_exact_where_power_is_constant_within_bins(
    bank: FilterBank, grid: tuple[int, int], bins: int
) -> None:
    modes = radial_modes(bins, *grid)
    found = reband(modes.astype(float), radii(bins, *grid), grid, bank)  # every mode has the power 1
    np.testing.assert_allclose(found.value, bank.white_noise(*grid).mean, rtol=1e-12, atol=1e-25)


def power_law(exponent: float, grid: tuple[int, int], n: int = 8) -> Tensor:
    f = np.maximum(radius(*grid), 0.5 / max(grid))
    z = np.random.default_rng(0).normal(size=(n, *grid))
    return from_coefficients(torch.tensor(z * f ** (-exponent / 2)))


@pytest.mark.parametrize(("side", "error"), [(32, 0.09), (64, 0.07), (128, 0.04)])
@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_64_bins_tell_other_octaves_within_a_fifth_and_usually_far_closer(
    side: int, error: float, exponent: float
) -> None:
    """Half widths of the bounds and errors of the estimate over the energy, for single fields and power laws."""
    x, bank = power_law(exponent, (side, side)), FilterBank((0.9, 1.9, 3.7))
    E, found = bank.energies(x).numpy(), rebanded(x, 64, bank)
    assert ((found.high - found.low) / E / 2).max() < 0.23
    assert (abs(found.value - E) / E).max() < error
    assert ((found.high - found.low) / E / 2)[:, -1].max() < 0.04
    assert (abs(found.value - E) / E)[:, -1].max() < 0.005


def test_sums_over_channels_and_gaps_pass_through() -> None:
    x = torch.randn(2, 3, 9, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    S, bank = radial_spectrum(x, 16).numpy(), FilterBank((1.0, 2.0))
    one = reband(S, radii(16, 9, 12), (9, 12), bank)
    summed = reband(S.sum(1), radii(16, 9, 12), (9, 12), bank)
    assert one.value.shape == (2, 3, 3)
    for a, b in zip(one, summed, strict=True):
        np.testing.assert_allclose(a.sum(1), b)
    S[0, 0] = np.nan
    assert np.isnan(reband(S, radii(16, 9, 12), (9, 12), bank).high[0, 0]).all()


def test_spectra_of_another_grid_are_refused() -> None:
    for spectrum, grid in ((np.ones(16), (9, 13)), (np.ones(15), (9, 12)), (np.float64(1), (9, 12))):
        with pytest.raises(UserError, match="not those of a radial spectrum"):
            reband(spectrum, radii(16, 9, 12), grid, FilterBank((1.0,)))


def test_rebanding_needs_no_torch() -> None:
    code = """
import sys
import numpy as np
from spectra.bands import FilterBank, radii
from spectra.reband import reband
reband(np.ones(8), radii(8, 5, 7), (5, 7), FilterBank((1.0,)))
assert "torch" not in sys.modules
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
