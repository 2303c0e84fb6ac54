"""Levels of denoising diffusion: those of a table of timesteps, and SVD's continuous ones.

The noise level is sigma = b / a with a_t^2 = alphas_cumprod[t] and a_t^2 + b_t^2 = 1, and log-SNR = -2 log sigma
(Kingma et al., 2107.00630).  Timesteps of the table are whole numbers (batch,).  Continuous timesteps are
log(sigma) / 4, and quantiles are spread over them as the sampler's levels are (Karras et al., 2206.00364, equation 5).
"""

from __future__ import annotations

import torch
from torch import Tensor

KARRAS_RHO = 7.0


def timestep_at(quantile: Tensor, steps: int) -> Tensor:
    """Whole timesteps 0 .. steps - 1 of quantiles in [0, 1) of the uniform distribution over them."""
    return (quantile * steps).long().clamp(0, steps - 1)


def noise_level(timestep: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """sigma = sqrt((1 - a^2) / a^2), float64; infinite where a model is trained to start from pure noise."""
    square = alphas_cumprod.double()[timestep]
    return ((1 - square) / square).sqrt()


def timestep_of(level: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """The timestep whose noise level is nearest, in log-SNR; inverse of `noise_level`."""
    every = noise_level(torch.arange(len(alphas_cumprod)), alphas_cumprod)
    distance = (_finite_log(level.double())[:, None] - _finite_log(every)).abs()
    return distance.argmin(1)


def karras_level(quantile: Tensor, lowest: float, highest: float, rho: float = KARRAS_RHO) -> Tensor:
    """sigma, float64, of quantiles 0 (lowest) .. 1 (highest): evenly spread in sigma^(1 / rho)."""
    ends = lowest ** (1 / rho), highest ** (1 / rho)
    root: Tensor = ends[0] + quantile.double() * (ends[1] - ends[0])
    return root.pow(rho)


def continuous_timestep(level: Tensor) -> Tensor:
    """What a network of continuous levels is told: log(sigma) / 4, float32."""
    return (level.double().log() / 4).float()


def continuous_level(timestep: Tensor) -> Tensor:
    """sigma, float64, of a continuous timestep; inverse of `continuous_timestep`."""
    return (4 * timestep.double()).exp()


def _finite_log(level: Tensor) -> Tensor:
    return level.log().clamp(-50, 50)
