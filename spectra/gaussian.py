"""The analytic diffusion of a Gaussian field: exact predictions and band energies at every step, for every seed.

Data whose DCT-II coefficients are independent, with mean m and variance S per mode, keep that form under
`x = a x0 + b eps`.  With P = a^2 S + b^2 the best predictions are affine in each coefficient of x,

    E[x0 | x] = m + (a S / P)(x - a m)        E[eps | x] = (b / P)(x - a m),

and so is every deterministic or ancestral sampler step.  From noise coefficients Z the sampler's state is therefore
`mean + gain * Z` (plus independent noise of known variance), and a run's band energies have a closed form: what a
recorder measures on a pipeline with this denoiser can be checked to rounding error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from spectra.bands import Array, FilterBank, coefficients, dct_matrix, from_coefficients, radius
from spectra.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

SIGNALS = ("latent", "x0", "eps", "flow", "v")


class Levels(NamedTuple):
    """Noise levels of a sampler as coefficients of `x = a x0 + b eps`, each (steps + 1,), from noise to data."""

    a: Array
    b: Array


class Affine(NamedTuple):
    """A signal as `offset + slope * x`, coefficient by coefficient."""

    offset: Array
    slope: Array


class Path(NamedTuple):
    """The state of a sampler before each step and after the last, `mean + gain * Z + noise of variance`.

    Each array is (steps + 1, c, h, w); Z are the coefficients of the initial noise.
    """

    mean: Array
    gain: Array
    variance: Array


def flow_levels(noise_levels: ArrayLike) -> Levels:
    """Rectified flow, a = 1 - s and b = s: for `FlowMatchEulerDiscreteScheduler.sigmas`."""
    s = np.asarray(noise_levels, np.float64)
    return Levels(1 - s, s)


def vp_levels(alphas_cumprod: ArrayLike) -> Levels:
    """Variance preserving, a^2 + b^2 = 1: for `alphas_cumprod` at a sampler's timesteps, the final one included."""
    a2 = np.asarray(alphas_cumprod, np.float64)
    return Levels(np.sqrt(a2), np.sqrt(1 - a2))


@dataclass(frozen=True, eq=False)
class GaussianField:
    """Fields (c, h, w) with independent Gaussian DCT-II coefficients of the given `mean` and `variance`, (c, h, w)."""

    mean: Array
    variance: Array

    def __post_init__(self) -> None:
        if self.mean.shape != self.variance.shape or self.mean.ndim != 3 or not (self.variance >= 0).all():
            raise UserError("a Gaussian field needs a mean and a variance >= 0 of one shape (c, h, w)")

    @classmethod
    def power_law(cls, shape: tuple[int, int, int], exponent: float = 2.0, offset: float = 0.0) -> GaussianField:
        """Power falling as 1 / f^exponent from the lowest frequency of the grid on, unit variance, mean `offset`."""
        c, h, w = shape
        f = np.maximum(radius(h, w), 0.5 / max(h, w))
        power = f**-exponent
        mean = np.zeros(shape)
        mean[:, 0, 0] = offset * np.sqrt(h * w)
        return cls(mean, np.tile(power / power.mean(), (c, 1, 1)))

    def sample(self, n: int, seed: int) -> Array:
        """`n` fields, (n, c, h, w)."""
        z = np.random.default_rng(seed).standard_normal((n, *self.mean.shape))
        return _fields(self.mean + np.sqrt(self.variance) * z)

    def signal(self, name: str, a: float, b: float) -> Affine:
        """What the best denoiser says of `x = a x0 + b eps`: "x0", "eps", "flow" = eps - x0, "v" = a eps - b x0."""
        P = a * a * self.variance + b * b
        slope_x0, slope_eps = _over(a * self.variance, P), _over(b * np.ones_like(P), P)
        x0 = Affine(self.mean * (1 - a * slope_x0), slope_x0)
        eps = Affine(-a * self.mean * slope_eps, slope_eps)
        mixtures = {"x0": (1, 0), "eps": (0, 1), "flow": (-1, 1), "v": (-b, a)}
        if name == "latent":
            return Affine(np.zeros_like(P), np.ones_like(P))
        if name not in mixtures:
            raise UserError(f"unknown signal {name!r}: choose one of {', '.join(SIGNALS)}")
        p, q = mixtures[name]
        return Affine(p * x0.offset + q * eps.offset, p * x0.slope + q * eps.slope)

    def expected(self, bank: FilterBank, name: str, a: float, b: float) -> Array:
        """Expected band energies of a signal where x follows the forward process, (c, K)."""
        offset, slope = self.signal(name, a, b)
        P = a * a * self.variance + b * b
        return _bands(bank, (offset + slope * a * self.mean) ** 2 + slope**2 * P)

    def error(self, bank: FilterBank, a: float, b: float) -> Array:
        """Expected band energies of x0 - E[x0 | x], which no denoiser can beat, (c, K)."""
        P = a * a * self.variance + b * b
        return _bands(bank, _over(self.variance * b * b, P))

    def path(self, levels: Levels, eta: float = 0.0, start: float = 1.0) -> Path:
        """The sampler's state from noise of size `start`: Euler and DDIM with eta = 0, ancestral DDPM with eta = 1.

        A step is `x' = A x + B x0 + C z` with C = eta (b'/b) sqrt(1 - a^2/a'^2), A = sqrt(b'^2 - C^2) / b, B = a' - a A
        (Song et al. 2021, eq. 12; with eta = 0 it is Euler's step, of rectified flow where a = 1 - b and of a variance
        exploding state where a = 1, whose noise has the size `start` of its first level). `spectra.solvers` has others.
        """
        zero, one = np.zeros_like(self.mean), np.ones_like(self.mean)
        states = [(zero, start * one, zero)]
        for a, b, a_next, b_next in zip(*(v[:-1] for v in levels), *(v[1:] for v in levels), strict=True):
            mean, gain, variance = states[-1]
            C = eta * b_next / b * np.sqrt(max(1 - (a / a_next) ** 2, 0.0)) if eta else 0.0
            A = np.sqrt(max(b_next**2 - C**2, 0.0)) / b
            B = a_next - a * A
            offset, slope = self.signal("x0", a, b)
            factor = A + B * slope
            states.append((factor * mean + B * offset, factor * gain, factor**2 * variance + C**2))
        return Path(*(np.stack(parts) for parts in zip(*states, strict=True)))

    def expected_energies(
        self, bank: FilterBank, levels: Levels, name: str, eta: float = 0.0, path: Path | None = None
    ) -> Array:
        """Expected band energies of a signal along the sampler, (steps + 1, c, K); NaN in predictions after the end.

        Here and below, `path` is that of another solver than Euler's (`spectra.solvers.sampler_path`).
        """
        mean, gain, variance = path or self.path(levels, eta)
        offset, slope = self._along(levels, name)
        return _bands(bank, (offset + slope * mean) ** 2 + slope**2 * (gain**2 + variance))

    def trajectory(self, levels: Levels, noise: Array, name: str = "latent", path: Path | None = None) -> Array:
        """Coefficients of a signal in the runs from `noise` (runs, c, h, w): (steps + 1, runs, c, h, w)."""
        mean, gain, _ = path or self.path(levels)
        X = mean[:, None] + gain[:, None] * _coefficients(noise)
        offset, slope = self._along(levels, name)
        return offset[:, None] + slope[:, None] * X

    def energies(
        self, bank: FilterBank, levels: Levels, noise: Array, name: str = "latent", path: Path | None = None
    ) -> Array:
        """Band energies of a signal in each run from `noise` (runs, c, h, w), exact: (steps + 1, runs, c, K)."""
        return _bands(bank, self.trajectory(levels, noise, name, path) ** 2)

    def coherence(self, bank: FilterBank, levels: Levels, noise: Array, path: Path | None = None) -> Array:
        """Per band, the cosine over c, h, w between x0 at each step and the finished sample: (steps + 1, runs, K).

        It is near one from the first step on: without fresh noise, each mode keeps the sign of its Z to the end.
        """
        x0 = self.trajectory(levels, noise, "x0", path)
        final = self.trajectory(levels, noise, path=path)[-1:]
        both, one, two = (_bands(bank, product.sum(2)) for product in (x0 * final, x0**2, final**2))
        return _over(both, np.sqrt(one * two))

    def predict(self, x: Tensor, name: str, a: float, b: float) -> Tensor:
        """The best denoiser's output for x (..., c, h, w) in x's type: what a perfect network would return."""
        import torch

        offset, slope = (torch.tensor(v, dtype=torch.float64, device=x.device) for v in self.signal(name, a, b))
        return from_coefficients(offset + slope * coefficients(x.double())).to(x.dtype)

    def _along(self, levels: Levels, name: str) -> Affine:
        """`signal` at each level, stacked; predictions are NaN at the last level, from which none is made."""
        signals = [self.signal(name, a, b) for a, b in zip(*levels, strict=True)]
        offset, slope = (np.stack(parts) for parts in zip(*signals, strict=True))
        if name != "latent":
            offset[-1] = slope[-1] = np.nan
        return Affine(offset, slope)


@dataclass(frozen=True, eq=False)
class Guided(GaussianField):
    """A field sampled with classifier-free guidance: predictions are `u + scale (c - u)`, affine as before.

    `mean` and `variance` are those of the data under the prompt, `unconditional` is the field without it.
    """

    unconditional: GaussianField
    scale: float

    @classmethod
    def of(cls, field: GaussianField, unconditional: GaussianField, scale: float) -> Guided:
        """Guidance from `unconditional` past `field`."""
        return cls(field.mean, field.variance, unconditional, scale)

    def signal(self, name: str, a: float, b: float) -> Affine:
        """What the guided denoiser says; see `GaussianField.signal`."""
        c, u = super().signal(name, a, b), self.unconditional.signal(name, a, b)
        return Affine(*(without + self.scale * (wish - without) for wish, without in zip(c, u, strict=True)))


def _over(numerator: Array, denominator: Array) -> Array:
    """The quotient, 0 where both are 0 (a mode without variance at zero noise: nothing is left to learn from x)."""
    return np.divide(numerator, denominator, out=np.zeros_like(denominator), where=denominator != 0)


def _bands(bank: FilterBank, square: Array) -> Array:
    """`sum D_b^2 * square` over the grid: (..., h, w) -> (..., K)."""
    D = bank.transfer(*square.shape[-2:])
    return np.tensordot(square, D**2, axes=([-2, -1], [1, 2]))


def _coefficients(x: Array) -> Array:
    h, w = x.shape[-2:]
    X: Array = dct_matrix(h) @ x @ dct_matrix(w).T
    return X


def _fields(X: Array) -> Array:
    h, w = X.shape[-2:]
    x: Array = dct_matrix(h).T @ X @ dct_matrix(w)
    return x
