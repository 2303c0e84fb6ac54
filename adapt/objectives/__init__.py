"""What the network is asked to predict: one file of pure functions per objective, and one table that chooses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adapt.objectives import denoising, flow
from spectra.errors import UserError

SAMPLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "uniform": lambda quantile: quantile,
    "logit_normal": lambda quantile: torch.special.ndtri(quantile.clamp(1e-4, 1 - 1e-4)).sigmoid(),
}
"""How training noise levels are spread: maps uniform quantiles to quantiles of the noise range."""


@dataclass(frozen=True)
class Objective:
    """One way of training a denoiser.  Fields (batch, ...); quantiles, timesteps, levels, weights (batch,)."""

    name: str
    timestep: Callable[[Tensor], Tensor]
    """Quantile of the noise range in [0, 1), 0 = clean -> timestep as the network is told it."""
    add_noise: Callable[[Tensor, Tensor, Tensor], Tensor]
    """(x0, noise, timestep) -> noisy latent."""
    target: Callable[[Tensor, Tensor, Tensor], Tensor]
    """(x0, noise, timestep) -> what the network should answer."""
    noise_level: Callable[[Tensor], Tensor]
    """timestep -> the scheduler's sigma."""
    timestep_of: Callable[[Tensor], Tensor]
    """sigma -> timestep."""
    noise_weight: Callable[[Tensor], Tensor]
    """sigma -> weight of the noise in the state x = a x0 + b noise: what a cube calls `noise_level`."""
    log_snr: Callable[[Tensor], Tensor]
    """sigma -> log signal-to-noise ratio."""
    weight: Callable[[Tensor], Tensor]
    """timestep -> weight of the squared error."""


def objective_of(scheduler: Any, min_snr: float | None = None) -> Objective:
    """The objective that a pipeline's scheduler belongs to.

    Raises:
        UserError: an unknown kind of scheduler, or `min_snr` for a flow, whose loss has no such weight.
    """
    if hasattr(scheduler, "alphas_cumprod"):
        return _denoising(scheduler, min_snr)
    if type(scheduler).__name__.startswith("FlowMatch"):
        if min_snr is not None:
            raise UserError(
                "min_snr weighs denoising losses only, and this model is trained by flow matching; leave it out"
            )
        return _flow(scheduler)
    raise UserError(
        f"cannot train with a {type(scheduler).__name__}; the model needs a denoising or a flow-matching scheduler"
    )


def _denoising(scheduler: Any, gamma: float | None) -> Objective:
    bars: Tensor = scheduler.alphas_cumprod.detach().float().cpu()
    kind: str = scheduler.config.prediction_type
    return Objective(
        name=f"denoising ({kind})",
        timestep=lambda q: denoising.timestep_at(q, len(bars)),
        add_noise=lambda x0, noise, t: denoising.add_noise(x0, noise, t, bars),
        target=lambda x0, noise, t: denoising.target(x0, noise, t, bars, kind),
        noise_level=lambda t: denoising.noise_level(t, bars),
        timestep_of=lambda level: denoising.timestep_of(level, bars),
        noise_weight=lambda level: (1 + level.square().reciprocal()).rsqrt(),
        log_snr=lambda level: -2 * level.log(),
        weight=lambda t: torch.ones(len(t)) if gamma is None else denoising.min_snr_weight(t, bars, gamma, kind),
    )


def _flow(scheduler: Any) -> Objective:
    config = scheduler.config
    steps = int(config.num_train_timesteps)
    # With dynamic shifting the shift belongs to a picture size that only sampling knows.
    shift = 1.0 if config.get("use_dynamic_shifting") else float(config.get("shift") or 1.0)
    return Objective(
        name="flow",
        timestep=lambda q: flow.timestep_of(flow.shifted(q, shift), steps),
        add_noise=lambda x0, noise, t: flow.add_noise(x0, noise, flow.noise_level(t, steps)),
        target=lambda x0, noise, t: flow.target(x0, noise),
        noise_level=lambda t: flow.noise_level(t, steps),
        timestep_of=lambda level: flow.timestep_of(level, steps),
        noise_weight=lambda level: level,
        log_snr=lambda level: 2 * ((1 - level) / level).log(),
        weight=lambda t: torch.ones(len(t)),
    )
