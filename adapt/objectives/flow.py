"""Flow matching in diffusers' convention: x = (1 - sigma) x_0 + sigma e.

The network predicts u = dx/dsigma = e - x_0 (rectified flow: Liu et al., 2209.03003).  sigma runs from 0 (data) to 1
(noise); the network is told `sigma * steps`, and log-SNR = 2 log((1 - sigma) / sigma).  The shift is that of Esser et
al., 2403.03206, section 5.3.2.  Fields are (batch, ...); sigmas and timesteps are (batch,).
"""

from __future__ import annotations

from torch import Tensor


def add_noise(x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """x = (1 - sigma) x_0 + sigma e."""
    s = _broadcast(sigma, x0)
    return (1 - s) * x0 + s * noise


def target(x0: Tensor, noise: Tensor) -> Tensor:
    """u = e - x_0."""
    return noise - x0


def shifted(quantile: Tensor, shift: float) -> Tensor:
    """Move noise levels towards noise: sigma = shift q / (1 + (shift - 1) q)."""
    return shift * quantile / (1 + (shift - 1) * quantile)


def timestep_of(sigma: Tensor, steps: int) -> Tensor:
    """What the network is told for a noise level."""
    return sigma * steps


def noise_level(timestep: Tensor, steps: int) -> Tensor:
    """sigma of a timestep; inverse of `timestep_of`."""
    return timestep / steps


def _broadcast(sigma: Tensor, like: Tensor) -> Tensor:
    return sigma.to(like).reshape(-1, *(1,) * (like.ndim - 1))
