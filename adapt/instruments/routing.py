"""What a router of FeRA tells apart, and what its gates are worth: is energy more than a clock?"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from adapt.fera.ablation import edited_gates, switched_off
from adapt.fera.model import router_of
from adapt.instruments.gradients import cosines
from adapt.methods import NAME
from adapt.task import Task
from adapt.validate import Cells, Grid, cells_of
from spectra.errors import UserError

SOURCES = ("level", "picture", "draw")
GATINGS = ("own", "level_mean", "other_picture", "uniform")
"""Gates of a cell: the router's; their mean at its noise level; those of another picture there; all alike."""


class Routing(NamedTuple):
    """What the router read and gave on a grid."""

    features: Tensor | None
    """(level, sample, draw, feature), standardised as the router has them; None where gates are uniform."""
    gates: Tensor
    """(level, sample, draw, expert)"""


@torch.no_grad()
def routing(task: Task, grid: Grid) -> Routing:
    """Features and gates of every cell of a grid.

    Raises:
        UserError: the task's adapter is no FeRA.
    """
    router = router_of(task.denoiser)
    if router is None:
        raise UserError(f"{type(task.denoiser).__name__} has no FeRA adapter, so there is no router to look at")
    gates = torch.zeros(*grid.shape, router.experts[NAME])
    rows: list[tuple[Cells, Tensor]] = []
    seen: list[Tensor] = []
    reader = router.reading[NAME]

    def look(module: Any, args: tuple[Any, ...]) -> None:
        latent, _, timestep = args
        if reader is not None:
            seen.append(reader(latent, timestep).detach().float().cpu())

    handle = router.register_forward_pre_hook(look)
    try:
        for cells in cells_of(task, grid):
            cells.answer(task)
            found = task.method.gates(task.denoiser)
            assert found is not None
            gates[cells.where] = found.float().cpu()
            if reader is not None:
                rows.append((cells, seen.pop()))
    finally:
        handle.remove()
    return Routing(_placed(rows, grid), gates)


def _placed(rows: list[tuple[Cells, Tensor]], grid: Grid) -> Tensor | None:
    if not rows:
        return None
    found = torch.zeros(*grid.shape, rows[0][1].shape[1])
    for cells, values in rows:
        found[cells.where] = values
    return found


def variance_split(values: Tensor) -> Tensor:
    """Variance components of values (level, sample, draw, ...), (3, ...): between levels, pictures and noise draws.

    The nested random-effects analysis of variance, x = level + picture within level + draw within picture, from mean
    squares; estimates below zero are set to zero.  Their shares are intraclass correlations: a gate whose variance is
    all of the levels is a clock.

    Raises:
        UserError: fewer than two of anything, which leaves a component unknown.
    """
    levels, samples, draws = values.shape[:3]
    if min(levels, samples, draws) < 2:
        raise UserError("variance is split between two or more levels, pictures and draws of the noise")
    values = values.double()
    picture, level = values.mean(2), values.mean((1, 2))
    within = (values - picture[:, :, None]).square().sum((0, 1, 2)) / (levels * samples * (draws - 1))
    among = draws * (picture - level[:, None]).square().sum((0, 1)) / (levels * (samples - 1))
    along = samples * draws * (level - level.mean(0)).square().sum(0) / (levels - 1)
    parts = [(along - among) / (samples * draws), (among - within) / draws, within]
    return torch.stack(parts).clamp_min(0)


@torch.no_grad()
def worth_of_gates(task: Task, grid: Grid, gates: Tensor) -> Tensor:
    """Errors (gating, level, sample) with gates as `GATINGS` says, means over draws.

    `gates` (level, sample, draw, expert) are those of `routing`.  How much worse than its own gates the network is with
    their mean at each noise level is what the energies tell beyond a clock, for this adapter; how much worse with
    uniform ones, what its routing is worth at all.
    """
    other = gates.roll(1, dims=1)
    tables = {"level_mean": gates.mean((1, 2), keepdim=True).expand_as(gates), "other_picture": other,
              "uniform": torch.ones_like(gates)}  # fmt: skip
    error = torch.zeros(len(GATINGS), *grid.shape)
    for cells in cells_of(task, grid):
        for i, name in enumerate(GATINGS):
            residual = _with(task, cells, tables.get(name)) - cells.target
            error[i][cells.where] = residual.square().flatten(1).mean(1)
    return error.mean(3)


def _with(task: Task, cells: Cells, table: Tensor | None) -> Tensor:
    if table is None:
        return cells.answer(task)
    with edited_gates(task.denoiser, lambda gates: table[cells.where].to(gates), NAME):
        return cells.answer(task)


@torch.no_grad()
def effect_cosines(task: Task, grid: Grid) -> Tensor:
    """Cosines (level, expert, expert) of what experts do to the prediction: of the fields that go when each is off.

    Inner products are summed over all cells of a level.  At 1, two experts do the same, whatever their weights.
    """
    router = router_of(task.denoiser)
    if router is None:
        raise UserError(f"{type(task.denoiser).__name__} has no FeRA adapter, so there are no experts to compare")
    experts = router.experts[NAME]
    inner = torch.zeros(grid.shape[0], experts, experts, dtype=torch.float64)
    for cells in cells_of(task, grid):
        whole = cells.answer(task)
        fields = torch.stack([whole - _off(task, cells, expert) for expert in range(experts)]).double().flatten(2)
        inner.index_add_(0, cells.where[0], torch.einsum("ind,jnd->nij", fields, fields))
    return cosines(inner)


def _off(task: Task, cells: Cells, expert: int) -> Tensor:
    with switched_off(task.denoiser, expert, NAME):
        return cells.answer(task)
