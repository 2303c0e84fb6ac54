"""At which noise levels a network is trained: rising maps of uniform quantiles to quantiles of the noise range.

A map is the inverse of a distribution function, so that evenly spread quantiles stay evenly spread in probability.
With q uniform in [0, 1) and t in 0 (clean) .. 1 (noise), following Esser et al., 2403.03206, sections 3.1 and 5.3.2:

    uniform       t = q
    logit_normal  t = sigmoid(mean + std N^-1(q))              density N(logit t; mean, std) / (t (1 - t))
    mode          t = q + scale (q - sin^2(pi q / 2))          theirs with u = 1 - q
    cosmap        t = tan(pi q / 2) / (1 + tan(pi q / 2))      density 2 / (pi (1 - 2 t + 2 t^2))
    prior         t where log-SNR is the prior's q-quantile
    shift         then t -> s t / (1 + (s - 1) t), flows only

The noise range of a flow already has the model's own shift inside (`Objective.shift`), so a shift that a person asks
for is applied relative to it: shifts in a row multiply.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from adapt.objectives import Objective, flow
from adapt.settings import ObjectiveSettings
from spectra.errors import UserError

if TYPE_CHECKING:
    from adapt.prior import Prior

Sampler = Callable[[Tensor], Tensor]
"""Uniform quantiles (batch,) -> quantiles of the noise range (batch,), rising."""

LAST = 1 - 1e-6
"""Quantiles stay below 1, at which some objectives have no timestep."""


def uniform(quantile: Tensor) -> Tensor:
    """Every part of the noise range alike."""
    return quantile


def logit_normal(mean: float, std: float) -> Sampler:
    """The middle of the noise range more than its ends."""
    return lambda quantile: (mean + std * torch.special.ndtri(quantile.clamp(1e-7, LAST).double())).sigmoid()


def mode(scale: float) -> Sampler:
    """The middle more (scale above 0) or less (below 0), and all levels; scale in -1 .. 2 / (pi - 2)."""
    return lambda quantile: quantile + scale * (quantile - (math.pi / 2 * quantile).sin().square())


def cosmap(quantile: Tensor) -> Tensor:
    """What makes a flow's levels those of a cosine schedule."""
    sine, cosine = (math.pi / 2 * quantile).sin(), (math.pi / 2 * quantile).cos()
    return sine / (sine + cosine)


def from_prior(prior: Prior | None, objective: Objective) -> Sampler:
    """Where a prior found that the data's bands emerge: its inverse distribution function of log-SNR."""
    if prior is None:
        raise UserError("timesteps 'prior' needs a prior; give one, or choose other timesteps")
    levels = torch.as_tensor(prior.timestep_log_snr, dtype=torch.float64)
    knots = objective.quantile_of(levels)
    return lambda quantile: _lerp(quantile, knots)


def sampler_of(config: ObjectiveSettings, objective: Objective, prior: Prior | None = None) -> Sampler:
    """The map that a configuration asks for.

    Raises:
        UserError: a shift for a model without one, or timesteps of a prior where there is none.
    """
    if config.shift is not None and objective.shift is None:
        raise UserError("shift moves the noise levels of flow models only, and this model is a denoiser; leave it out")
    spread: dict[str, Callable[[], Sampler]] = {
        "uniform": lambda: uniform,
        "logit_normal": lambda: logit_normal(config.logit_mean, config.logit_std),
        "mode": lambda: mode(config.mode_scale),
        "cosmap": lambda: cosmap,
        "prior": lambda: from_prior(prior, objective),
    }
    inner = spread[config.timesteps]()
    relative = 1.0 if config.shift is None or objective.shift is None else config.shift / objective.shift
    return lambda quantile: flow.shifted(inner(quantile), relative).to(quantile).clamp(0, LAST)


def density(sampler: Sampler, edges: Tensor, points: int = 100_000) -> Tensor:
    """How densely a map fills the cells between rising `edges` (n + 1,) of the noise range, (n,).

    The share of the training samples in each cell over the cell's width, so that uniform sampling has density 1; exact
    to 1 / points.
    """
    probability = torch.arange(points + 1, dtype=torch.float64) / points
    places = sampler(probability)
    below = torch.searchsorted(places, edges.double()).double() / (points + 1)  # an edge is of the cell above
    return below.diff() / edges.double().diff()


def _lerp(quantile: Tensor, knots: Tensor) -> Tensor:
    """Piecewise-linear function with values `knots` (n,) at evenly spaced places in [0, 1]."""
    place = quantile.double().clamp(0, 1) * (len(knots) - 1)
    left = place.floor().long().clamp_max(len(knots) - 2)
    return torch.lerp(knots[left], knots[left + 1], place - left)
