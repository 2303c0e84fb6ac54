"""Runs that a cube holds already: nothing is wrong with a repetition, but comparisons pair runs by prompt and seed."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spectra.errors import UserError
from spectra.schema import Runs
from spectra.storage import stores
from spectra.storage.stored import Stored
from spectra.storage.stores import StoreLike

KEY = (
    "seed", "draw", "prompt", "negative_prompt", "guidance_scale", "guidance_rule", "adapter", "adapter_detail",
)  # fmt: skip


@dataclass
class Repeats:
    """Knows the runs of the cube at `store`, and warns of the first that is recorded again."""

    store: StoreLike
    known: set[int] = field(default_factory=set)
    warned: bool = False

    def read(self, stored: Stored) -> None:
        """Learn the complete runs of the cube that was opened. Raises UserError if their labels cannot be read."""
        try:
            done = np.flatnonzero(stored.read("status") == 1)
            self.known = set(_keys(stored.read(name)[done].tolist() for name in KEY))
        except Exception as error:  # damaged chunks surface as whatever their codecs raise
            raise UserError(f"{stored.name} is a damaged cube: its labels cannot be read ({error})") from error

    def add(self, runs: Runs, stacklevel: int) -> None:
        """Take note of new runs, and warn once if one was there before."""
        for key in _keys(getattr(runs, name) for name in KEY):
            if key in self.known and not self.warned:
                self.warned = True
                warnings.warn(
                    f"{stores.name(self.store)} holds this prompt and seed under the same settings already, and "
                    "comparisons need each once: record repetitions to another path",
                    stacklevel=stacklevel + 1,
                )
            self.known.add(key)


def _keys(columns: Iterable[list[Any]]) -> Iterator[int]:
    """Hashes of the labels of runs whose seed is known; as text, because a scale of NaN is not equal to itself."""
    return (hash(tuple(map(str, row))) for row in zip(*columns, strict=True) if row[0] >= 0)
