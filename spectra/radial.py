"""Radial spectra: squared DCT-II coefficients of fields, summed in bins of equal width of the radial frequency."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spectra.dct import Array, constant, result_kind, squared_sums, sums
from spectra.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def radial_spectrum(x: Tensor, bins: int) -> Tensor:
    """Energy of x (..., h, w) by radial frequency, (..., bins): squared DCT-II coefficients; they sum to ||x||^2."""
    return squared_sums(x, _membership, bins).to(result_kind(x))


def radial_sums(square: Tensor, bins: int) -> Tensor:
    """The same of squared coefficients that are there already: sums by radial frequency, (..., h, w) -> (..., bins)."""
    return sums(square, constant(_membership, (*square.shape[-2:], bins), square.device, square.dtype))


def radius(h: int, w: int) -> Array:
    """Radial frequency of each DCT mode in cycles per pixel, (h, w): mode k of n pixels has k / (2 n)."""
    r: Array = np.hypot(np.arange(h)[:, None] / (2 * h), np.arange(w) / (2 * w))
    return r


def radii(bins: int, h: int, w: int) -> Array:
    """Centres of the bins of `radial_spectrum` on an h x w grid, in cycles per pixel, (bins,): equal widths from 0."""
    positive_sizes(bins, h, w)
    centres: Array = (np.arange(bins) + 0.5) * (radius(h, w).max() / bins)
    return centres


def radial_modes(bins: int, h: int, w: int) -> NDArray[np.int64]:
    """Number of DCT modes in each bin of `radial_spectrum`, (bins,); zero where a bin is finer than the grid."""
    modes: NDArray[np.int64] = np.bincount(radial_bin(bins, h, w).ravel(), minlength=bins)
    return modes


def radial_bin(bins: int, h: int, w: int) -> NDArray[np.int64]:
    """The bin of each mode, (h, w)."""
    positive_sizes(bins, h, w)
    r = radius(h, w)
    index: NDArray[np.int64] = np.minimum((r / max(r.max(), 1e-300) * bins).astype(np.int64), bins - 1)
    return index


def positive_sizes(*sizes: int) -> None:
    """UserError unless every size of a grid, or number of bins, is at least 1."""
    if min(sizes) < 1:
        raise UserError(f"a grid and its bins need sizes of at least 1, got {sizes}")


def _membership(h: int, w: int, bins: int) -> Array:
    """One at [bin of the mode, mode], (bins, h, w)."""
    member: Array = (radial_bin(bins, h, w) == np.arange(bins)[:, None, None]).astype(np.float64)
    return member
