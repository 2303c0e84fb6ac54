"""Validation on a fixed grid: held-out pictures x noise draws x noise levels, the same for every run."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adapt.draws import grid_noise
from adapt.task import Task
from datasets_cache.families import Conditioning

CHUNK = 64
"""Denoiser calls at once."""


@dataclass(frozen=True)
class Grid:
    """The cells on which the error is measured."""

    latents: Tensor
    """(samples, c, h, w)"""
    conditioning: Conditioning
    """argument -> (samples, ...)"""
    noise: Tensor
    """(samples, draws, c, h, w)"""
    timesteps: Tensor
    """(levels,), from clean to noisy, at the middles of equal parts of the training range."""


@dataclass(frozen=True)
class Validation:
    """One measurement."""

    error: Tensor
    """(level, sample, draw): mean squared error of what the network predicts."""
    gates: Tensor | None
    """(level, sample, expert): FeRA's gates, averaged over draws."""


def make_grid(task: Task) -> Grid:
    """The validation grid of a task, cut to the held-out pictures that there are."""
    config = task.config
    samples = min(config.eval_samples, len(task.heldout))
    quantiles = (torch.arange(config.eval_levels) + 0.5) / config.eval_levels
    return Grid(
        latents=task.heldout.latents(range(samples)),
        conditioning=task.heldout.conditioning(range(samples)),
        noise=grid_noise(samples, config.eval_draws, task.shape),
        timesteps=task.objective.timestep(quantiles),
    )


@torch.no_grad()
def validate(task: Task, grid: Grid) -> Validation:
    """Measure the error of the denoiser as it is, adapter included, on every cell of the grid."""
    samples, draws = grid.noise.shape[:2]
    levels = len(grid.timesteps)
    cells = torch.cartesian_prod(torch.arange(levels), torch.arange(samples), torch.arange(draws))
    parts = [_measure(task, grid, part) for part in cells.split(CHUNK)]
    error = torch.cat([error for error, _ in parts]).reshape(levels, samples, draws)
    gates = [found for _, found in parts if found is not None]
    return Validation(error, torch.cat(gates).reshape(levels, samples, draws, -1).mean(2) if gates else None)


def _measure(task: Task, grid: Grid, cells: Tensor) -> tuple[Tensor, Tensor | None]:
    level, sample, draw = cells.unbind(1)
    x0, noise, timestep = grid.latents[sample], grid.noise[sample, draw], grid.timesteps[level]
    noisy = task.objective.add_noise(x0, noise, timestep)
    conditioning = {name: value[sample] for name, value in grid.conditioning.items()}
    prediction = task.answer(task.denoiser, noisy, timestep, conditioning).cpu()
    gates = task.method.gates(task.denoiser)
    error = (prediction - task.objective.target(x0, noise, timestep)).square().flatten(1).mean(1)
    return error, None if gates is None else gates.detach().float().cpu()
