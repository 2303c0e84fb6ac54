"""The laws of tests/properties/laws.py catch implementations with well-known mistakes."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy.ndimage import gaussian_filter
from torch import Tensor

from spectra.bands import FilterBank, dct_matrix
from spectra.testing import banks, fields
from tests.properties import laws


def right(bank: FilterBank, x: Tensor) -> Tensor:
    return bank.energies(x)


def in_space(mode: str, squared_sum: Callable[[np.ndarray], np.ndarray], bank: FilterBank, x: Tensor) -> Tensor:
    blurred = [gaussian_filter(x.numpy(), s, mode=mode, axes=(-2, -1)) for s in reversed(bank.scales)]
    bands = np.diff(np.stack([np.zeros_like(x), *blurred, x.numpy()], -3), axis=-3)
    return torch.tensor(squared_sum(bands**2))


def mirrored_at_pixel_centres(bank: FilterBank, x: Tensor) -> Tensor:
    return in_space("mirror", lambda squares: squares.sum((-2, -1)), bank, x)


def wrapped_around(bank: FilterBank, x: Tensor) -> Tensor:
    return in_space("wrap", lambda squares: squares.sum((-2, -1)), bank, x)


def mean_instead_of_sum(bank: FilterBank, x: Tensor) -> Tensor:
    return in_space("reflect", lambda squares: squares.mean((-2, -1)), bank, x)


def power_instead_of_energy(bank: FilterBank, x: Tensor) -> Tensor:
    return bank.power(x)


def high_to_low(bank: FilterBank, x: Tensor) -> Tensor:
    return bank.energies(x).flip(-1)


def blurred_across_the_batch(bank: FilterBank, x: Tensor) -> Tensor:
    blurred = [gaussian_filter(x.numpy(), s, mode="reflect") for s in reversed(bank.scales)]
    bands = np.diff(np.stack([np.zeros_like(x), *blurred, x.numpy()], -3), axis=-3)
    return torch.tensor((bands**2).sum((-2, -1)))


def channels_folded_into_the_batch(bank: FilterBank, x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    return bank.energies(x.reshape(c, b, h, w)).transpose(0, 1)


def mean_of_the_whole_batch_removed(bank: FilterBank, x: Tensor) -> Tensor:
    return bank.energies(x - x.mean())


def products_in_bfloat16(bank: FilterBank, x: Tensor) -> Tensor:
    rows, columns = (torch.tensor(dct_matrix(n)).bfloat16() for n in x.shape[-2:])
    square = (rows @ x.bfloat16() @ columns.mT).double().square()
    return torch.einsum("...hw,khw->...k", square, torch.tensor(bank.transfer(*x.shape[-2:]) ** 2))


WRONG = (
    mirrored_at_pixel_centres, wrapped_around, mean_instead_of_sum, power_instead_of_energy, high_to_low,
    blurred_across_the_batch, channels_folded_into_the_batch, mean_of_the_whole_batch_removed, products_in_bfloat16,
)  # fmt: skip
FLOAT32 = 1e-5  # of the squared norm: room for float32, none for bfloat16

x = torch.randn(3, 2, 12, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + torch.arange(
    6, dtype=torch.float64
).view(3, 2, 1, 1)
BANK = FilterBank((0.8, 1.6, 3.2))


def broken(energies: laws.Energies, bank: FilterBank, x: Tensor, tolerance: float = FLOAT32) -> set[str]:
    """Names of the laws that do not hold."""
    names = set()
    for law in laws.LAWS:
        try:
            law(energies, bank, x) if law is laws.bounds else law(energies, bank, x, tolerance)
        except AssertionError:
            names.add(law.__name__)
    return names


@settings(max_examples=30)
@given(banks(), fields(leading=(2, 2)))
def test_the_filter_bank_breaks_no_law(bank: FilterBank, x: Tensor) -> None:
    assert not broken(right, bank, x, laws.EXACT)


@pytest.mark.parametrize("energies", WRONG, ids=lambda f: f.__name__)
def test_every_wrong_implementation_differs_from_the_filters_in_space(energies: laws.Energies) -> None:
    assert "as_in_space" in broken(energies, BANK, x)


@pytest.mark.parametrize(
    ("energies", "law"),
    [
        (mirrored_at_pixel_centres, "mirror_doubling"),
        (wrapped_around, "mirror_doubling"),
        (mean_instead_of_sum, "mirror_doubling"),
        (mean_instead_of_sum, "bounds"),
        (power_instead_of_energy, "pure_tones"),
        (high_to_low, "offset"),
        (blurred_across_the_batch, "one_field_at_a_time"),
        (channels_folded_into_the_batch, "one_field_at_a_time"),
        (mean_of_the_whole_batch_removed, "offset"),
        (products_in_bfloat16, "amplitude"),
        (products_in_bfloat16, "turns"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_laws_that_need_no_other_implementation_catch_mistakes(energies: laws.Energies, law: str) -> None:
    assert law in broken(energies, BANK, x)
