"""How a call ends: the finished sample, as the pipeline goes on with it, and the noise that is left in it.

The last step of the scheduler need not be the end of either. Inpainting puts the known part of the picture back after
each step, a user's callback may change the latents, and a call may stop before the scheduler's last timestep.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from spectra.recording.entry import Entry, numbers
from spectra.recording.tap import tap
from spectra.signals import Level, Schedule

if TYPE_CHECKING:
    from torch import Tensor

CALLBACK = "callback_on_step_end"
WANTED = "callback_on_step_end_tensor_inputs"


def level_after(scheduler: Any, schedule: Schedule, last: Entry) -> Level:
    """Where the last call led: to the next of the scheduler's timesteps if there is one, else to their end."""
    timesteps = getattr(scheduler, "timesteps", None)
    if timesteps is None or last.level is not None:  # told by hand, and so is the end
        return schedule.final
    following, calls = _place(timesteps, last) + 1, len(timesteps) - schedule.uncalled
    return schedule.at(timesteps[following], following) if 0 < following < calls else schedule.final


def _place(timesteps: Any, last: Entry) -> int:
    """Where the last call stands among the timesteps; -1 if it does not."""
    if last.index is not None:
        return last.index
    time = numbers([last.timestep])[0]
    time = float(time.flatten()[0]) if hasattr(time, "flatten") else float(time)
    return max((i for i, one in enumerate(numbers(list(timesteps))) if float(one) == time), default=-1)


@functools.lru_cache(maxsize=64)
def _names(kind: Any) -> bool:
    """True if the pipeline's own call names the callback; one that only passes arguments on is not given another."""
    return CALLBACK in inspect.signature(kind.__call__).parameters


def heard_callback(
    pipe: Any, arguments: Mapping[str, Any], kwargs: dict[str, Any], heard: Callable[[Tensor], None]
) -> dict[str, Any]:
    """The arguments of a pipeline's call, with `heard` told the latents that it goes on with after each step.

    Pipelines of diffusers hand them to `callback_on_step_end`; one that the user gave is called as it would have been.
    Pipelines without that argument are left alone: what they change after the last step is not known.
    """
    kind: Any = type(pipe)
    offered = {CALLBACK, WANTED}.issubset(arguments) and (kwargs.get(CALLBACK) is not None or _names(kind))
    if not offered or "latents" not in getattr(pipe, "_callback_tensor_inputs", ()):
        return kwargs
    given = arguments[CALLBACK]
    names = getattr(given, "tensor_inputs", None)  # diffusers' own callbacks say what they want
    names = list(arguments[WANTED] or () if names is None else names)

    def callback(called: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        latents, kept = tensors["latents"], {name: tensors[name] for name in names}
        result = given(called, step, timestep, kept) if given is not None else kept
        heard((result or {}).get("latents", latents))  # PRX takes None for an answer
        return result

    return kwargs | {CALLBACK: callback, WANTED: [*names, *({"latents"} - set(names))]}


@contextmanager
def hearing_state(pipe: Any, heard: Callable[[Tensor], None]) -> Iterator[None]:
    """Tell `heard` the latents that the blocks of a modular pipeline leave behind, for the length of a `with`."""
    blocks = getattr(pipe, "_blocks", None)

    def around(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        pipeline, state = original(*args, **kwargs)
        latents = state.get("latents")
        if latents is not None:
            heard(latents)
        return pipeline, state

    with tap(blocks, "__call__", around) if callable(blocks) else nullcontext():
        yield
