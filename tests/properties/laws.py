"""Laws of band energies, for any function `(bank, x (..., h, w)) -> energies (..., K)`: each raises where broken.

Tolerances are those of float64, relative to the squared norm of the field; `tolerance` loosens them.
"""

from collections.abc import Callable

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from spectra.bands import FilterBank

Energies = Callable[[FilterBank, Tensor], Tensor]
EXACT = 1e-12


def close(got: Tensor, expected: Tensor, like: Tensor | float, tolerance: float = EXACT) -> None:
    """Equal to `tolerance` relative to the size of `like`."""
    assert got.shape == torch.broadcast_shapes(got.shape, expected.shape), (got.shape, expected.shape)
    error = (got.double() - expected.double()).abs()
    assert not error.isnan().any()
    assert error.max() <= tolerance * float(torch.as_tensor(like).double().abs().max()), float(error.max())


def total(x: Tensor) -> Tensor:
    """||x||^2 of each field."""
    return x.double().square().sum((-2, -1))


def scipy_bands(bank: FilterBank, x: Tensor) -> Tensor:
    """The bands (..., K, h, w) of x by scipy's Gaussian filters in space, float64."""
    field = x.double().numpy()
    blurred = [gaussian_filter(field, s, mode="reflect", truncate=4.0, axes=(-2, -1)) for s in reversed(bank.scales)]
    return torch.tensor(np.diff(np.stack([np.zeros_like(field), *blurred, field], -3), axis=-3))


def as_in_space(energies: Energies, bank: FilterBank, x: Tensor, tolerance: float = EXACT) -> None:
    """Those of differences of scipy's Gaussian filters."""
    close(energies(bank, x), scipy_bands(bank, x).square().sum((-2, -1)), total(x), tolerance)


def mirror_doubling(energies: Energies, bank: FilterBank, x: Tensor, tolerance: float = EXACT) -> None:
    """A field beside its mirror image has twice the energies: only with half-sample symmetric ends."""
    for axis in (-1, -2):
        close(energies(bank, torch.cat([x, x.flip(axis)], axis)), 2 * energies(bank, x), total(x), tolerance)


def pure_tones(energies: Energies, bank: FilterBank, x: Tensor, tolerance: float = EXACT) -> None:
    """A DCT basis field has the squared transfer at its mode as its energies."""
    h, w = x.shape[-2:]
    k, m = min(2, h - 1), w // 2
    rows, columns = (torch.cos(torch.pi * k * (torch.arange(n) + 0.5).double() / n) for k, n in ((k, h), (m, w)))
    tone = torch.outer(rows / rows.norm(), columns / columns.norm()).expand_as(x)
    close(energies(bank, tone), torch.tensor(bank.transfer(h, w)[:, k, m] ** 2), 1.0, tolerance)


def one_field_at_a_time(energies: Energies, bank: FilterBank, x: Tensor, tolerance: float = EXACT) -> None:
    """Fields of one batch do not see each other."""
    ones = (1,) * (x.ndim - 2)
    alone = [energies(bank, field.reshape(*ones, *field.shape)).flatten() for field in x.flatten(0, -3)]
    close(energies(bank, x).flatten(0, -2), torch.stack(alone), total(x), tolerance)


def offset(energies: Energies, bank: FilterBank, x: Tensor, tolerance: float = EXACT) -> None:
    """A constant c adds 2 c sum x + c^2 h w to the lowest band and nothing to the others."""
    c, size = 3.0 * float(x.abs().max()), x.shape[-1] * x.shape[-2]
    E, like = energies(bank, x).double(), total(x) + c * c * size
    added = torch.zeros_like(E)
    added[..., 0] = 2 * c * x.sum((-2, -1)) + c * c * size
    close(energies(bank, x + c), E + added, like, tolerance)


def turns(energies: Energies, bank: FilterBank, x: Tensor, tolerance: float = EXACT) -> None:
    """Flips, transposes, turns and the sign change nothing."""
    E = energies(bank, x)
    for turned in (x.flip(-1), x.flip(-2), x.mT, x.rot90(1, (-2, -1)), -x):
        close(energies(bank, turned), E, total(x), tolerance)


def amplitude(energies: Energies, bank: FilterBank, x: Tensor, tolerance: float = EXACT) -> None:
    """Energies grow with the square of the amplitude."""
    close(energies(bank, -3.7 * x), 3.7**2 * energies(bank, x), 3.7**2 * total(x), tolerance)


def bounds(energies: Energies, bank: FilterBank, x: Tensor, tolerance: float = 1e-3) -> None:
    """E >= 0 and T / K <= sum E <= T with T = ||x||^2; cut-off Gaussians exceed the upper bound by up to 1e-3."""
    E, T = energies(bank, x).double(), total(x)
    assert (E >= 0).all()
    assert (E.sum(-1) >= T / bank.bands * (1 - EXACT) - 1e-300).all()
    assert (E.sum(-1) <= T * (1 + tolerance)).all()


LAWS = (as_in_space, mirror_doubling, pure_tones, one_field_at_a_time, offset, turns, amplitude, bounds)
