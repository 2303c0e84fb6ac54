"""The loss of one training step: draws -> noisy latents -> prediction -> weighted error, and FeRA's own terms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adapt.config import TrainConfig
from adapt.draws import Draws
from adapt.fera.loss import fecl
from adapt.methods import NAME
from adapt.objectives import SAMPLINGS
from adapt.task import Task
from datasets_cache.families import Conditioning
from spectra.bands import FilterBank


def step_loss(task: Task, denoiser: nn.Module, draws: Draws, consistency: float = 0.0) -> Tensor:
    """Weighted squared error of the prediction, plus FeRA's consistency loss with weight `consistency`."""
    x0, conditioning = task.train.latents(draws.rows), conditioning_of(task, draws)
    timestep = task.objective.timestep(SAMPLINGS[task.config.timesteps](draws.quantiles))
    noisy = task.objective.add_noise(x0, draws.noise, timestep)
    target = task.objective.target(x0, draws.noise, timestep).to(task.device)
    base = None
    if consistency > 0:  # first, so that the gates of the pass that learns are the last ones set
        with torch.no_grad(), task.method.base(task.denoiser):
            base = task.answer(task.denoiser, noisy, timestep, conditioning)
    prediction = task.answer(denoiser, noisy, timestep, conditioning)
    error = (prediction - target).square().flatten(1).mean(1)
    loss = (task.objective.weight(timestep).to(error) * error).mean()
    return loss if base is None else loss + consistency * fecl(prediction, base, target, bank_of(task))


def conditioning_of(task: Task, draws: Draws) -> Conditioning:
    """Embeddings of the batch, those of the empty prompt where the caption is dropped."""

    def chosen(name: str, value: Tensor) -> Tensor:
        return torch.where(draws.dropped.reshape(-1, *(1,) * (value.ndim - 1)), task.train.empty[name], value)

    return {name: chosen(name, value) for name, value in task.train.conditioning(draws.rows).items()}


def bank_of(task: Task) -> FilterBank:
    """The bands in which FeRA's consistency is asked for: those of its router."""
    return FilterBank(task.denoiser.peft_config[NAME].scales)


def fecl_weight(config: TrainConfig, step: int) -> float:
    """Weight of the consistency loss at a step: zero on the steps that leave it out, rising over the warm-up."""
    if config.fecl_weight == 0 or step % config.fecl_every:
        return 0.0
    return config.fecl_weight * min(1.0, (step + 1) / max(1.0, config.fecl_warmup * config.steps))
