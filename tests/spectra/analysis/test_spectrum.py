"""Spectral exponents, and other bands from the radial spectrum of a cube."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from spectra.analysis.kernels import band_exponents, band_sums, bin_frequency, exponents, fitted_bins, slope_weights
from spectra.analysis.labels import relative, shares
from spectra.analysis.spectrum import reband, slope
from spectra.bands import FilterBank
from spectra.errors import UserError
from spectra.gaussian import GaussianField, flow_levels
from spectra.radial import radial_modes, radius
from tests.spectra.synthetic import gaussian_cube, synthetic_cube

GRID = (24, 32)
BANK = FilterBank((0.8, 1.6, 3.2, 6.4))


def power_law(exponent: float, channels: int = 2) -> xr.Dataset:
    field = GaussianField.power_law((channels, *GRID), exponent)
    return gaussian_cube(field, flow_levels(np.linspace(1, 0, 201)), bank=BANK, runs=12)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 3.0])
def test_the_exponent_of_a_power_law_is_found(exponent: float) -> None:
    """200 steps keep 96 % and more of the energy of every band, so the samples have the spectrum of the data."""
    found = slope(power_law(exponent), "latent").isel(step=-1)
    assert found.alpha == pytest.approx(exponent, abs=0.06)
    assert found.low < found.alpha < found.high
    assert found.high - found.low < 0.15
    np.testing.assert_allclose(found.alpha_bands, exponent, atol=0.2)
    assert found.pair_of_bands.values.tolist() == ["1-2", "2-3"]
    assert found.attrs["fit_range"][1] == 0.5
    assert found.attrs["n"] == 12


def test_noise_is_white_and_samples_are_not() -> None:
    cube = synthetic_cube(prompts=4, seeds=2, steps=20)
    found = slope(cube)
    start, end = (found.sel(signal="latent").isel(step=step) for step in (0, -1))
    assert start.low < 0 < start.high
    assert start.alpha_bands_low < 0 < start.alpha_bands_high
    assert 1.5 < end.low < end.alpha < end.high < 3
    assert found.alpha.dims == ("step", "signal")
    assert np.isnan(found.alpha.sel(signal="x0")[-1])
    assert np.isfinite(found.alpha.sel(signal="x0")[:-1]).all()


def test_the_fit_is_that_of_linregress_on_every_mode() -> None:
    modes, use = radial_modes(16, *GRID), fitted_bins(16, GRID, 0.05, 0.5)
    power = np.random.default_rng(0).gamma(3, size=(5, 16))
    found = exponents(power, slope_weights(16, GRID, 0.05, 0.5))
    x = np.repeat(np.log(bin_frequency(16, GRID)[use]), modes[use])
    for alpha, row in zip(found, power, strict=True):
        assert alpha == pytest.approx(-stats.linregress(x, np.repeat(np.log(row[use]), modes[use])).slope)


def test_a_bin_stands_at_the_geometric_mean_of_its_modes() -> None:
    r, found = radius(*GRID), bin_frequency(16, GRID)
    inside = r[(r >= r.max() / 16 * 3) & (r < r.max() / 16 * 4)]
    assert found[3] == pytest.approx(np.exp(np.log(inside).mean()))
    assert found[0] == 0
    assert not fitted_bins(16, GRID, 0.0, 1.0)[0]


@pytest.mark.parametrize(("exponent", "ratio"), [(0, 3.97), (1, 1.98), (2, 0.990), (3, 0.494)])
def test_octaves_of_a_power_law_have_ratios_of_powers_of_two(exponent: int, ratio: float) -> None:
    """E_above / E_below = 2^(2 - alpha) for octaves well inside a 512 x 512 grid."""
    bank, grid = FilterBank((2.0, 4.0, 8.0, 16.0)), (512, 512)
    f = np.maximum(radius(*grid), 1e-3)
    E = band_sums(f**-exponent, bank)
    assert E[3] / E[2] == pytest.approx(ratio, rel=0.02)
    assert band_exponents(E, bank, grid)[-1] == pytest.approx(exponent, abs=0.03)
    assert band_exponents(E, bank, grid)[-1] == pytest.approx(2 - np.log2(E[3] / E[2]), abs=0.05)


def test_white_noise_has_exponent_zero_on_any_grid() -> None:
    for grid in ((8, 8), (12, 40)):
        bank = FilterBank.octaves(5, grid)
        np.testing.assert_allclose(band_exponents(bank.white_noise(*grid).mean, bank, grid), 0, atol=1e-12)


def test_few_bands_leave_the_check_empty_and_few_bins_are_refused() -> None:
    cube = synthetic_cube(prompts=2, seeds=1, steps=2, bank=FilterBank((1.0, 2.0)))
    assert slope(cube).sizes["pair_of_bands"] == 0
    with pytest.raises(UserError, match=r"needs 3 radial bins .* give a wider fit_range"):
        slope(cube, fit_range=(0.1, 0.15))
    with pytest.raises(UserError, match="no complete run"):
        slope(cube.isel(run=slice(0, 0)))


def test_the_fit_range_is_obeyed() -> None:
    """Power that falls only above 0.25 cycles: two ranges, two exponents."""
    field = GaussianField.power_law((1, *GRID), 0.0)
    bent = GaussianField(field.mean, np.minimum(1, (0.25 / np.maximum(radius(*GRID), 1e-9)) ** 3)[None])
    cube = gaussian_cube(bent, flow_levels(np.linspace(1, 0, 201)), bank=BANK, runs=16)
    flat, steep = (slope(cube, "latent", fit_range=r).alpha[-1] for r in ((0.05, 0.24), (0.28, 0.5)))
    assert flat == pytest.approx(0, abs=0.15)
    assert steep == pytest.approx(3, abs=0.3)


# Other bands


def test_other_bands_of_a_cube_are_inside_their_bounds() -> None:
    other = FilterBank((1.0, 3.0))
    field = GaussianField.power_law((2, *GRID), 2.0)
    levels = flow_levels(np.linspace(1, 0, 11))
    recorded, wanted = (gaussian_cube(field, levels, bank=bank, runs=4) for bank in (BANK, other))
    found = reband(recorded, other)
    assert found.energy.dims == ("run", "step", "signal", "band")
    truth = wanted.energy.sum("channel", skipna=False).isel(step=slice(0, -1))
    inside = found.isel(step=slice(0, -1))
    assert ((inside.low <= truth * (1 + 1e-9)) & (truth <= inside.high * (1 + 1e-9))).all()
    np.testing.assert_allclose((inside.energy / truth).sel(signal="latent").mean("run"), 1, atol=0.1)
    assert found.prompt.values.tolist() == recorded.prompt.values.tolist()
    np.testing.assert_allclose(found.frequency, other.frequency)


def test_rebanded_energies_can_be_analysed_like_recorded_ones() -> None:
    cube = power_law(0.0)
    found = reband(cube, FilterBank((1.0, 3.0)))
    np.testing.assert_allclose(shares(found).sum("band"), 1)
    np.testing.assert_allclose(relative(found).sel(signal="latent").isel(step=0).mean("run"), 1, atol=0.2)


def test_rebanding_a_lazy_cube_is_lazy() -> None:
    cube = power_law(1.0)
    lazy = reband(cube.chunk({"run": 5}), FilterBank((1.0, 3.0)))
    assert lazy.energy.chunks is not None
    xr.testing.assert_allclose(lazy.compute(), reband(cube, FilterBank((1.0, 3.0))))
