"""Validation on a fixed grid: held-out pictures x noise draws x noise levels, the same for every run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapt.draws import sample_noise
from adapt.octaves import BANDS, Named, octaves
from adapt.sampling import density, sampler_of
from adapt.step import told_of
from adapt.task import Task
from datasets_cache.families import Conditioning

CHUNK, ELEMENTS = 64, 2**20
"""Denoiser calls at once: so many, or fewer where their latents have more elements in all."""


@dataclass(frozen=True)
class Grid:
    """The cells on which the error is measured."""

    noise: tuple[Tensor, ...]
    """(draws, c, [t], h, w) of each held-out picture; shapes may differ."""
    timesteps: Tensor
    """(levels,), from clean to noisy, at the middles of equal parts of the noise range."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(levels, samples, draws)"""
        return len(self.timesteps), len(self.noise), len(self.noise[0])

    def same_shape(self) -> list[Tensor]:
        """Samples (n,) of each latent shape."""
        shapes = [one.shape for one in self.noise]
        alike = [[i for i, found in enumerate(shapes) if found == shape] for shape in dict.fromkeys(shapes)]
        return [torch.tensor(rows) for rows in alike]


@dataclass(frozen=True)
class Validation:
    """One measurement."""

    error: Tensor
    """(level, sample, draw): mean squared error of what the network predicts."""
    gates: Tensor | None
    """(level, sample, expert): FeRA's gates, averaged over draws."""
    band_error: Tensor
    """(level, sample, draw, band): energy of the error in each octave, low to high, over the number of latent elements.

    Octaves overlap: these do not sum to `error`.
    """

    def mean(self, weights: Tensor | None = None) -> float:
        """Mean error; with `weights` (level,), which sum to 1, over the levels as they say."""
        by_level = self.error.flatten(1).mean(1)
        return float(by_level.mean() if weights is None else (weights.to(by_level) * by_level).sum())


def make_grid(task: Task) -> Grid:
    """The validation grid of a task, cut to the held-out pictures that there are."""
    config = task.config
    shapes = task.heldout.shapes[: config.eval_samples]
    quantiles = (torch.arange(config.eval_levels) + 0.5) / config.eval_levels
    return Grid(
        noise=tuple(sample_noise(row, config.eval_draws, shape) for row, shape in enumerate(shapes)),
        timesteps=task.objective.timestep(quantiles),
    )


def levels_of(task: Task, grid: Grid) -> Named:
    """Coordinates of a grid's levels: noise_level, the weight of the noise in the state (sigma), and log_snr."""
    objective = task.objective
    level = objective.noise_level(grid.timesteps).double()
    found = {"noise_level": objective.noise_weight(level), "log_snr": objective.log_snr(level)}
    return {name: (("level",), values.numpy()) for name, values in found.items()}


def numbers(values: Tensor) -> NDArray[np.float32]:
    """Measurements as they are stored."""
    found: NDArray[np.float32] = values.float().cpu().numpy()
    return found


def training_weights(task: Task, grid: Grid) -> Tensor:
    """Share (level,) of the training samples that fall into each level's part of the noise range.

    With them, `Validation.mean` estimates the error that training sees, before its weighting; without them all levels
    count alike, and runs that sample levels differently can be compared.
    """
    edges = torch.linspace(0, 1, len(grid.timesteps) + 1)
    return density(sampler_of(task.config, task.objective, task.prior), edges) / len(grid.timesteps)


@dataclass(frozen=True)
class Cells:
    """Cells whose latents are alike in shape, and what the denoiser is asked in them; row i of everything is cell i."""

    where: tuple[Tensor, ...]
    """Level, sample and draw, (n,) each."""
    noisy: Tensor
    """(n, c, [t], h, w)"""
    target: Tensor
    """(n, c, [t], h, w): what should be answered."""
    timestep: Tensor
    """(n,)"""
    told: Conditioning

    def answer(self, task: Task) -> Tensor:
        """The prediction (n, c, [t], h, w) of the denoiser as it is, adapter included, on the CPU."""
        return task.answer(task.denoiser, self.noisy, self.timestep, self.told).cpu()


def cells_of(task: Task, grid: Grid) -> Iterator[Cells]:
    """All cells of a grid, as many at once as are asked about in one call."""
    levels, _, draws = grid.shape
    for rows in grid.same_shape():
        cells = torch.cartesian_prod(torch.arange(levels), rows, torch.arange(draws))
        at_once = max(1, min(CHUNK, ELEMENTS // grid.noise[int(rows[0])][0].numel()))
        for part in cells.split(at_once):
            yield _asked(task, grid, part)


def _asked(task: Task, grid: Grid, cells: Tensor) -> Cells:
    level, sample, draw = cells.unbind(1)
    rows = sample.tolist()
    x0, timestep = task.heldout.latents(rows), grid.timesteps[level]
    noise = torch.stack([grid.noise[row][one] for row, one in zip(rows, draw.tolist(), strict=True)])
    noisy, target = task.objective.add_noise(x0, noise, timestep), task.objective.target(x0, noise, timestep)
    return Cells((level, sample, draw), noisy, target, timestep, _told(task, sample))


@torch.no_grad()
def validate(task: Task, grid: Grid) -> Validation:
    """Measure the error of the denoiser as it is, adapter included, on every cell of the grid."""
    error, band_error = torch.zeros(grid.shape), torch.zeros(*grid.shape, BANDS)
    gates: Tensor | None = None
    for cells in cells_of(task, grid):
        residual = cells.answer(task) - cells.target
        error[cells.where], band_error[cells.where] = residual.square().flatten(1).mean(1), band_energies(residual)
        found = task.method.gates(task.denoiser)
        if found is not None:
            gates = torch.zeros(*grid.shape, found.shape[-1]) if gates is None else gates
            gates[cells.where] = found.detach().float().cpu()
    return Validation(error, None if gates is None else gates.mean(2), band_error)


def _told(task: Task, sample: Tensor) -> Conditioning:
    """What the denoiser is told of samples (n,): each is read, or encoded, once."""
    rows, where = sample.unique(return_inverse=True)
    told = told_of(task, task.heldout, rows.tolist(), [0] * len(rows))
    return {name: value[where.to(value.device)] for name, value in told.items()}


def band_energies(field: Tensor) -> Tensor:
    """Band energies (n, band) of fields (n, c, [t], h, w), summed over channels and frames, per element."""
    energies = octaves(field).energies(field)
    return energies.flatten(1, -2).sum(1) / field[0].numel()
