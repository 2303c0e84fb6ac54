"""What the router reads off a latent: band shares, band energies over those of the noise alone, the noise level."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapt.fera.noise import Clock
from adapt.fera.published import indicator
from adapt.trajectory import SMALLEST_SHARE
from spectra.bands import FilterBank, radius
from spectra.dct import constant
from spectra.errors import UserError

Array = NDArray[np.float64]
Floats = tuple[float, ...]

FEATURES_OF: dict[str, tuple[tuple[str, ...], str]] = {
    "energy": (("shares",), "router"),
    "energy+snr": (("shares", "snr"), "router"),
    "energy+clock": (("shares", "log_snr"), "router"),
    "clock": (("log_snr",), "router"),
    "uniform": (("shares",), "uniform"),
}
"""For each kind of router among the settings of a run: `features` and `gates` of FeraConfig."""

TIMED = ("snr", "log_snr")
"""Features that need the noise level."""


@dataclass(frozen=True)
class Reader:
    """How one adapter reads a latent: `bank` is None in published mode and `clock` where no feature needs it."""

    features: tuple[str, ...]
    bands: int
    bank: FilterBank | None
    clock: Clock | None
    mean: Floats
    std: Floats
    tau: float

    def __call__(self, latent: Tensor, timestep: Tensor | None) -> Tensor:
        """Features (batch, width) of latents (batch, channel, [frame], h, w) at a scheduler's timesteps (batch,)."""
        if self.bank is None:
            return indicator(latent, self.bands)
        energy = latent_energy(latent, self.bank)
        level = None if self.clock is None else self.clock.log_snr(_known(timestep))
        columns = torch.cat([COLUMNS[name](self, energy, latent, level) for name in self.features], -1)
        mean, std = (constant(np.array, (values,), columns.device, columns.dtype) for values in (self.mean, self.std))
        return (columns - mean) / std


def latent_energy(latent: Tensor, bank: FilterBank) -> Tensor:
    """Band energies of each sample, over channels and frames: (batch, channel, [frame], h, w) -> (batch, bands)."""
    if latent.ndim < 4:
        raise UserError(
            f"FeRA reads latents (batch, channel, [frame], height, width), but the denoiser was given a tensor "
            f"{tuple(latent.shape)}; latents packed into tokens of unknown layout are not supported"
        )
    return bank.energies(latent).float().flatten(1, -2).sum(1)


def log_shares(energy: Tensor) -> Tensor:
    """Logarithm of each band's share: energy (..., bands) -> (..., bands).  Free of the latent's overall scale."""
    total = energy.sum(-1, keepdim=True).clamp_min(torch.finfo(energy.dtype).tiny)
    return (energy / total).clamp_min(SMALLEST_SHARE).log()


def log_relative(energy: Tensor, expected: Tensor) -> Tensor:
    """Logarithm of energies (..., bands) over those expected of the noise alone; 0 in bands that the grid lacks."""
    ratio = torch.where(expected > 0, energy / expected.clamp_min(torch.finfo(energy.dtype).tiny), 1.0)
    return ratio.clamp_min(SMALLEST_SHARE).log()


def blind_statistics(bank: FilterBank, grid: tuple[int, int], levels: int = 64) -> tuple[Floats, Floats]:
    """Mean and deviation of the log shares, per band, where nothing was measured.

    Expected energies of (1 - t) s + t n over evenly spaced t, with n white noise and s a field whose power falls as
    1/f, 1/f^2 or 1/f^3, all of unit variance per pixel: pictures of several textures that drown in noise along a
    straight path.
    """
    signal, noise = _expected(bank, grid)
    t = ((np.arange(levels) + 0.5) / levels)[:, None, None]
    energy = ((1 - t) ** 2 * signal + t**2 * noise).reshape(-1, bank.bands)
    return _statistics(np.log(np.maximum(energy / energy.sum(1, keepdims=True), SMALLEST_SHARE)))


def statistics_of(
    features: tuple[str, ...], bank: FilterBank, grid: tuple[int, int], clock: Clock | None
) -> tuple[Floats, Floats]:
    """Mean and deviation of all features, in their order, where nothing was measured.

    Log shares are those of `blind_statistics`.  The others follow the levels of the schedule: at a ratio SNR of unit
    variances a band with energies S of the signal and N of the noise has 1 + SNR S / N times the noise's own.
    """
    mean: list[float] = []
    std: list[float] = []
    for name in features:
        found = blind_statistics(bank, grid) if name == "shares" else _timed_statistics(name, bank, grid, clock)
        mean.extend(found[0])
        std.extend(found[1])
    return tuple(mean), tuple(std)


def _timed_statistics(name: str, bank: FilterBank, grid: tuple[int, int], clock: Clock | None) -> tuple[Floats, Floats]:
    assert clock is not None  # the configuration asks for a schedule with these features
    levels = clock.levels(64)[:, None]
    if name == "log_snr":
        return _statistics(levels)
    signal, noise = _expected(bank, grid)
    ratio = np.divide(signal, noise, out=np.zeros_like(signal), where=noise > _EMPTY)
    return _statistics(np.log1p(np.exp(levels)[:, None] * ratio).reshape(-1, bank.bands))


_EMPTY = 1e-12  # energy of a band that does not exist on a grid


def _expected(bank: FilterBank, grid: tuple[int, int]) -> tuple[Array, Array]:
    """Band energies of fields of unit variance: of three textures, (3, bands), and of white noise, (bands,)."""
    h, w = grid
    frequency = radius(h, w)
    frequency[0, 0] = 1 / (2 * max(h, w))  # the mean counts as the slowest mode, else its energy were infinite
    spectra = frequency ** -np.arange(1.0, 4.0)[:, None, None]
    spectra /= spectra.mean((1, 2), keepdims=True)
    squared = bank.transfer(h, w) ** 2
    return np.einsum("khw,shw->sk", squared, spectra), squared.sum((1, 2))


def _statistics(values: Array) -> tuple[Floats, Floats]:
    return tuple(values.mean(0).tolist()), tuple(np.maximum(values.std(0), 1e-2).tolist())


def _white(scales: tuple[float, ...], h: int, w: int) -> Array:
    mean = FilterBank(scales).white_noise(h, w).mean
    return np.where(mean > _EMPTY * h * w, mean, 0.0)


def _shares(reader: Reader, energy: Tensor, latent: Tensor, level: Tensor | None) -> Tensor:
    return log_shares(energy)


def _snr(reader: Reader, energy: Tensor, latent: Tensor, level: Tensor | None) -> Tensor:
    """Against the noise's expected energy: its variance times the fields of a sample times the bank's white noise."""
    assert reader.bank is not None
    assert reader.clock is not None
    h, w = latent.shape[-2:]
    white = constant(_white, (reader.bank.scales, h, w), energy.device, energy.dtype)
    fields = latent[0].numel() // (h * w)
    variance = reader.clock.noise_variance(_known(level))
    return log_relative(energy, variance[:, None] * (fields * white))


def _log_snr(reader: Reader, energy: Tensor, latent: Tensor, level: Tensor | None) -> Tensor:
    return _known(level)[:, None]


COLUMNS: dict[str, Callable[[Reader, Tensor, Tensor, Tensor | None], Tensor]] = {
    "shares": _shares,
    "snr": _snr,
    "log_snr": _log_snr,
}
"""Features by name, before they are standardised: (reader, band energies, latent, log-SNR) -> (batch, columns)."""


def _known(value: Tensor | None) -> Tensor:
    if value is None:
        raise UserError(
            "these gates follow the noise level, but this call of the denoiser has no timestep: give it one, "
            "or train with features=('shares',)"
        )
    return value
