"""Denoising diffusion (variance preserving): x_t = a_t x_0 + s_t e.

Here a_t^2 = alphas_cumprod[t] and a_t^2 + s_t^2 = 1; the noise level is sigma = s / a, and
log-SNR = -2 log sigma (Kingma et al., 2107.00630).  What the network predicts is one of

    epsilon  e        sample  x_0        v_prediction  a_t e - s_t x_0   (Salimans and Ho, 2202.00512)

Fields are (batch, ...); timesteps are integers (batch,).
"""

from __future__ import annotations

import torch
from torch import Tensor

from spectra.errors import UserError


def add_noise(x0: Tensor, noise: Tensor, timestep: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """x_t = a_t x_0 + s_t e."""
    a, s = _coefficients(timestep, alphas_cumprod, x0)
    return a * x0 + s * noise


def target(x0: Tensor, noise: Tensor, timestep: Tensor, alphas_cumprod: Tensor, prediction: str) -> Tensor:
    """What the network should answer; `prediction` is the scheduler's `prediction_type`."""
    a, s = _coefficients(timestep, alphas_cumprod, x0)
    if prediction == "epsilon":
        return noise
    if prediction == "sample":
        return x0
    if prediction == "v_prediction":
        return a * noise - s * x0
    raise UserError(f"cannot train a model that predicts {prediction!r}; known: epsilon, sample, v_prediction")


def timestep_at(quantile: Tensor, steps: int) -> Tensor:
    """Integer timesteps 0 .. steps - 1 of quantiles in [0, 1) of the uniform distribution over them."""
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


def min_snr_weight(timestep: Tensor, alphas_cumprod: Tensor, gamma: float, prediction: str) -> Tensor:
    """Min-SNR-gamma weight of the squared error of what is predicted (Hang et al., 2303.09556), float32.

    In terms of the error of x_0 it is min(SNR, gamma), whatever the network predicts.
    """
    snr = noise_level(timestep, alphas_cumprod).square().reciprocal()
    share = {"epsilon": snr.clamp_min(1e-12), "v_prediction": snr + 1, "sample": torch.ones_like(snr)}[prediction]
    return (snr.clamp_max(gamma) / share).float()


def _finite_log(level: Tensor) -> Tensor:
    return level.log().clamp(-50, 50)


def _coefficients(timestep: Tensor, alphas_cumprod: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """a_t and s_t, shaped to multiply `like`."""
    square = alphas_cumprod.to(like)[timestep].reshape(-1, *(1,) * (like.ndim - 1))
    return square.sqrt(), (1 - square).sqrt()
