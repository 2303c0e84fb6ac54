"""Where training looks and where sampling goes, on one axis: the timestep of the model's training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from adapt.config import TrainConfig
from adapt.objectives import Objective, flow, tokens_of
from adapt.prior import Prior
from adapt.sampling import sampler_of

Array = NDArray[np.float64]
DRAWS = 2**14
BINS = 40
NEGLECT = 0.25
"""A step of the sampler is neglected where training looks less often than this share of evenly spread training."""


@dataclass(frozen=True)
class Levels:
    """Densities over the timesteps of training, from data (0) to noise."""

    edges: Array
    """(bins + 1,) timesteps."""
    training: Array
    """(bins,): density of the training samples, 1 where they are spread evenly over all timesteps."""
    sampler: Array
    """(steps,): timestep of training whose noise level each call of the sampler has, noisy first."""

    def neglected(self) -> float:
        """Share of the sampler's steps at levels that training hardly visits."""
        place = np.clip(np.searchsorted(self.edges, self.sampler) - 1, 0, len(self.training) - 1)
        return float((self.training[place] < NEGLECT).mean())


def levels_of(
    config: TrainConfig, pipe: Any, objective: Objective, prior: Prior | None, shape: tuple[int, ...]
) -> Levels:
    """Both distributions, for a configuration, an opened pipeline and latents of a shape (c, [t], h, w)."""
    quantiles = sampler_of(config, objective, prior)((torch.arange(DRAWS) + 0.5) / DRAWS)
    last = float(objective.timestep(torch.tensor([1 - 1e-6])).ceil().item())
    drawn = objective.timestep(quantiles).double().numpy()
    training, edges = np.histogram(drawn, bins=BINS, range=(0.0, last), density=True)
    steps = torch.as_tensor(sampler_log_snr(pipe, config.sample_steps, tokens_of(pipe, shape)))
    visited = objective.timestep(objective.quantile_of(steps).clamp(0, 1 - 1e-6))
    return Levels(edges, training * last, visited.double().numpy())


def sampler_log_snr(pipe: Any, steps: int, tokens: int) -> Array:
    """log-SNR of each call of the pipeline's own sampler, noisy first."""
    from spectra.analysis.kernels import log_snr
    from spectra.signals import schedule_of

    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    dynamic = scheduler.config.get("use_dynamic_shifting")
    scheduler.set_timesteps(steps, **({"mu": flow.mu(scheduler.config, tokens)} if dynamic else {}))
    schedule = schedule_of(scheduler, ("latent",))
    found = [schedule.at(t, i) for i, t in enumerate(scheduler.timesteps)]
    return log_snr(np.array([level.signal for level in found]), np.array([level.noise for level in found]))
