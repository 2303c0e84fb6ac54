"""What the network is asked to predict: one convention sheet (`conventions`), and one objective per scheduler."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adapt.objectives import conventions, denoising, flow, weighting
from spectra.errors import UserError

PREDICTS = ("epsilon", "sample", "v_prediction")
"""What a denoiser may predict."""


@dataclass(frozen=True)
class Objective:
    """One way of training a denoiser.  Fields (batch, ...); quantiles, timesteps, levels, weights (batch,)."""

    name: str
    kind: str
    """What the network predicts, one of `conventions.KINDS`."""
    shift: float | None
    """The shift of a flow's noise levels that `timestep` has inside; None for denoising."""
    timestep: Callable[[Tensor], Tensor]
    """Quantile of the noise range in [0, 1), 0 = clean -> timestep as the scheduler counts it."""
    noise_level: Callable[[Tensor], Tensor]
    """timestep -> the scheduler's sigma."""
    timestep_of: Callable[[Tensor], Tensor]
    """sigma -> timestep."""
    weights: Callable[[Tensor], tuple[Tensor, Tensor]]
    """sigma -> (a, b) of the state x = a x0 + b noise that the network is given."""
    noise_weight: Callable[[Tensor], Tensor]
    """sigma -> weight of the noise in the sampler's state: what a cube calls `noise_level`."""
    level_weight: Callable[[Tensor], Tensor]
    """sigma -> weight of the squared error."""

    def add_noise(self, x0: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """Noisy latent that the network is given."""
        return conventions.mix(x0, noise, self.weights(self.noise_level(timestep)))

    def target(self, x0: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        """What the network should answer."""
        return conventions.answer(x0, noise, self.kind, *self.weights(self.noise_level(timestep)))

    def weight(self, timestep: Tensor) -> Tensor:
        """Weight of the squared error, float32."""
        return self.level_weight(self.noise_level(timestep))

    def log_snr(self, sigma: Tensor) -> Tensor:
        """Log signal-to-noise ratio of a noise level."""
        a, b = self.weights(sigma)
        return 2 * (a / b).log()

    def quantile_of(self, log_snr: Tensor) -> Tensor:
        """Quantile of the noise range at which the log-SNR is the given one; 0 or 1 beyond its ends.

        By interpolation between 1000 quantiles: a table of timesteps has no levels between its own.
        """
        quantile = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
        every = self.log_snr(self.noise_level(self.timestep(quantile))).double()
        inside = _interpolate(-log_snr.double(), -every, quantile)
        inside = torch.where(log_snr > every[0], 0.0, inside)
        return torch.where(log_snr < every[-1], 1.0, inside)


def objective_of(scheduler: Any, weight: str = "none", gamma: float = 5.0, *, tokens: int | None = None) -> Objective:
    """The objective that a pipeline's scheduler belongs to.

    Args:
        scheduler: a denoising scheduler (DDIM, PNDM, Euler, DPM++, UniPC and their kin, SVD's continuous one included)
            or a flow-matching one (also DPM++ and its kin with `use_flow_sigmas`).
        weight, gamma: how errors are weighted by noise level (`adapt.objectives.weighting`).
        tokens: latent tokens of a picture, for schedulers whose shift depends on them.

    Raises:
        UserError: an unknown kind of scheduler, or a weighting that does not belong to it.
    """
    config, name = getattr(scheduler, "config", {}), type(scheduler).__name__
    if name.startswith("FlowMatch") or name == "LTXEulerAncestralRFScheduler":
        return _flow(scheduler, weight, tokens)
    kind = config.get("prediction_type") if config else None
    if config and config.get("use_flow_sigmas"):
        if kind != "flow_prediction":
            raise UserError(
                f"cannot train a flow that predicts {kind!r} ({name}); set prediction_type='flow_prediction'"
            )
        return _flow(scheduler, weight, tokens)
    if not hasattr(scheduler, "alphas_cumprod"):
        raise UserError(f"cannot train with a {name}; the model needs a denoising or a flow-matching scheduler")
    if kind not in PREDICTS:
        raise UserError(f"cannot train a model that predicts {kind!r} ({name}); known: {', '.join(PREDICTS)}")
    if config.get("timestep_type") == "continuous" and kind == "v_prediction":
        return _continuous(scheduler, weight, gamma)
    return _denoising(scheduler, weight, gamma)


def _denoising(scheduler: Any, weight: str, gamma: float) -> Objective:
    bars: Tensor = scheduler.alphas_cumprod.detach().float().cpu()
    kind: str = scheduler.config.prediction_type
    noisiest = float(denoising.noise_level(bars.argmin(), bars))
    return Objective(
        name=f"denoising ({kind})",
        kind=kind,
        shift=None,
        timestep=lambda q: denoising.timestep_at(q, len(bars)),
        noise_level=lambda t: denoising.noise_level(t, bars),
        timestep_of=lambda level: denoising.timestep_of(level, bars),
        weights=conventions.preserving,
        noise_weight=_noise_weight(scheduler),
        level_weight=weighting.denoising(weight, gamma, kind, noisiest),
    )


def _continuous(scheduler: Any, weight: str, gamma: float) -> Objective:
    """Stable Video Diffusion: the network is told log(sigma) / 4, and levels lie where the sampler goes."""
    config = scheduler.config
    every = denoising.noise_level(torch.tensor([0, -1]), scheduler.alphas_cumprod.detach().cpu())
    low, high = (
        float(bound if given is None else given)
        for given, bound in zip((config.sigma_min, config.sigma_max), every, strict=True)
    )
    return Objective(
        name=f"denoising ({config.prediction_type}, continuous)",
        kind=config.prediction_type,
        shift=None,
        timestep=lambda q: denoising.continuous_timestep(denoising.karras_level(q, low, high)),
        noise_level=denoising.continuous_level,
        timestep_of=denoising.continuous_timestep,
        weights=conventions.preserving,
        noise_weight=_noise_weight(scheduler),
        level_weight=weighting.denoising(weight, gamma, config.prediction_type, high),
    )


def _noise_weight(scheduler: Any) -> Callable[[Tensor], Tensor]:
    """Samplers of Euler's kind keep the signal as it is, so that their noise starts at the largest sigma, not at 1."""
    explodes = float(scheduler.init_noise_sigma) > 1
    return (lambda sigma: sigma) if explodes else (lambda sigma: conventions.preserving(sigma)[1])


def _flow(scheduler: Any, weight: str, tokens: int | None) -> Objective:
    config = scheduler.config
    if config.get("invert_sigmas"):
        raise UserError(f"cannot train with a {type(scheduler).__name__} whose invert_sigmas is set")
    steps, shift = int(config.num_train_timesteps), flow.own_shift(config, tokens)
    return Objective(
        name="flow",
        kind="flow_prediction",
        shift=shift,
        timestep=lambda q: flow.timestep_of(flow.shifted(q, shift), steps),
        noise_level=lambda t: flow.noise_level(t, steps),
        timestep_of=lambda level: flow.timestep_of(level, steps),
        weights=conventions.straight,
        noise_weight=lambda level: level,
        level_weight=weighting.flow(weight, float(flow.shifted(torch.tensor(1 / steps), shift))),
    )


def tokens_of(pipe: Any, shape: tuple[int, ...]) -> int:
    """Tokens that the denoiser makes of a latent of shape (c, [t], h, w): what dynamic shifting counts."""
    from datasets_cache.families import encoding_family

    side = encoding_family(pipe).patch
    return math.prod(shape[1:-2]) * (shape[-2] // side) * (shape[-1] // side)


def _interpolate(x: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """Piecewise-linear function through rising `places`, constant beyond its ends."""
    import numpy as np

    return torch.from_numpy(np.interp(x.numpy(), places.numpy(), values.numpy()))
