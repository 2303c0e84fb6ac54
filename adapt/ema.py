"""A moving average of the weights that are trained, which is then what is measured and saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from adapt.checkpoint_tree import copy_into, whole

RISE = 10
"""After n updates the decay is at most (1 + n) / (RISE + n), so that the start is soon forgotten."""


class Ema:
    """Averages of named parameters; the model itself is never copied, so adapters of any kind may be averaged."""

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        self.parameters, self.decay, self.updates = parameters, decay, 0
        self.averages = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """average <- d average + (1 - d) parameter, with d = min(decay, (1 + n) / (RISE + n))."""
        decay = min(self.decay, (1 + self.updates) / (RISE + self.updates))
        self.updates += 1
        for name, average in self.averages.items():
            average.lerp_(self.parameters[name].detach(), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model has the averages for weights; afterwards its own ones, to the bit."""
        own = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.put()
        try:
            yield
        finally:
            for name, parameter in self.parameters.items():
                parameter.data.copy_(own[name])

    def put(self) -> None:
        """Give the model the averages for good."""
        for name, parameter in self.parameters.items():
            parameter.data.copy_(self.averages[name])

    def state(self) -> dict[str, object]:
        """What a checkpoint keeps."""
        return {"updates": self.updates, "averages": {name: whole(value) for name, value in self.averages.items()}}

    def restore(self, saved: Mapping[str, object]) -> None:
        """Put a saved state back."""
        self.updates = int(saved["updates"])  # type: ignore[call-overload]
        for name, value in saved["averages"].items():  # type: ignore[attr-defined]
            copy_into(self.averages[name], value)
