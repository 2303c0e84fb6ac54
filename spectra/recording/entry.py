"""What a scheduler was given at one call: to be read from the arguments of its `step`, replaced there, and measured."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spectra.errors import UserError
from spectra.recording.meter import States
from spectra.signals import Level, Schedule

if TYPE_CHECKING:
    from torch import Tensor

    from spectra.recording.split import Split


@dataclass(slots=True)
class Entry:
    """One call of the scheduler, as it was: raw copies, and `split` or the reason why there is none.

    One is made at every step, so it is kept light.
    """

    x: Tensor
    out: Tensor
    timestep: Any
    index: int | None
    level: Level | None = None
    split: Split | str = ""
    blocks: Mapping[str, Tensor] | None = None

    @property
    def nbytes(self) -> int:
        """Memory that it holds."""
        own: int = self.x.nbytes + self.out.nbytes
        return own if isinstance(self.split, str) else own + self.split.cond.nbytes + self.split.uncond.nbytes


@functools.lru_cache(maxsize=64)
def positional(kind: Any) -> tuple[str, ...]:
    """Names of the arguments of a scheduler's `step`, in its order. Raises UserError where one is missing."""
    names = tuple(inspect.signature(kind.step).parameters)[1:]
    if missing := {"sample", "model_output", "timestep"}.difference(names):
        raise UserError(f"{kind.__name__}.step has no argument {sorted(missing)[0]}, so it cannot be recorded")
    return names


def replaced(
    kind: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of `step` with another model output."""
    place = positional(kind).index("model_output")
    if place < len(args):
        return (*args[:place], out, *args[place + 1 :]), kwargs
    return args, kwargs | {"model_output": out}


def with_variance(out: Tensor, whole: Tensor) -> Tensor:
    """A prediction with the learned variance behind it that `whole` has, if it has one."""
    import torch

    return out if out.shape == whole.shape else torch.cat([out, whole[:, out.shape[1] :]], 1)


def index_of(scheduler: Any, timestep: Any) -> int | None:
    """The index that a coming step will have."""
    index = getattr(scheduler, "step_index", None)
    if index is None and hasattr(scheduler, "index_for_timestep"):
        begin = getattr(scheduler, "begin_index", None)
        return int(scheduler.index_for_timestep(timestep) if begin is None else begin)
    return index


def copied(split: Split | str) -> Split | str:
    """Copies, which keep neither the whole batch alive nor change with it."""
    if isinstance(split, str):
        return split
    return split._replace(cond=split.cond.detach().clone(), uncond=split.uncond.detach().clone())


def without_variance(x: Tensor, out: Tensor) -> Tensor:
    """A prediction without the learned variance that is its other half, `(b, 2 c, h, w)` -> `(b, c, h, w)`."""
    return out[:, : x.shape[1]] if x.ndim >= 4 and out.shape[1] == 2 * x.shape[1] else out


def numbers(timesteps: Sequence[Any]) -> list[Any]:
    """Timesteps as numbers, in one copy from the device; what is no number (one per token) stays as it is."""
    import torch

    if not all(isinstance(one, torch.Tensor) and one.numel() == 1 for one in timesteps) or not timesteps:
        return list(timesteps)
    values: list[Any] = torch.stack([one.reshape(()) for one in timesteps]).tolist()
    return values


def levels_of(entries: Sequence[Entry], schedule: Schedule) -> list[Level]:
    """Where each call stands: as it was told, else as its timestep says."""
    times = numbers([entry.timestep for entry in entries])
    return [entry.level or schedule.at(time, entry.index) for entry, time in zip(entries, times, strict=True)]


def states_of(
    entries: Sequence[Entry], levels: Sequence[Level], plain: Callable[[Tensor], Tensor], guided: bool
) -> States:
    """Several calls as they are measured, rearranged at once by `plain`; cond and uncond only if `guided`."""
    import torch

    def stacked(tensors: list[Tensor]) -> Tensor:
        """Raw tensors -> `(calls, b, c, [t], h, w)`."""
        together: Tensor = plain(torch.cat(tensors)).unflatten(0, (len(tensors), -1))
        return together

    splits = [entry.split for entry in entries]
    x, out = stacked([entry.x for entry in entries]), stacked([entry.out for entry in entries])
    if not guided or all(isinstance(split, str) for split in splits):
        return States(x, out, levels)
    nothing = torch.full_like(entries[0].x, torch.nan)
    cond = stacked([nothing if isinstance(split, str) else split.cond for split in splits])
    uncond = stacked([nothing if isinstance(split, str) else split.uncond for split in splits])
    return States(x, out, levels, cond, uncond)
