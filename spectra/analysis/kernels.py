"""The arithmetic of the analysis, on plain arrays: crossings, spectral slopes, and what discretisation costs.

Steps and bands (or radial bins) come last; nothing here knows labels, files or models.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectra.bands import FilterBank
from spectra.gaussian import GaussianField, Levels, Path
from spectra.radial import radial_bin, radial_modes, radius

Array = NDArray[np.float64]
Sampler = Callable[[GaussianField], Path]
"""What makes the states of a sampler of a field, at levels and from a noise that it knows."""

POWERS = 4000  # points at which the oracle's final power is tabulated
REACH = 4.0  # decades that the table goes beyond the powers that were measured


# When something is decided


def first_lasting(reached: NDArray[np.bool_]) -> Array:
    """First step from which on `reached` (..., step, band) stays true, (..., band); inf where the end is false."""
    after = np.logical_and.accumulate(reached[..., ::-1, :], axis=-2)[..., ::-1, :]
    return np.where(after[..., -1, :], after.argmax(-2).astype(np.float64), np.inf)


def crossing(curve: Array, threshold: float = 0.0) -> Array:
    """Where `curve` (step, band) last rises through `threshold`, in steps and fractions of steps, (band,).

    0 where it never was below, inf where it does not end at or above.  Between steps the curve is taken as straight.
    """
    first = first_lasting(curve >= threshold)
    inside = np.isfinite(first) & (first > 0)
    after = np.where(inside, first, 1).astype(int)
    band = np.arange(curve.shape[1])
    low, high = curve[np.minimum(after, len(curve)) - 1, band], curve[np.minimum(after, len(curve) - 1), band]
    with np.errstate(invalid="ignore"):  # an unbounded interval has no slope to read
        part = np.divide(threshold - low, high - low, out=np.ones_like(low), where=inside)
    return np.where(inside, first - 1 + part, first)


def between(values: Array, position: Array) -> Array:
    """`values` (steps,) at fractional steps `position`, straight between steps; NaN where the position is inf."""
    found = np.interp(np.where(np.isfinite(position), position, 0), np.arange(len(values)), values)
    return np.where(np.isfinite(position), found, np.nan)


def log_snr(signal: Array, noise: Array) -> Array:
    """2 ln(signal / noise), infinite where one of them vanishes."""
    with np.errstate(divide="ignore"):
        return np.asarray(2 * (np.log(signal) - np.log(noise)))


# How fast power falls with frequency


def bin_frequency(bins: int, grid: tuple[int, int]) -> Array:
    """Geometric mean of the frequencies of a bin's modes, (bins,); NaN for bins without modes, 0 where it has the mean.

    In the lowest bins of a small grid it differs from the bin's centre, which would tilt a fit.
    """
    place, r = radial_bin(bins, *grid).ravel(), radius(*grid).ravel()
    count = np.bincount(place, minlength=bins)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.exp(np.bincount(place, np.log(r), bins) / count))


def fitted_bins(bins: int, grid: tuple[int, int], low: float, high: float) -> NDArray[np.bool_]:
    """Bins that take part in a fit: with modes, without the mean, frequency from `low` to `high`."""
    frequency = bin_frequency(bins, grid)
    with np.errstate(invalid="ignore"):
        return (frequency > 0) & (frequency >= low) & (frequency <= high)


def slope_weights(bins: int, grid: tuple[int, int], low: float, high: float) -> Array:
    """Weights w (bins,) such that `-sum w log power` is the exponent of a weighted least-squares line in log-log.

    A bin counts by its modes, since the log of a mean of m squares of normal numbers has variance about 2 / m.
    """
    use = fitted_bins(bins, grid, low, high)
    m = np.where(use, radial_modes(bins, *grid), 0).astype(np.float64)
    x = np.log(np.where(use, bin_frequency(bins, grid), 1.0))
    centred = x - (m * x).sum() / m.sum()
    return np.asarray(m * centred / (m * centred**2).sum())


def exponents(power: Array, weights: Array) -> Array:
    """Exponent alpha of power ~ f^-alpha, (..., bins) -> (...); NaN where a bin of the fit has no power."""
    use = weights != 0
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(power[..., use])
    return np.asarray(-np.where(np.isfinite(logs), logs, np.nan) @ weights[use])


def band_exponents(energy: Array, bank: FilterBank, grid: tuple[int, int]) -> Array:
    """Exponents from pairs of neighbouring inner bands, (..., K) -> (..., K - 3), lowest pair first.

    For octaves, where the band above is at twice the frequency and white noise has four times the energy there, this is
    `alpha = 2 - log2(E_above / E_below)`.  Energies are divided by those of white noise on the same grid instead of the
    2, so noise has exponent 0 on any grid, and other ratios than octaves serve as well.
    """
    if bank.bands < 4:
        return np.empty((*energy.shape[:-1], 0))
    frequency = np.array(bank.frequency)[1:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(energy[..., 1:-1] / bank.white_noise(*grid).mean[1:-1])
    return np.asarray(-np.diff(np.where(np.isfinite(logs), logs, np.nan)) / np.diff(np.log(frequency)))


# What a perfect model loses between steps


def final_power(S: ArrayLike, sampler: Sampler) -> Array:
    """Variance of finished samples whose data have variance S and no mean, mode by mode, for a perfect denoiser."""
    S = np.asarray(S, np.float64)
    path = sampler(GaussianField(np.zeros((1, 1, S.size)), S.reshape(1, 1, -1)))
    return np.asarray((path.gain[-1] ** 2 + path.variance[-1]).reshape(S.shape))


def data_power(V: Array, sampler: Sampler) -> Array:
    """The variance S of data whose finished samples have variance V: `final_power` inverted, mode by mode.

    It rises with S (two steps of Heun's method aside, far beyond any latent), so it is read backwards from a table.
    """
    positive = V[V > 0]
    if positive.size == 0:
        return np.zeros_like(V)
    ends = np.log([positive.min(), positive.max()]) + np.log(10) * np.array([-1, 1]) * REACH
    log_S = np.linspace(ends[0], ends[1], POWERS)
    log_V = np.log(np.maximum(final_power(np.exp(log_S), sampler), 1e-300))
    rising = np.maximum.accumulate(log_V)
    found = np.exp(np.interp(np.log(np.where(V > 0, V, 1.0)), rising, log_S))
    return np.where(V > 0, found, 0.0)


def ancestral_path(field: GaussianField, levels: Levels, start: float) -> Path:
    """The states of ancestral sampling (DDPM, and Euler's in noise levels) of `field` from noise of size `start`.

    Where the variance explodes it is that of DDPM for the state divided by sqrt(a^2 + b^2) (Song et al. 2021, 4.3).
    """
    size = np.hypot(*levels) if exploding(levels) else np.ones_like(levels.a)
    path = field.path(Levels(levels.a / size, levels.b / size), 1.0, start / float(size[0]))
    scale = size[:, None, None, None]
    return Path(path.mean * scale, path.gain * scale, path.variance * scale**2)


def exploding(levels: Levels) -> bool:
    """True where noise is added to a signal that keeps its size, x = x0 + b eps."""
    return bool((levels.a == 1).all())


def on_modes(values: Array, grid: tuple[int, int]) -> Array:
    """Values of radial bins (..., bins) on the modes of the grid, (..., h, w)."""
    return np.asarray(values[..., radial_bin(values.shape[-1], *grid)])


def band_sums(square: Array, bank: FilterBank) -> Array:
    """Energies of bands from squared coefficients, `sum D_b^2 * square`: (..., h, w) -> (..., K)."""
    D = bank.transfer(*square.shape[-2:])
    return np.asarray(np.tensordot(square, D**2, axes=([-2, -1], [1, 2])))
