"""A guidance rule at the wheel: what it makes of cond and uncond goes to the scheduler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spectra.errors import UserError
from spectra.recording.entry import index_of
from spectra.signals import Schedule, schedule_of

if TYPE_CHECKING:
    from torch import Tensor

    from spectra.recording.call import Call
    from spectra.recording.split import Split


def rule_of(guidance: Any) -> Any:
    """A guidance rule as it is, or the one of that name; None without one. Raises UserError for unknown names."""
    if not isinstance(guidance, str):
        return guidance
    from spectra.guidance import rule

    return rule(guidance)


@dataclass
class Progress:
    """Counts sampling steps from where a call begins: one that changes a picture begins late in the schedule."""

    first: int | None = None

    def of(self, call: Call, schedule: Schedule, index: int | None) -> tuple[int, int]:
        """The number of the coming step, and how many the call has; `index` is the scheduler's, if it keeps one."""
        self.first = (index or 0) if self.first is None else self.first
        steps = schedule.steps_of(call.expected() or len(call.scheduler.timesteps) - self.first)
        place = call.heard if index is None else index - self.first
        return steps[min(place, len(steps) - 1)], steps[-1] + 1


def steered(call: Call, x: Tensor, out: Tensor, timestep: Any, split: Split | str) -> Tensor:
    """What the guidance rule makes of cond and uncond. Raises UserError where they cannot be told apart."""
    import torch

    rule = call.recorder.rule
    if isinstance(split, str):
        raise UserError(f"the guidance rule {rule.name} needs cond and uncond, but {split}")
    if call.schedule is None:
        call.schedule = schedule_of(call.scheduler, call.recorder.signals)
        rule.check(call.scheduler, call.schedule, call.arguments)
    index, bank = index_of(call.scheduler, timestep), call.recorder.bank_for(tuple(call.plain(x).shape))
    step, total = call.progress.of(call, call.schedule, index)
    level = call.schedule.at(timestep, index)
    with torch.no_grad():
        combined: Tensor = rule.combine(x, split, level, call.schedule, step, total, plain=call.plain, bank=bank)
    return combined.to(out.dtype)
