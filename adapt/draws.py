"""Chance in training, as pure functions of seed and step: equal for every method, device and number of processes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_GRID_SEED = 20_240_229
"""Of the validation noise: the same for every run, so that errors of different runs are paired."""


@dataclass(frozen=True)
class Draws:
    """What chance decides in one step, for the whole batch."""

    rows: list[int]
    """Pictures."""
    noise: Tensor
    """(batch, c, h, w), standard normal."""
    quantiles: Tensor
    """(batch,) in [0, 1), one in each of `batch` equal parts, so that a step sees the whole noise range."""
    dropped: Tensor
    """(batch,) bool: samples trained with the empty prompt."""

    def part(self, index: int, parts: int) -> Draws:
        """Every `parts`-th sample, for one of several processes."""
        mine = slice(index, None, parts)
        return Draws(self.rows[mine], self.noise[mine], self.quantiles[mine], self.dropped[mine])


def generator(*key: int) -> torch.Generator:
    """A generator on the CPU whose stream belongs to the key alone."""
    state = 0
    for part in key:  # SplitMix64's mixing, so that neighbouring keys have unrelated streams
        state = (state + part + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return torch.Generator().manual_seed(state & 0x7FFFFFFFFFFFFFFF)


def rows_of(seed: int, step: int, batch: int, size: int) -> list[int]:
    """The pictures of a step: epochs of fresh permutations, cut into batches without a seam."""
    rows: list[int] = []
    place = step * batch
    while len(rows) < batch:
        epoch, within = divmod(place + len(rows), size)
        order = torch.randperm(size, generator=generator(seed, 1, epoch)).tolist()
        rows += order[within : within + batch - len(rows)]
    return rows


def draw(seed: int, step: int, batch: int, size: int, shape: tuple[int, ...], dropout: float) -> Draws:
    """Everything that chance decides in step `step` of a run on `size` pictures with latents of `shape`."""
    source = generator(seed, 2, step)
    noise = torch.randn((batch, *shape), generator=source)
    quantiles = (torch.arange(batch) + torch.rand(batch, generator=source)) / batch
    dropped = torch.rand(batch, generator=source) < dropout
    return Draws(rows_of(seed, step, batch, size), noise, quantiles.clamp_max(1 - 1e-6), dropped)


def grid_noise(samples: int, draws: int, shape: tuple[int, ...]) -> Tensor:
    """Noise (samples, draws, *shape) of the validation grid; a larger grid begins with the smaller one's."""
    rows = [torch.randn((draws, *shape), generator=generator(_GRID_SEED, row)) for row in range(samples)]
    return torch.stack(rows)
