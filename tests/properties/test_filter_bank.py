"""Theorems of the filter bank, on fields and banks of any kind (those of energies alone: laws.py)."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from spectra.bands import FilterBank, coherence, dct_matrix
from spectra.testing import DTYPES, banks, fields, grids, scales
from tests.properties import laws
from tests.properties.laws import close, total

theorem = settings(max_examples=50)


def energies(bank: FilterBank, x: Tensor) -> Tensor:
    return bank.energies(x)


@pytest.mark.parametrize("law", laws.LAWS, ids=lambda law: law.__name__)
@theorem
@given(bank=banks(), x=fields())
def test_energies_obey_the_law_of(law: laws.Energies, bank: FilterBank, x: Tensor) -> None:
    law(energies, bank, x)


@theorem
@given(banks(), fields())
def test_bands_telescope_to_the_field(bank: FilterBank, x: Tensor) -> None:
    close(bank.split(x).sum(-3), x, x)


@theorem
@given(banks(), fields())
def test_bands_are_differences_of_scipy_gaussians_with_reflected_ends(bank: FilterBank, x: Tensor) -> None:
    close(bank.split(x), laws.scipy_bands(bank, x), x)


@theorem
@given(banks(), grids())
def test_transfers_sum_to_one_and_their_squares_to_no_less_than_one_over_k(
    bank: FilterBank, grid: tuple[int, int]
) -> None:
    D = bank.transfer(*grid)
    np.testing.assert_allclose(D.sum(0), 1, atol=1e-14)
    squares = (D**2).sum(0)
    assert squares.min() >= 1 / bank.bands - 1e-12
    assert squares.max() <= 1 + 1e-3
    assert D.min() >= -3e-4  # kernels end at four standard deviations; whole ones would stay at or above 0


@theorem
@given(banks(), fields())
def test_energies_are_the_squared_norms_of_the_bands(bank: FilterBank, x: Tensor) -> None:
    close(bank.energies(x), bank.split(x).square().sum((-2, -1)), total(x))


@theorem
@given(banks(), fields())
def test_parseval_energies_weigh_squared_coefficients(bank: FilterBank, x: Tensor) -> None:
    D, X = torch.tensor(bank.transfer(*x.shape[-2:])), bank.coefficients(x)
    close(bank.energies(x), torch.einsum("bhw,chw->cb", D.square(), X.square()), total(x))
    close(bank.weigh(X.square()), bank.energies(x), total(x))
    close(X.square().sum((-2, -1)), total(x), total(x))


@theorem
@given(banks(), fields())
def test_power_is_the_product_with_the_field_and_sums_to_its_squared_norm(bank: FilterBank, x: Tensor) -> None:
    power = bank.power(x)
    close(power, (x.unsqueeze(-3) * bank.split(x)).sum((-2, -1)), total(x))
    close(power.sum(-1), total(x), total(x))


def test_energies_do_not_sum_to_the_squared_norm() -> None:
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64).cumsum(-1)
    assert FilterBank((1, 2, 4, 8)).energies(x).sum() < 0.95 * total(x)


@theorem
@given(banks(), fields())
def test_upper_bands_hold_no_constant(bank: FilterBank, x: Tensor) -> None:
    close(bank.split(x)[..., 1:, :, :].sum((-2, -1)), torch.tensor(0.0), x.abs().sum())
    assert (bank.transfer(*x.shape[-2:])[1:, 0, 0] == 0).all()


@theorem
@given(banks(), grids(), st.integers(-1000, 1000))
def test_a_constant_is_in_the_lowest_band(bank: FilterBank, grid: tuple[int, int], c: int) -> None:
    E = bank.energies(torch.full(grid, float(c), dtype=torch.float64))
    expected = float(c * c * grid[0] * grid[1])
    close(E[0], torch.tensor(expected, dtype=torch.float64), expected)
    close(E[1:], torch.tensor(0.0), expected, 1e-28)


@theorem
@given(banks(), fields(leading=(3, 2)))
def test_channels_may_come_in_any_order(bank: FilterBank, x: Tensor) -> None:
    close(bank.energies(x[:, [1, 0]]), bank.energies(x)[:, [1, 0]], total(x))


@theorem
@given(banks(), fields(leading=()))
def test_a_product_of_a_column_and_a_row_needs_filters_in_one_dimension_only(bank: FilterBank, x: Tensor) -> None:
    u, v = x[:, 0], x[0]
    smooth = [[np.zeros(len(f)), *(gaussian_filter1d(f, s) for s in reversed(bank.scales)), f.numpy()] for f in (u, v)]
    a, b = (np.stack(s) @ np.stack(s).T for s in smooth)
    expected = [(a * b)[k + 1, k + 1] - 2 * (a * b)[k + 1, k] + (a * b)[k, k] for k in range(bank.bands)]
    close(bank.energies(torch.outer(u, v)), torch.tensor(expected), u.square().sum() * v.square().sum(), 1e-11)


def test_shifting_a_field_around_its_edge_changes_its_bands() -> None:
    """Ends are mirrored, not wrapped: content that crosses the edge meets another neighbour."""
    x = torch.arange(16, dtype=torch.float64).expand(16, 16)
    E, rolled = (FilterBank((1.0, 2.0)).energies(f) for f in (x, x.roll(8, -1)))
    assert abs(rolled[-1] / E[-1] - 1) > 0.5


@settings(max_examples=15)
@given(scales(min_bands=3, widest=12.0))
def test_wider_scales_have_lower_peaks_and_half_power_points(drawn: list[float]) -> None:
    bank = FilterBank({max(s, 1.0) for s in drawn})
    assert list(bank.frequency) == sorted(bank.frequency)
    for scale in bank.scales:
        half = math.sqrt(math.log(2)) / (2 * math.pi * scale)
        g = FilterBank((scale,)).transfer(400, 1)[0, :, 0]
        assert np.interp(half, np.arange(400) / 800, g**2) == pytest.approx(0.5, abs=5e-3)


@pytest.mark.parametrize(("a", "b", "error"), [(1.0, 1.0, 3e-4), (1.5, 2.0, 3e-4), (3.0, 4.0, 3e-4)])
def test_two_filters_in_a_row_are_one_wider_filter_from_a_scale_of_one_pixel_on(
    a: float, b: float, error: float
) -> None:
    one, two, both = (FilterBank((s,)).transfer(64, 1)[0] for s in (a, b, math.hypot(a, b)))
    assert abs(one * two - both).max() < error


def test_filters_narrower_than_a_pixel_are_no_semigroup() -> None:
    narrow, both = (FilterBank((s,)).transfer(64, 1)[0] for s in (0.4, math.hypot(0.4, 0.4)))
    assert abs(narrow**2 - both).max() > 0.1


@theorem
@given(scales(), st.floats(0.2, 40), fields())
def test_another_scale_splits_one_band_and_leaves_the_others(coarse: list[float], new: float, x: Tensor) -> None:
    assume(new not in coarse)
    before, after = (FilterBank(s).energies(x) for s in (coarse, [*coarse, new]))
    band = sum(s > new for s in coarse)  # bands run from low to high, that is from wide to narrow
    kept = torch.cat([after[..., :band], after[..., band + 2 :]], -1)
    close(kept, torch.cat([before[..., :band], before[..., band + 1 :]], -1), total(x))
    pair = after[..., band].sqrt() + after[..., band + 1].sqrt()
    assert (pair.square() >= before[..., band] - 1e-12 * total(x)).all()


@settings(max_examples=100)
@given(banks(), fields(leading=(2, 3), dtypes=DTYPES))
def test_any_type_and_any_strides_give_the_energies_of_the_same_values_in_float64(bank: FilterBank, x: Tensor) -> None:
    E = bank.energies(x)
    assert E.dtype == (torch.float64 if x.dtype == torch.float64 else torch.float32)
    exact = bank.energies(x.double().contiguous())
    close(E, exact, total(x), 1e-12 if x.dtype == torch.float64 else 1e-6)


@theorem
@given(banks(), fields())
def test_shares_and_coherence_do_not_depend_on_the_amplitude(bank: FilterBank, x: Tensor) -> None:
    assume(x.abs().max() > 0)
    close(bank.shares(7 * x), bank.shares(x), 1.0)
    close(bank.shares(x).sum(-1), torch.tensor(1.0), 1.0)
    y = x.flip(-1) + 0.1 * x
    close(coherence(3 * x, 5 * y, bank), coherence(x, y, bank), 1.0, 1e-9)
    assert coherence(x, y, bank).abs().max() <= 1


@settings(max_examples=8)
@given(banks(), st.integers(1, 5), st.integers(1, 5))
def test_gradients_are_those_of_finite_differences(bank: FilterBank, h: int, w: int) -> None:
    x = torch.tensor(np.random.default_rng(h * 9 + w).normal(size=(h, w)), requires_grad=True)
    for function in (bank.energies, bank.power, bank.split, bank.shares):
        assert torch.autograd.gradcheck(function, x, atol=1e-6)


@theorem
@given(st.integers(1, 40))
def test_the_modes_are_orthonormal(n: int) -> None:
    np.testing.assert_allclose(dct_matrix(n) @ dct_matrix(n).T, np.eye(n), atol=1e-13)
