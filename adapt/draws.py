"""Chance in training, as pure functions of seed and step: equal for every method, device and number of processes."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

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
    choice: Tensor
    """(batch,) in [0, 1): which of a picture's captions is used."""
    lot: Tensor
    """(batch,) in [0, 1), evenly spread over the batch whatever the quantiles: chooses a share of it."""
    place: Tensor
    """(batch,) whole numbers: positions in the whole batch of the step."""
    key: tuple[int, int]
    """Seed and step, from which other draws of the same step are made."""

    def part(self, index: int, parts: int) -> Draws:
        """Every `parts`-th sample, for one of several processes."""
        return self.take(range(index, len(self.rows), parts))

    def take(self, samples: Sequence[int]) -> Draws:
        """The given samples, in that order."""
        mine = torch.as_tensor(list(samples), dtype=torch.long)
        names = ("noise", "quantiles", "dropped", "choice", "lot", "place")
        chosen: dict[str, Any] = {name: getattr(self, name)[mine] for name in names}
        return replace(self, rows=[self.rows[i] for i in mine.tolist()], **chosen)


def generator(*key: int) -> torch.Generator:
    """A generator on the CPU whose stream belongs to the key alone."""
    state = 0
    for part in key:  # SplitMix64's mixing, so that neighbouring keys have unrelated streams
        state = (state + part + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return torch.Generator().manual_seed(state & 0x7FFFFFFFFFFFFFFF)


def rows_of(seed: int, step: int, batch: int, size: int, groups: Sequence[int] | None = None) -> list[int]:
    """The pictures of a step: epochs of fresh permutations, cut into batches without a seam.

    Of pictures of several `groups` (one number each, for its shape) a step has those of one. They wait in the order of
    the permutations, and whenever `batch` of a group are there they are a step; those left over at the end of an epoch
    are the first of their group in the next. So each picture is seen as often as the others of its group, give or take
    one, and as often as there were epochs, but for fewer than `batch` of each group that still wait. With one group
    that is the order without groups.

    Nothing is remembered: the epoch of a step follows from the numbers of pictures, its place in it from the epoch's
    permutation, so a run goes on anywhere.
    """
    every = tuple(groups) if groups is not None else (0,) * size
    counts = _counts(every)

    def steps_before(epoch: int) -> int:
        return sum(epoch * count // batch for count in counts.values())

    # The last epoch that begins with at most `step` steps done; each epoch fills at least one batch of every
    # `batch` pictures of a group.
    epochs = range((step + 1 + len(counts)) * batch // size + 2)
    epoch = bisect_right(epochs, step, key=steps_before) - 1
    group, number = _filled(seed, epoch, batch, every)[step - steps_before(epoch)]
    rows: list[int] = []
    while len(rows) < batch:  # the group's own sequence: its members in epoch after epoch
        epoch, within = divmod(number * batch + len(rows), counts[group])
        rows += _members(seed, epoch, every)[group][within : within + batch - len(rows)]
    return rows


def rows_of_shapes(
    seed: int, step: int, batch: int, size: int, shapes: Sequence[tuple[int, ...]] | None = None
) -> list[int]:
    """The pictures of a step as `draw` has them: with `shapes`, the shape of each picture's latent, those of one."""
    return rows_of(seed, step, batch, size, None if shapes is None else _numbered(tuple(shapes)))


@lru_cache(maxsize=8)
def _counts(groups: tuple[int, ...]) -> dict[int, int]:
    """How many pictures each group has."""
    return Counter(groups)


@lru_cache(maxsize=8)
def _order(seed: int, epoch: int, size: int) -> list[int]:
    """The permutation of an epoch."""
    order: list[int] = torch.randperm(size, generator=generator(seed, 1, epoch)).tolist()
    return order


@lru_cache(maxsize=8)
def _members(seed: int, epoch: int, groups: tuple[int, ...]) -> dict[int, list[int]]:
    """The pictures of each group in the order of an epoch."""
    members: dict[int, list[int]] = defaultdict(list)
    for row in _order(seed, epoch, len(groups)):
        members[groups[row]].append(row)
    return members


@lru_cache(maxsize=8)
def _filled(seed: int, epoch: int, batch: int, groups: tuple[int, ...]) -> list[tuple[int, int]]:
    """The batches that become full in an epoch, in order: a group, and which of its batches since the start."""
    waiting = {group: epoch * count for group, count in _counts(groups).items()}
    full = []
    for row in _order(seed, epoch, len(groups)):
        group = groups[row]
        waiting[group] += 1
        if waiting[group] % batch == 0:
            full.append((group, waiting[group] // batch - 1))
    return full


def draw(
    seed: int,
    step: int,
    batch: int,
    size: int,
    shape: tuple[int, ...],
    dropout: float,
    shapes: Sequence[tuple[int, ...]] | None = None,
) -> Draws:
    """Everything that chance decides in step `step` of a run on `size` pictures.

    Args:
        seed: of the run.
        step: counted from 0.
        batch: samples of a step.
        size: number of pictures.
        shape: of their latents, if that is one.
        dropout: share of the samples that are trained with the empty prompt.
        shapes: of the latent of each picture, where they differ; a step has pictures of one shape.
    """
    rows = rows_of_shapes(seed, step, batch, size, shapes)
    shape = shape if shapes is None else shapes[rows[0]]
    source = generator(seed, 2, step)
    noise = torch.randn((batch, *shape), generator=source)
    quantiles = (torch.arange(batch) + torch.rand(batch, generator=source)) / batch
    dropped = torch.rand(batch, generator=source) < dropout
    choice = torch.rand(batch, generator=source)
    lot = (torch.randperm(batch, generator=source) + torch.rand(batch, generator=source)) / batch
    place = torch.arange(batch)
    below = 1 - 1e-6  # float32 rounds a draw just under 1 to 1
    return Draws(
        rows, noise, quantiles.clamp_max(below), dropped, choice, lot.clamp_max(below), place, (seed, step)
    )  # fmt: skip


@lru_cache(maxsize=8)
def _numbered(shapes: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    """A number for each shape, in the order in which they first occur."""
    numbers = {shape: number for number, shape in enumerate(dict.fromkeys(shapes))}
    return tuple(numbers[shape] for shape in shapes)


def grid_noise(samples: int, draws: int, shape: tuple[int, ...]) -> Tensor:
    """Noise (samples, draws, *shape) of the validation grid; a larger grid begins with the smaller one's."""
    return torch.stack([sample_noise(row, draws, shape) for row in range(samples)])


def sample_noise(sample: int, draws: int, shape: tuple[int, ...]) -> Tensor:
    """Noise (draws, *shape) of one sample of the validation grid."""
    return torch.randn((draws, *shape), generator=generator(_GRID_SEED, sample))
