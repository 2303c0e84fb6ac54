"""What a scheduler was given at one call, and how to read and replace the arguments of its `step`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spectra.errors import UserError
from spectra.signals import Level

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
        split = () if isinstance(self.split, str) else self.split[:2]
        return sum(one.numel() * one.element_size() for one in (self.x, self.out, *split))


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
