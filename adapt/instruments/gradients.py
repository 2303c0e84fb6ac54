"""What the loss asks of an adapter at each noise level and in each band, and whether the levels agree.

With the loss of a cell, L = w(level) mean((prediction - target)^2), the gradient with respect to the prediction is
g = 2 w r / N, r the error and N the number of elements.  A filter bank splits r = sum_k B_k r, and the chain rule is
linear, so the gradient with respect to the parameters splits too: J^T g = sum_k J^T (2 w B_k r / N).

Gradients of a few pictures are noisy, and noise makes levels look unrelated.  Two halves of the pictures have
independent noise, so <a_i, b_j>, of level i by one half and level j by the other, has the inner product of the true
gradients as its mean.  From these the agreement of levels is reckoned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from adapt.octaves import BANDS, octaves
from adapt.task import Task
from adapt.validate import Cells, Grid, band_energies, cells_of
from spectra.errors import UserError


@dataclass(frozen=True)
class LevelGradients:
    """Gradients of the mean loss at each noise level, of two halves of the held-out pictures."""

    energy: Tensor
    """(level, band): N ||B_k g||^2, mean over cells: 4 w^2 times the error's energy per element in the band."""
    halves: Tensor
    """(2, level, parameters)"""
    bands: Tensor
    """(level, band, band): inner products of what two bands of the error ask for, one by either half, symmetrised."""

    @property
    def whole(self) -> Tensor:
        """(level, parameters): gradients of all pictures."""
        return self.halves.mean(0)

    @property
    def inner(self) -> Tensor:
        """(level, level): inner products of the gradients of levels by different halves; unbiased, symmetric."""
        return symmetric(self.halves[0] @ self.halves[1].T)


def level_gradients(task: Task, grid: Grid, parameters: Mapping[str, Tensor]) -> LevelGradients:
    """Gradients of the loss at every level of a grid with respect to `parameters` of the task's denoiser.

    The loss is that of training, weighted as the run's objective says, without what FeRA or a class adds to it.

    Raises:
        UserError: fewer than two held-out pictures.
    """
    levels, samples, _ = grid.shape
    if samples < 2:
        raise UserError("gradients are compared between two halves of the held-out pictures, and there is only one")
    found = [_of_level(task, Grid(grid.noise, grid.timesteps[i : i + 1]), parameters) for i in range(levels)]
    energy, halves, bands = (torch.stack(part) for part in zip(*found, strict=True))
    return LevelGradients(energy, halves.transpose(0, 1), bands)


def _of_level(task: Task, grid: Grid, parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Energy (band,), gradients (2, parameters) and inner products (band, band) at one level."""
    _, samples, draws = grid.shape
    values = list(parameters.values())
    energy = torch.zeros(BANDS)
    parts = torch.zeros(2, BANDS, sum(value.numel() for value in values))
    counts = [draws * len(range(half, samples, 2)) for half in range(2)]
    with _learning(values):
        for cells in cells_of(task, grid):
            prediction, pull = _pull(task, cells)
            energy += band_energies(pull).sum(0) * pull[0].numel() ** 2 / (samples * draws)
            bank = octaves(pull)
            split = bank.split(pull).movedim(-3, 0)
            for half in range(2):
                mine = (cells.where[1] % 2 == half).reshape(-1, *(1,) * (pull.ndim - 1)) / counts[half]
                for band in range(BANDS):
                    parts[half, band] += _flat(prediction, split[band] * mine, values)
    return energy, parts.sum(1), symmetric(parts[0] @ parts[1].T)


def _pull(task: Task, cells: Cells) -> tuple[Tensor, Tensor]:
    """Prediction (n, ...), in its graph, and the gradient of each cell's own loss with respect to it, by autograd."""
    prediction = cells.answer(task)
    weight = task.objective.weight(cells.timestep)
    loss = (weight * (prediction - cells.target).square().flatten(1).mean(1)).sum()
    return prediction, torch.autograd.grad(loss, prediction, retain_graph=True)[0]


def _flat(prediction: Tensor, pull: Tensor, values: Sequence[Tensor]) -> Tensor:
    """J^T pull (parameters,), on the CPU."""
    found = torch.autograd.grad(prediction, values, pull, retain_graph=True, materialize_grads=True)
    return torch.cat([one.detach().float().flatten().cpu() for one in found])


@contextmanager
def _learning(values: Sequence[Tensor]) -> Iterator[None]:
    """Inside, these tensors have gradients."""
    before = [value.requires_grad for value in values]
    try:
        for value in values:
            value.requires_grad_(True)
        yield
    finally:
        for value, was in zip(values, before, strict=True):
            value.requires_grad_(was)


def symmetric(square: Tensor) -> Tensor:
    """The symmetric part of (n, n)."""
    return (square + square.T) / 2


def cosines(inner: Tensor) -> Tensor:
    """Cosines (..., n, n) from inner products; NaN with what has no length, or an estimate of it below zero."""
    length = inner.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    found = inner / (length[..., :, None] * length[..., None, :])
    return torch.where(found.isfinite(), found, torch.nan)


def norms_of_experts(gradient: Tensor, owners: Tensor, experts: int) -> Tensor:
    """Norms (..., experts) of the parts of gradients (..., parameters) that belong to each expert by `owners`."""
    one_hot = torch.nn.functional.one_hot(owners + 1, experts + 1)[:, 1:].to(gradient)
    return (gradient.square() @ one_hot).sqrt()
