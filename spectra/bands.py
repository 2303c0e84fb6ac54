"""Frequency bands of latents: difference-of-Gaussians filter banks, computed exactly in the DCT-II domain.

A sampled Gaussian with half-sample symmetric ends (scipy's `mode="reflect"`) is diagonal in the orthonormal DCT-II
basis: for even taps h, the eigenvalue of mode k on N pixels is `g(k) = sum_j h_j cos(pi k j / N)`, whatever the radius,
because each cosine is its own symmetric continuation.  A bank of K - 1 Gaussians therefore acts on a field x with
coefficients X as K transfer functions D_b, which telescope to one:

    B_b x = C^T (D_b * X) C     energy ||B_b x||^2 = sum D_b^2 X^2     power <x, B_b x> = sum D_b X^2     sum_b D_b = 1

Band 0 is the lowest.  Everything up to `FilterBank.transfer` needs numpy only; torch is imported where tensors appear.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from spectra.dct import (
    Array,
    coefficients,
    constant,
    dct_matrix,
    from_coefficients,
    result_kind,
    squared_sums,
    sums,
)  # fmt: skip
from spectra.errors import UserError
from spectra.radial import positive_sizes, radial_modes, radial_spectrum, radial_sums, radii, radius

if TYPE_CHECKING:
    from torch import Tensor

# What other modules ask of this one; the transform and the radial spectra live in modules of their own.
__all__ = [
    "DEFAULT_BANDS",
    "Array",
    "FilterBank",
    "WhiteNoise",
    "coefficients",
    "coherence",
    "dct_matrix",
    "from_coefficients",
    "radial_modes",
    "radial_spectrum",
    "radial_sums",
    "radii",
    "radius",
]  # fmt: skip

Energies = TypeVar("Energies", "Array", "Tensor")

DEFAULT_BANDS = 4  # octaves, where a recording is told nothing else
TRUNCATE = 4.0  # scipy's default: the kernel reaches int(4 * scale + 0.5) pixels to either side
_FINEST = 0.5  # below about half a pixel a sampled Gaussian is the identity, and the band above it is empty
_COARSEST = 0.4  # of the shorter side: a wider low-pass keeps nothing but the mean
_MOST = 256  # octaves, or what stands for them on a small grid
_LARGEST = 1e6  # pixels; kernels are sampled, so their length has to stay finite in practice


class WhiteNoise(NamedTuple):
    """Band energies of one channel of unit white noise: mean (K,), variance (K,), dof (K,), covariance (K, K).

    For noise of variance v, energies have v times the mean and v^2 times the variance and covariance.  A band's energy
    over its mean varies like a chi-squared of `dof` degrees of freedom over that number.
    """

    mean: Array
    variance: Array
    dof: Array
    covariance: Array


@dataclass(frozen=True, init=False)
class FilterBank:
    """K = len(scales) + 1 frequency bands, from low to high.

    `scales` are standard deviations of Gaussian filters in pixels of the field, stored in ascending order.  Band 0 is
    the coarsest Gaussian, band K - 1 the identity minus the finest, those between are differences of neighbours.
    Methods take real tensors (..., h, w) of any type on any device; float64 stays, all others are computed and returned
    in float32.  They are differentiable, treat each leading index by itself, and never wait for the device once the
    matrices of a grid are cached.

    Raises UserError where scales are not positive, finite and distinct.
    """

    scales: tuple[float, ...]

    def __init__(self, scales: Iterable[float]) -> None:
        object.__setattr__(self, "scales", _checked(scales))

    @classmethod
    def octaves(cls, bands: int, grid: tuple[int, int]) -> FilterBank:
        """`bands` bands for `grid`: the finest scale is 5 % of the shorter side and each next one is twice as wide.

        Where that many octaves do not fit between half a pixel and 40 % of the side, the finest scale moves down, and
        at half a pixel the steps become narrower than octaves.  4 bands on 16 x 16 have scales (0.8, 1.6, 3.2).
        """
        if bands < 1:
            raise UserError(f"a filter bank needs at least 1 band, got {bands}: ask for 2 or more")
        if bands > _MOST:
            raise UserError(f"{bands} bands are more than latents can tell apart: ask for {_MOST} at most")
        side, steps = _side(grid), max(bands - 2, 0)
        widest = max(_COARSEST * side, 2 * _FINEST)
        finest = max(min(0.05 * side, widest / 2.0**steps), _FINEST)
        ratio = min(2.0, (widest / finest) ** (1 / steps)) if steps else 2.0
        return cls(round(finest * ratio**i, 6) for i in range(bands - 1))

    @classmethod
    def relative(cls, fractions: Iterable[float], grid: tuple[int, int]) -> FilterBank:
        """The bank with scales `fraction * shorter side of grid`."""
        return cls(fraction * _side(grid) for fraction in fractions)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> FilterBank:
        """The bank that `to_dict` described; UserError where the description is of another kind of bank."""
        if "scales" not in saved or saved.get("truncate", TRUNCATE) != TRUNCATE:
            raise UserError(f"not a filter bank with scales and truncate = {TRUNCATE}: {dict(saved)!r}")
        return cls(saved["scales"])

    def to_dict(self) -> dict[str, Any]:
        """A description that JSON can hold and `from_dict` reads."""
        return {"scales": list(self.scales), "truncate": TRUNCATE, "boundary": "half-sample symmetric"}

    @property
    def bands(self) -> int:
        """The number K of bands."""
        return len(self.scales) + 1

    @property
    def scale_low(self) -> tuple[float, ...]:
        """Per band, the scale of the wider Gaussian, which bounds it from below in frequency; inf for band 0."""
        return (math.inf, *reversed(self.scales))

    @property
    def scale_high(self) -> tuple[float, ...]:
        """Per band, the scale of the narrower Gaussian, which bounds it from above in frequency; 0 for the top band."""
        return (*reversed(self.scales), 0.0)

    @property
    def frequency(self) -> tuple[float, ...]:
        """Per band, the frequency of its peak in cycles per pixel: 0 for band 0, 0.5 for the top one.

        Between scales s < t the transfer exp(-s^2 w^2 / 2) - exp(-t^2 w^2 / 2) peaks at w^2 = 4 ln(t/s) / (t^2 - s^2).
        """
        pairs = zip(self.scales[-2::-1], self.scales[:0:-1], strict=True)
        peaks = (math.sqrt(4 * math.log(t / s) / (t * t - s * s)) / (2 * math.pi) for s, t in pairs)
        return (0.0, *(min(peak, 0.5) for peak in peaks), *([0.5] if self.scales else []))

    def transfer(self, h: int, w: int) -> Array:
        """The transfer functions D_b(k, l) on the DCT-II grid, (K, h, w); they sum to one over b.  Read-only."""
        return _transfer(self.scales, h, w)

    def white_noise(self, h: int, w: int) -> WhiteNoise:
        """Energies of one channel of unit noise: mean `sum D_a^2`, covariance `2 sum D_a^2 D_b^2`, exact.

        The effective degrees of freedom are `2 mean^2 / variance`; 0 for a band that does not exist on this grid.
        """
        square = self.transfer(h, w).reshape(self.bands, -1) ** 2
        mean, covariance = square.sum(1), 2 * square @ square.T
        variance = covariance.diagonal().copy()
        dof = np.divide(2 * mean**2, variance, out=np.zeros_like(mean), where=variance > 0)
        return WhiteNoise(mean, variance, dof, covariance)

    def relative_to_noise(self, energies: Energies, h: int, w: int, variance: float = 1.0) -> Energies:
        """Energies (..., K) of single channels, as multiples of what white noise of `variance` has on this grid.

        White noise gives 1 in each band at every resolution, so values of different grids compare.  NaN in bands that
        are empty on the grid.  Takes and returns a tensor or a numpy array.
        """
        if energies.shape[-1:] != (self.bands,):
            raise UserError(f"energies of this bank are (..., {self.bands}), not {tuple(energies.shape)}")
        if isinstance(energies, np.ndarray):
            return energies / (_floor(self.scales, h, w) * variance)
        kind = result_kind(energies)
        relative: Energies = energies / (constant(_floor, (self.scales, h, w), energies.device, kind) * variance)
        return relative

    def coefficients(self, x: Tensor) -> Tensor:
        """Orthonormal DCT-II coefficients of x (..., h, w), same shape; the squares sum to ||x||^2."""
        return coefficients(x)

    def split(self, x: Tensor) -> Tensor:
        """The bands of x (..., h, w) as fields (..., K, h, w), which sum to x."""
        X = coefficients(x)
        return from_coefficients(X.unsqueeze(-3) * self._weights(X, 1)).to(result_kind(x))

    def energies(self, x: Tensor) -> Tensor:
        """||B_b x||^2 of x (..., h, w), (..., K): the sum of squares of each band, per channel."""
        return self._contract(x, 2)

    def power(self, x: Tensor) -> Tensor:
        """<x, B_b x> of x (..., h, w), (..., K): the additive form, which sums to ||x||^2."""
        return self._contract(x, 1)

    def weigh(self, square: Tensor) -> Tensor:
        """`sum D_b^2 * square` over the grid, (..., h, w) -> (..., K): energies of what was transformed before.

        `square` are squared coefficients, or products of those of two fields for <B_b x, B_b y>.
        """
        return sums(square, self._weights(square, 2))

    def shares(self, x: Tensor) -> Tensor:
        """Energies of x (..., h, w) over their sum, (..., K).  They sum to 1; a field of zeros has shares of 0."""
        energy = self.energies(x)
        return energy / _positive(energy.sum(-1, keepdim=True))

    def _contract(self, x: Tensor, exponent: int) -> Tensor:
        return squared_sums(x, _transfer_power, self.scales, exponent).to(result_kind(x))

    def _weights(self, x: Tensor, exponent: int) -> Tensor:
        """D_b^exponent on the grid, device and type of x, (K, h, w)."""
        return constant(_transfer_power, (*x.shape[-2:], self.scales, exponent), x.device, x.dtype)


def coherence(x: Tensor, y: Tensor, bank: FilterBank) -> Tensor:
    """Per band, the cosine between B_b x and B_b y over channels and pixels: x, y (..., c, h, w) -> (..., K).

    It is 0 where either field has no energy in the band.
    """
    if x.ndim < 3 or y.ndim < 3 or x.shape[-3:] != y.shape[-3:]:
        raise UserError(f"coherence takes two fields (..., c, h, w) on one grid, not {(*x.shape,)} and {(*y.shape,)}")
    X, Y = coefficients(x.to(result_kind(x, y))), coefficients(y.to(result_kind(x, y)))
    both, one, two = (bank.weigh(product.sum(-3)) for product in (X * Y, X.square(), Y.square()))
    cosine = both * _positive(one).rsqrt() * _positive(two).rsqrt()
    return cosine.clamp(-1, 1).to(result_kind(x, y))


# Constants in numpy


def _checked(scales: Iterable[float]) -> tuple[float, ...]:
    try:
        values = tuple(sorted(float(scale) for scale in scales))
    except (TypeError, ValueError):
        raise UserError(f"scales of a filter bank are numbers in pixels, got {scales!r}") from None
    if not all(0 < scale <= _LARGEST for scale in values) or len(set(values)) != len(values):
        raise UserError(
            f"scales of a filter bank are distinct, above 0 and at most {_LARGEST:.0f} pixels, not {values}"
        )
    return values


def _side(grid: tuple[int, int]) -> int:
    positive_sizes(*grid)
    return min((n for n in grid if n > 1), default=1)


def _eigenvalues(scale: float, n: int) -> Array:
    """g(k), k < n.  Taps are folded into one period of 2 n first: exact angles, and no matrix as wide as the kernel."""
    reach = int(TRUNCATE * scale + 0.5)
    offsets = np.arange(-reach, reach + 1)
    taps = np.exp(-0.5 * (offsets / scale) ** 2)
    folded = np.bincount(offsets % (2 * n), weights=taps / taps.sum(), minlength=2 * n)
    angles = np.outer(np.arange(n), np.arange(2 * n)) % (2 * n)
    g: Array = np.cos(np.pi * angles / n) @ folded
    g[0] = 1.0  # what normalised taps sum to; exactly one keeps the mean out of the upper bands
    return g


@lru_cache(maxsize=32)
def _transfer(scales: tuple[float, ...], h: int, w: int) -> Array:
    positive_sizes(h, w)
    gaussians = [np.outer(_eigenvalues(scale, h), _eigenvalues(scale, w)) for scale in reversed(scales)]
    D = np.diff(np.stack([np.zeros((h, w)), *gaussians, np.ones((h, w))]), axis=0)
    D.setflags(write=False)
    return D


def _floor(scales: tuple[float, ...], h: int, w: int) -> Array:
    """Mean energies of unit noise, (K,); NaN where nothing but rounding is left of a band."""
    mean = (_transfer(scales, h, w) ** 2).sum((1, 2))
    floor: Array = np.where(mean > 1e-24 * h * w, mean, np.nan)
    return floor


def _transfer_power(h: int, w: int, scales: tuple[float, ...], exponent: int) -> Array:
    power: Array = _transfer(scales, h, w) ** exponent
    return power


def _positive(x: Tensor) -> Tensor:
    """A divisor that is never zero; its gradient is zero where it was raised."""
    import torch

    return x.clamp(min=torch.finfo(x.dtype).tiny)
