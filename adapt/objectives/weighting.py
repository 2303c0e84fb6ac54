"""How the squared error of what a network predicts is weighted by noise level.

Denoising (SNR = 1 / sigma^2).  Each is one function of the SNR for the error of x0, whatever the network predicts: an
error of e is SNR times that of x0, and one of v is SNR + 1 times.

    min_snr       min(SNR, gamma)                  Hang et al., 2303.09556
    soft_min_snr  SNR gamma / (SNR + gamma)        Crowson et al., 2401.11605: the harmonic form of min_snr
    debiased      sqrt(SNR)                        Yu et al., 2310.08442: 1 / sqrt(SNR) on the error of e

Flow matching, on the error of u (Esser et al., 2403.03206, as in diffusers' training scripts):

    sigma_sqrt    1 / sigma^2, with sigma no less than the schedule's own smallest
    cosmap        2 / (pi (1 - 2 sigma + 2 sigma^2))
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from spectra.errors import UserError

Weighting = Callable[[Tensor], Tensor]
"""sigma (batch,) -> weight (batch,) float32."""


def unweighted(sigma: Tensor) -> Tensor:
    """1 at every level."""
    return torch.ones(len(sigma))


DENOISING: dict[str, tuple[Callable[[Tensor, float], Tensor], Callable[[Tensor, float], Tensor]]] = {
    "min_snr": (lambda snr, gamma: snr.clamp_max(gamma), lambda snr, gamma: (gamma / snr).clamp_max(1)),
    "soft_min_snr": (lambda snr, gamma: gamma * snr / (snr + gamma), lambda snr, gamma: gamma / (snr + gamma)),
    "debiased": (lambda snr, gamma: snr.sqrt(), lambda snr, gamma: snr.rsqrt()),
}
"""(SNR, gamma) -> weight of the error of x0, and that of e: their ratio is the SNR, which may be 0."""

FLOW: dict[str, Callable[[Tensor, float], Tensor]] = {
    "sigma_sqrt": lambda sigma, smallest: sigma.clamp_min(smallest) ** -2.0,
    "cosmap": lambda sigma, smallest: 2 / (math.pi * (1 - 2 * sigma + 2 * sigma.square())),
}
"""(sigma, smallest sigma) -> weight of the error of u."""


def denoising(name: str, gamma: float, kind: str, noisiest: float) -> Weighting:
    """A weighting for a network that predicts `kind` at levels up to sigma = `noisiest`, which may be infinite.

    Raises:
        UserError: a weighting of flows, or one without bound.
    """
    if name == "none":
        return unweighted
    if name not in DENOISING:
        raise UserError(f"the weighting {name!r} is for flow matching; this model is a denoiser: {_known(DENOISING)}")
    if name == "debiased" and kind == "epsilon" and noisiest > 1e3:
        raise UserError("the weighting 'debiased' has no bound at zero terminal SNR where a model predicts the noise")
    picture, noise = DENOISING[name]

    def weigh(sigma: Tensor) -> Tensor:
        snr = sigma.double().square().reciprocal()
        if kind == "epsilon":
            return noise(snr, gamma).float()
        return (picture(snr, gamma) / (1 + snr if kind == "v_prediction" else 1)).float()

    return weigh


def flow(name: str, smallest: float) -> Weighting:
    """A weighting of the error of u in a schedule whose smallest sigma is given; UserError for one of denoisers."""
    if name == "none":
        return unweighted
    if name not in FLOW:
        setting = "min_snr weighs" if name == "min_snr" else f"the weighting {name!r} weighs"
        raise UserError(f"{setting} denoising losses only, and this model is trained by flow matching: {_known(FLOW)}")
    return lambda sigma: FLOW[name](sigma, smallest).float()


def _known(table: Mapping[str, object]) -> str:
    return f"choose none, {' or '.join(table)}"
