"""Runs on their way to the disk: written together, so that writing costs next to nothing."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spectra.schema import Header, Runs
from spectra.storage.stores import StoreLike
from spectra.storage.writer import Writer

PATIENCE = 200.0  # runs wait for this many times what the last write took: 0.5 % of the time goes to the disk
LONGEST = 30.0  # seconds that a finished run waits at most for the next one to end


@dataclass
class Sink:
    """Appends runs to the cube at `store`, which is created with the first.

    A write starts when a run is added and the last write is long enough ago, and at `flush`. A process that is killed
    loses the runs that wait; nothing else does.
    """

    store: StoreLike
    accepted: Header | None = None
    waiting: list[Runs] = field(default_factory=list)
    cost: float = 0.0
    last: float = 0.0
    writer: Writer = field(init=False)

    def __post_init__(self) -> None:
        self.writer = Writer(self.store)

    def add(self, header: Header, runs: Runs) -> None:
        """Keep runs, and write all that wait if it is time. Raises UserError if they do not fit the cube."""
        if header != self.accepted:
            self.flush()
            self.writer.write(header, runs)
            self.accepted, self.last = header, time.monotonic()
            return
        self.waiting.append(runs)
        if time.monotonic() - self.last >= min(PATIENCE * self.cost, LONGEST):
            self.flush()

    def flush(self) -> None:
        """Write what waits. Raises UserError if the disk refuses; the runs then wait for the next attempt."""
        if self.waiting:
            start = time.monotonic()
            self.writer.append(joined(self.waiting))
            self.waiting.clear()
            self.last = time.monotonic()
            self.cost = self.last - start

    def close(self) -> None:
        """Write what waits, and let go of the cube."""
        self.flush()
        if self.accepted is not None:
            self.writer.close()


def joined(parts: list[Runs]) -> Runs:
    """The runs of several calls as one."""
    if len(parts) == 1:
        return parts[0]
    names = [one.name for one in dataclasses.fields(Runs)]
    return Runs(**{name: _joined([getattr(part, name) for part in parts]) for name in names})


def _joined(values: list[Any]) -> Any:
    if values[0] is None:
        return None
    if isinstance(values[0], np.ndarray):
        return np.concatenate(values)
    return [one for value in values for one in value]
