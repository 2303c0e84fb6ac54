"""Other bands of a finished recording, from its radial spectrum, with bounds that cannot fail.

A radial spectrum keeps the sum S_r of squared DCT coefficients in each bin r of the radial frequency, not how it is
spread over the bin's modes.  The energy of a band weighs each mode by D^2, so it lies between

    sum_r S_r min D^2    and    sum_r S_r max D^2      (extremes over the modes of bin r)

whatever the spread is, and both ends are reached by some field.  Between them stands `sum_r S_r mean D^2`: the expected
energy of fields whose power is constant within each bin.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from spectra.bands import Array, FilterBank
from spectra.errors import UserError
from spectra.radial import radial_bin, radii


class Rebanded(NamedTuple):
    """Energies of other bands, each (..., K): the estimate, and the least and the largest that the spectrum allows."""

    value: Array
    low: Array
    high: Array


def reband(spectrum: ArrayLike, radius: ArrayLike, grid: tuple[int, int], bank: FilterBank) -> Rebanded:
    """Band energies of `bank` for radial spectra (..., R) of fields on `grid`, as `spectra.radial_spectrum` makes them.

    `radius` are the centres of the R bins in cycles per pixel, as `spectra.bands.radii` gives them.  Spectra may be
    summed over channels, frames or runs; the bounds hold for energies summed alike, up to the rounding of the spectrum.

    Raises UserError where radius and grid do not belong to the spectrum.
    """
    S = np.asarray(spectrum, np.float64)
    bins = S.shape[-1] if S.ndim else 0
    if not bins or not _same(radius, bins, grid):
        raise UserError(f"these {bins} bins are not those of a radial spectrum on the grid {tuple(grid)}")
    return Rebanded(*(S @ weights for weights in _weights(bank, bins, *grid)))


def _same(radius: ArrayLike, bins: int, grid: tuple[int, int]) -> bool:
    centres = np.asarray(radius, np.float64)
    return centres.shape == (bins,) and np.allclose(centres, radii(bins, *grid), rtol=1e-5, atol=0)


@lru_cache(maxsize=32)
def _weights(bank: FilterBank, bins: int, h: int, w: int) -> tuple[Array, Array, Array]:
    """Mean, least and largest D^2 over the modes of each bin, (R, K) each; 0 in bins without modes."""
    square = bank.transfer(h, w).reshape(bank.bands, -1).T ** 2
    of_mode = radial_bin(bins, h, w).ravel()
    order = np.argsort(of_mode, kind="stable")
    there, first, count = np.unique(of_mode[order], return_index=True, return_counts=True)
    parts = np.add.reduceat(square[order], first), *(f.reduceat(square[order], first) for f in (np.minimum, np.maximum))
    mean, low, high = (np.zeros((bins, bank.bands)) for _ in range(3))
    mean[there], low[there], high[there] = parts[0] / count[:, None], parts[1], parts[2]
    return mean.clip(low, high), low, high
