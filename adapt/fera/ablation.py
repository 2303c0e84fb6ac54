"""What each expert does, measured by switching it off after training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adapt.fera.model import cell_of, denoiser_of, router_of
from spectra.errors import UserError

if TYPE_CHECKING:
    from adapt.task import Task
    from adapt.validate import Cells, Grid


@contextmanager
def edited_gates(pipe_or_model: Any, edit: Callable[[Tensor], Tensor], adapter_name: str = "default") -> Iterator[None]:
    """Inside, the gates (batch, experts) of an adapter are `edit` of what its router gives, in every layer.

    Edits within edits apply one after the other, the outer one first.  They act where the router writes its gates,
    outside of compiled graphs, so nothing is compiled anew.

    Raises:
        UserError: there is no FeRA adapter of that name.
    """
    _experts(pipe_or_model, adapter_name)
    cell = cell_of(pipe_or_model)
    before = cell.edits
    outer = before.get(adapter_name)
    cell.edits = before | {adapter_name: edit if outer is None else lambda gates: edit(outer(gates))}
    try:
        yield
    finally:
        cell.edits = before


@contextmanager
def switched_off(pipe_or_model: Any, expert: int, adapter_name: str = "default") -> Iterator[None]:
    """Inside, the gate of one expert, counted from 0, is zero; the others keep theirs, so rows no longer have mean one.

    Raises:
        UserError: there is no FeRA adapter of that name, or it has no such expert.
    """
    experts = _experts(pipe_or_model, adapter_name)
    if not 0 <= expert < experts:
        raise UserError(f"the adapter {adapter_name!r} has experts 0 to {experts - 1}, and no expert {expert}")
    with edited_gates(pipe_or_model, lambda gates: _without(gates, expert), adapter_name):
        yield


def _without(gates: Tensor, expert: int) -> Tensor:
    return torch.where(torch.arange(gates.shape[-1], device=gates.device) == expert, 0.0, gates)


def _experts(pipe_or_model: Any, adapter_name: str) -> int:
    model = denoiser_of(pipe_or_model)
    router = router_of(model)
    if router is None or adapter_name not in router.experts:
        raise UserError(f"{type(model).__name__} has no FeRA adapter {adapter_name!r} whose gates could be changed")
    return router.experts[adapter_name]


@dataclass(frozen=True)
class Ablation:
    """What experts do, means over the noise draws; bands are those of `adapt.validate`, low to high."""

    effect: Tensor
    """(level, sample, expert, band): energy per element of (prediction - prediction without the expert)."""
    error: Tensor
    """(level, sample, expert, band): energy of the error without the expert, per element, minus that with it.

    Positive where the expert helps.
    """
    total: Tensor
    """(level, sample, expert): the same of the mean squared error."""


@torch.no_grad()
def ablate(task: Task, grid: Grid) -> Ablation:
    """Measure every expert of the task's adapter, as it is, on every cell of the grid.

    One pass over the grid with all experts and one without each.

    Raises:
        UserError: the task's adapter is no FeRA.
    """
    from adapt.methods import NAME
    from adapt.octaves import BANDS
    from adapt.validate import cells_of

    shape = *grid.shape, _experts(task.denoiser, NAME)
    effect, error, total = torch.zeros(*shape, BANDS), torch.zeros(*shape, BANDS), torch.zeros(shape)
    for cells in cells_of(task, grid):
        at = cells.where
        effect[at], error[at], total[at] = _measured(task, cells, shape[-1])
    return Ablation(effect.mean(2), error.mean(2), total.mean(2))


def _measured(task: Task, cells: Cells, experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Effect and error (n, expert, band) and total (n, expert) of every expert in n cells."""
    from adapt.methods import NAME
    from adapt.validate import band_energies

    whole = cells.answer(task)
    rows = []
    for expert in range(experts):
        with switched_off(task.denoiser, expert, NAME):
            without = cells.answer(task)
        lacking, having = without - cells.target, whole - cells.target
        error = band_energies(lacking) - band_energies(having)
        total = (lacking.square() - having.square()).flatten(1).mean(1)
        rows.append((band_energies(whole - without), error, total))
    effect, error, total = (torch.stack(column, 1) for column in zip(*rows, strict=True))
    return effect, error, total
