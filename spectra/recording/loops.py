"""Sampling loops that are written by hand: no pipeline, perhaps no scheduler."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spectra.errors import UserError
from spectra.recording.call import Call
from spectra.recording.entry import Entry, index_of, without_variance
from spectra.recording.provenance import UNKNOWN_SEED, Seeds
from spectra.schedulers.common import only
from spectra.signals import PREDICTIONS, Level, Schedule, schedule_of

if TYPE_CHECKING:
    from torch import Tensor

# From the noise level, the weight of the noise in the state, to the weight of the clean sample.
SPACES: dict[str, Callable[[float], float]] = {
    "ve": lambda noise: 1.0,
    "vp": lambda noise: math.sqrt(max(1 - noise * noise, 0.0)),
    "flow": lambda noise: max(1 - noise, 0.0),
}
ROUNDING = 1e-4  # that a noise level of 1 may be too large by: of half precision


@dataclass(frozen=True)
class Loop:
    """Stands where a pipeline would, for a scheduler or a network that is recorded by itself."""

    scheduler: Any = None
    transformer: Any = None

    @property
    def name(self) -> str:
        """The class of what is recorded."""
        return type(self.transformer if self.scheduler is None else self.scheduler).__name__

    @property
    def components(self) -> dict[str, Any]:
        """As of a pipeline."""
        return {"scheduler": self.scheduler, "transformer": self.transformer}


def subject(pipe: Any) -> Any:
    """A pipeline as it is; a scheduler or a network as a `Loop`. Raises UserError for anything else."""
    from torch import nn

    if hasattr(getattr(pipe, "scheduler", None), "step"):
        return pipe
    if isinstance(pipe, nn.Module):
        return Loop(transformer=pipe)
    if hasattr(pipe, "step") and hasattr(pipe, "timesteps"):
        return Loop(scheduler=pipe)
    raise UserError(f"{type(pipe).__name__} has no scheduler with a step, so nothing can be recorded")


def explicit(space: str | None, prediction_type: str | None) -> Schedule:
    """A schedule whose noise levels come with each observation. Raises UserError for kinds that are not known."""
    kind = prediction_type or ("flow_prediction" if space == "flow" else "")
    flow = space == "flow"
    if space not in SPACES or kind not in PREDICTIONS or (flow != (kind == "flow_prediction") and kind not in CLEAN):
        raise UserError(
            f"space={space!r} with prediction_type={prediction_type!r} is not known: spaces are {', '.join(SPACES)}, "
            f"prediction types {', '.join(PREDICTIONS)}"
        )

    def at(noise_level: Any, index: int | None) -> Level:
        noise = only(noise_level)
        return _level(space, noise, noise)

    return Schedule(space, at, _level(space, math.nan, 0.0), kind)


CLEAN = ("epsilon", "sample", "original_sample")


def _level(space: str, timestep: float, noise: float) -> Level:
    """Raises UserError for weights of the noise that no state of that space has."""
    if space not in SPACES or not 0 <= noise < math.inf or (space != "ve" and noise > 1 + ROUNDING):
        bound = "0 or more" if space == "ve" else "from 0 to 1"
        raise UserError(f"the noise level of a {space} state, its weight of the noise, is {bound}, not {noise}")
    return Level(timestep, SPACES[space](noise), noise)


def loop_seeds(seed: int | Sequence[int] | None, arguments: Mapping[str, Any]) -> Seeds:
    """Seeds as they are given, else those of the generators among the arguments."""
    if seed is None:
        return Seeds.of(arguments)
    return Seeds((seed,), shared=True) if isinstance(seed, int) else Seeds(tuple(seed) or (UNKNOWN_SEED,), shared=False)


@dataclass(frozen=True)
class Sampling:
    """One loop that is being recorded. A scheduler's steps are heard by themselves; anything else is told."""

    call: Call

    def observe(self, x: Tensor, model_output: Tensor, timestep: Any = None, *, noise_level: Any = None) -> None:
        """Tell of one evaluation: the state, what the network said of it (guided), and where it stands.

        Where `sampling` was given a space, `noise_level` is the weight of the noise in `x` and `timestep` only a label
        (the noise level without one); else both belong to the scheduler, whose own step is then not to be called.
        Raises UserError where that leaves the noise level unknown, and where a guidance rule was to steer.
        """
        call, out = self.call, without_variance(x, model_output)
        if call.recorder.rule is not None:
            raise UserError(
                f"the guidance rule {call.recorder.rule.name} acts on a scheduler's step, and what is observed has "
                "happened: take the step inside the block, or leave guidance= out"
            )
        level = self._level(timestep, noise_level)
        split = call.watcher.take(out) if call.watcher is not None else ""
        time = noise_level if level is None else level.timestep
        call.keep(Entry(x.detach().clone(), out.detach().clone(), time, None, level, split))

    def finish(self, x: Tensor, *, noise_level: float | None = None) -> None:
        """Tell of the finished sample, and of the noise that is left in it: none, unless said otherwise."""
        call = self.call
        call.final = x.detach().clone()
        if noise_level is not None:
            call.schedule = call.schedule or schedule_of(call.scheduler, call.recorder.signals)
            call.end = _level(call.schedule.space, math.nan, only(noise_level))

    def _level(self, timestep: Any, noise_level: Any) -> Level | None:
        """None where the noise level alone says it, which may wait on its device until the end."""
        schedule = self.call.schedule
        if schedule is None or schedule.space not in SPACES or noise_level is None:
            return self._of_scheduler(timestep)
        return None if timestep is None else _level(schedule.space, only(timestep), only(noise_level))

    def _of_scheduler(self, timestep: Any) -> Level:
        call = self.call
        if call.scheduler is None or timestep is None:
            raise UserError("the noise level is not known: give observe(x, model_output, noise_level=...)")
        call.schedule = call.schedule or schedule_of(call.scheduler, call.recorder.signals)
        return call.schedule.at(timestep, index_of(call.scheduler, timestep))
