"""Theorems of the filter bank, on fields and banks of any kind."""

import hypothesis.strategies as st
import numpy as np
import torch
from hypothesis import assume, given, settings
from scipy.ndimage import gaussian_filter
from torch import Tensor

from spectra.bands import FilterBank, coherence

theorem = settings(max_examples=60, deadline=None, derandomize=True)

scales = st.lists(st.floats(0.2, 40).map(lambda s: round(s, 3)), min_size=1, max_size=5, unique=True)
banks = scales.map(FilterBank)
sides = st.integers(1, 21)


@st.composite
def fields(draw: st.DrawFn) -> Tensor:
    """Noise of any size, spectrum, mean and magnitude: (2, h, w) float64."""
    h, w = draw(sides), draw(sides)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.normal(size=(2, h, w)) * 10.0 ** draw(st.integers(-3, 3))
    if draw(st.booleans()):
        x = x.cumsum(-1).cumsum(-2)
    return torch.tensor(x + draw(st.sampled_from([0.0, -0.3, 50.0])) * np.abs(x).max())


def close(got: Tensor, expected: Tensor, like: Tensor | float, tolerance: float = 1e-12) -> None:
    """Equal to `tolerance` relative to the size of `like`."""
    assert (got - expected).abs().max() <= tolerance * float(torch.as_tensor(like).abs().max())


def total(x: Tensor) -> Tensor:
    return x.square().sum((-2, -1))


@theorem
@given(banks, fields())
def test_bands_telescope_to_the_field(bank: FilterBank, x: Tensor) -> None:
    close(bank.split(x).sum(-3), x, x)


@theorem
@given(banks, sides, sides)
def test_transfers_sum_to_one(bank: FilterBank, h: int, w: int) -> None:
    D = bank.transfer(h, w)
    np.testing.assert_allclose(D.sum(0), 1, atol=1e-14)
    squares = (D**2).sum(0)
    assert squares.min() >= 1 / bank.bands - 1e-12


@theorem
@given(banks, fields())
def test_energies_are_the_squared_norms_of_the_bands(bank: FilterBank, x: Tensor) -> None:
    close(bank.energies(x), bank.split(x).square().sum((-2, -1)), total(x))


@theorem
@given(banks, fields())
def test_parseval_energies_weigh_squared_coefficients(bank: FilterBank, x: Tensor) -> None:
    D, X = torch.tensor(bank.transfer(*x.shape[-2:])), bank.coefficients(x)
    close(bank.energies(x), torch.einsum("bhw,chw->cb", D.square(), X.square()), total(x))
    close(X.square().sum((-2, -1)), total(x), total(x))


@theorem
@given(banks, fields())
def test_power_is_the_product_with_the_field_and_sums_to_its_squared_norm(bank: FilterBank, x: Tensor) -> None:
    power = bank.power(x)
    close(power, (x.unsqueeze(-3) * bank.split(x)).sum((-2, -1)), total(x))
    close(power.sum(-1), total(x), total(x))


@theorem
@given(banks, fields())
def test_upper_bands_hold_no_constant(bank: FilterBank, x: Tensor) -> None:
    close(bank.split(x)[..., 1:, :, :].sum((-2, -1)), torch.tensor(0.0), x.abs().sum())
    assert (bank.transfer(*x.shape[-2:])[1:, 0, 0] == 0).all()


@theorem
@given(banks, fields(), st.floats(-1e3, 1e3))
def test_energies_scale_with_the_square(bank: FilterBank, x: Tensor, a: float) -> None:
    E = bank.energies(x)
    close(bank.energies(a * x), a * a * E, a * a * total(x) + 1e-300)


@theorem
@given(banks, fields(), st.floats(-10, 10))
def test_an_offset_reaches_the_lowest_band_only(bank: FilterBank, x: Tensor, offset: float) -> None:
    c, size = offset * x.abs().max(), x.shape[-1] * x.shape[-2]
    E, shifted = bank.energies(x), bank.energies(x + c)
    expected = E[..., 0] + 2 * c * x.sum((-2, -1)) + c * c * size
    close(shifted[..., 0], expected, total(x) + c * c * size)
    close(shifted[..., 1:], E[..., 1:], total(x) + c * c * size)


@theorem
@given(banks, fields(), st.sampled_from([-1, -2]))
def test_a_field_beside_its_mirror_image_has_twice_the_energies(bank: FilterBank, x: Tensor, axis: int) -> None:
    close(bank.energies(torch.cat([x, x.flip(axis)], axis)), 2 * bank.energies(x), total(x))


@theorem
@given(banks, fields())
def test_flips_transposes_and_signs_change_nothing(bank: FilterBank, x: Tensor) -> None:
    E = bank.energies(x)
    for turned in (x.flip(-1), x.flip(-2), x.mT, x.rot90(1, (-2, -1)), -x):
        close(bank.energies(turned), E, total(x))


@theorem
@given(scales, st.floats(0.2, 40), fields())
def test_another_scale_splits_one_band_and_leaves_the_others(coarse: list[float], new: float, x: Tensor) -> None:
    assume(new not in coarse)
    before, after = (FilterBank(s).energies(x) for s in (coarse, [*coarse, new]))
    band = sum(s > new for s in coarse)  # bands run from low to high, that is from wide to narrow
    kept = torch.cat([after[..., :band], after[..., band + 2 :]], -1)
    close(kept, torch.cat([before[..., :band], before[..., band + 1 :]], -1), total(x))
    pair = after[..., band].sqrt() + after[..., band + 1].sqrt()
    assert (pair.square() >= before[..., band] - 1e-12 * total(x)).all()


@theorem
@given(banks, fields())
def test_bands_are_differences_of_scipy_gaussians_with_reflected_ends(bank: FilterBank, x: Tensor) -> None:
    blurred = [gaussian_filter(x.numpy(), (0, s, s), mode="reflect", truncate=4.0) for s in reversed(bank.scales)]
    bands = np.diff(np.stack([np.zeros_like(x), *blurred, x.numpy()], -3), axis=-3)
    close(bank.split(x), torch.tensor(bands), x)
    close(bank.energies(x), torch.tensor((bands**2).sum((-2, -1))), total(x))
    relative = bank.energies(x.float()) - torch.tensor((bands**2).sum((-2, -1)))
    close(relative, torch.tensor(0.0), total(x), 2e-6)


@theorem
@given(banks, fields())
def test_shares_and_coherence_do_not_depend_on_the_amplitude(bank: FilterBank, x: Tensor) -> None:
    assume(x.abs().max() > 0)
    close(bank.shares(7 * x), bank.shares(x), 1.0)
    close(bank.shares(x).sum(-1), torch.tensor(1.0), 1.0)
    y = x.flip(-1) + 0.1 * x
    close(coherence(3 * x, 5 * y, bank), coherence(x, y, bank), 1.0, 1e-9)
    assert coherence(x, y, bank).abs().max() <= 1


@settings(theorem, max_examples=8)
@given(banks, st.integers(1, 5), st.integers(1, 5))
def test_gradients_are_those_of_finite_differences(bank: FilterBank, h: int, w: int) -> None:
    x = torch.tensor(np.random.default_rng(h * 9 + w).normal(size=(h, w)), requires_grad=True)
    for function in (bank.energies, bank.power, bank.split, bank.shares):
        assert torch.autograd.gradcheck(function, x, atol=1e-6)
