"""What was measured while a run trains: numbers of every step, and measurements on the validation grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from adapt.step import StepLoss
from adapt.validate import Validation

PARTS = 4
"""Equal parts of the noise range, from clean to noisy, for which the error is kept apart."""


@dataclass
class Tally:
    """Numbers of one step, summed over the parts of its batch and then over processes, on the device."""

    loss: Tensor
    """Scalar."""
    error: Tensor
    """(PARTS,) sums of the samples' errors."""
    count: Tensor
    """(PARTS,) samples."""

    @classmethod
    def empty(cls, device: torch.device) -> Tally:
        """Nothing yet."""
        return cls(torch.zeros((), device=device), torch.zeros(PARTS, device=device), torch.zeros(PARTS, device=device))

    def add(self, found: StepLoss, share: float) -> None:
        """Add a part of the batch that is `share` of it."""
        part = (found.quantile * PARTS).long().clamp(0, PARTS - 1)
        part = part.to(self.error.device, non_blocking=True)  # else the processor would wait for the backward pass
        self.loss += share * found.loss.detach()
        self.error.index_add_(0, part, found.error.to(self.error))
        self.count.index_add_(0, part, torch.ones_like(part, dtype=self.count.dtype))

    def together(self, accelerator: Accelerator) -> Tally:
        """The tally of all processes: mean loss, summed errors."""
        if accelerator.num_processes == 1:
            return self
        packed = torch.cat([self.loss[None] / accelerator.num_processes, self.error, self.count])
        loss, error, count = accelerator.reduce(packed, "sum").split([1, PARTS, PARTS])
        return Tally(loss[0], error, count)


@dataclass
class History:
    """Rows of tensors belong to training steps; what is not known yet is NaN."""

    losses: Tensor
    """(steps,)"""
    noise_losses: Tensor
    """(steps, PARTS): mean error of the samples in each part of the noise range.

    NaN where there was no sample, infinite where the error was not a number.
    """
    gradient_norms: Tensor
    """(steps,) before clipping."""
    learning_rates: Tensor
    """(steps,), on the CPU, of the first group."""
    validations: dict[int, Validation] = field(default_factory=dict)
    """Training steps done -> measurement."""
    seconds: float = 0.0
    """Time in training steps alone."""
    resumed: int = 0
    """How often the run went on after an interruption."""

    @classmethod
    def empty(cls, steps: int, device: torch.device) -> History:
        """A history in which nothing has happened."""
        nothing = torch.full((steps,), torch.nan, device=device)
        return cls(nothing, nothing[:, None].repeat(1, PARTS), nothing.clone(), nothing.cpu().clone())

    def note(self, step: int, tally: Tally, norm: Tensor, rate: float) -> None:
        """Write down a step, without waiting for the device."""
        self.losses[step] = tally.loss
        mean = (tally.error / tally.count).nan_to_num(nan=torch.inf, posinf=torch.inf)
        self.noise_losses[step] = torch.where(tally.count > 0, mean, torch.nan)
        self.gradient_norms[step] = norm
        self.learning_rates[step] = rate

    def recent(self, start: int, stop: int) -> dict[str, float]:
        """Means over steps start .. stop - 1, by name, for a person who watches; waits for the device."""
        noise = self.noise_losses[start:stop].nanmean(0).tolist()
        named = {f"loss/noise_{i + 1}_of_{PARTS}": value for i, value in enumerate(noise) if value == value}
        return {
            "loss": float(self.losses[start:stop].mean()),
            **named,
            "gradient_norm": float(self.gradient_norms[start:stop].mean()),
            "lr": float(self.learning_rates[stop - 1]),
        }

    def state(self, step: int) -> dict[str, Any]:
        """What a checkpoint after `step` steps keeps."""
        rows = {name: getattr(self, name)[:step] for name in _ROWS}
        found = {at: _fields(one) for at, one in self.validations.items()}
        return {**rows, "validations": found, "seconds": self.seconds, "resumed": self.resumed}

    def restore(self, step: int, saved: Mapping[str, Any]) -> None:
        """Put a saved state back; it is one interruption more."""
        for name in _ROWS:
            getattr(self, name)[:step] = saved[name]
        self.validations = {at: Validation(**one) for at, one in saved["validations"].items()}
        self.seconds, self.resumed = saved["seconds"], saved["resumed"] + 1


_ROWS = ("losses", "noise_losses", "gradient_norms", "learning_rates")


def _fields(one: Validation) -> dict[str, Any]:
    return {item.name: getattr(one, item.name) for item in fields(one)}
