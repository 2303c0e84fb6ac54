"""Several processes that fill one cube: who generates what, and which rows of the cube it fills."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from spectra.storage import stores
from spectra.storage.stored import Stored, open_stored
from spectra.storage.stores import Region, StoreLike

Item = TypeVar("Item")
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Crew:
    """The processes of one launch: which of them this is, where it computes, and how they wait for one another."""

    rank: int
    size: int
    device: Any
    barrier: Callable[[], None]

    @property
    def leads(self) -> bool:
        """True for the one that creates the cube and talks to the user."""
        return self.rank == 0


def crew() -> Crew:
    """This process among those that `accelerate launch` or `torchrun` started; alone, if it was started by itself."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Crew(0, 1, None, lambda: None)
    import torch
    from accelerate import PartialState

    state = PartialState(cpu=not torch.accelerator.is_available())
    return Crew(state.process_index, state.num_processes, state.device, state.wait_for_everyone)


@contextmanager
def meeting(store: StoreLike, crew: Crew) -> Iterator[None]:
    """Nobody writes before all have seen what the store holds, and nobody goes on before all have written."""
    crew.barrier()
    yield
    if isinstance(store, Region):
        store.meet()  # a process without work did not meet the others yet
    crew.barrier()


def share(store: StoreLike, batches: list[list[Item]], crew: Crew) -> tuple[list[list[Item]], StoreLike]:
    """The batches of this process, and its `Region`: the rows that one process alone would fill with these samples.

    Each process gets neighbouring batches. Where no lock orders writers, that is elsewhere than on a disk, batches
    whose rows share a chunk go to one process; a new cube is cut such that all processes have work.
    """
    if crew.size == 1:
        return batches, store
    sizes = [len(batch) for batch in batches]
    stored = open_stored(store) if stores.exists(store) else None
    rows, length = _free_rows(stored, sum(sizes))
    block = -(-len(batches) // crew.size) * max(sizes, default=1)
    chunk = block if stored is None else 1 if stores.local(store) else _common_chunk(stored)
    ends = np.cumsum(sizes, dtype=np.int64)
    owner = _owners([rows[end - size : end] for end, size in zip(ends, sizes, strict=True)], chunk, crew.size)
    mine = [index for index, who in enumerate(owner) if who == crew.rank]
    own = np.concatenate([rows[:0], *(rows[ends[i] - sizes[i] : ends[i]] for i in mine)])
    return [batches[i] for i in mine], Region(store, own, length, block, crew.leads, crew.barrier)


def _free_rows(stored: Stored | None, count: int) -> tuple[Rows, int]:
    """The first `count` rows without a run, in a cube or after its end, and the length that the cube needs for them."""
    complete = stored.read("status") == 1 if stored else np.zeros(0, bool)
    rows = np.concatenate([np.flatnonzero(~complete), len(complete) + np.arange(count)])[:count]
    return rows, max(len(complete), int(rows[-1]) + 1 if count else 0)


def _owners(rows: Sequence[Rows], chunk: int, size: int) -> list[int]:
    """Who fills each batch: batches that meet in a chunk stay together, and such groups are shared out evenly."""
    if not rows:
        return []
    apart = [now[0] // chunk != before[-1] // chunk for before, now in pairwise(rows)]
    groups = [0, *accumulate(apart)]
    each = -(-(groups[-1] + 1) // size)
    return [group // each for group in groups]


def _common_chunk(stored: Stored) -> int:
    """Runs between two places at which the chunks of all arrays end."""
    return math.lcm(*(array.chunks[0] for array in stored.growing().values()))
