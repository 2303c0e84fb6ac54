"""Wall times, and several things timed in turns: a slow moment of the machine then hits all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray


def seconds(work: Callable[[], object]) -> float:
    """Wall time of a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def by_turns(names: Sequence[str], rounds: int, taken: Callable[[str], float]) -> dict[str, NDArray[np.float64]]:
    """What `taken` says of each name (rounds,); who goes first rotates."""
    found: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in (*names[first:], *names[:first]):
            found[name].append(taken(name))
    return {name: np.array(times) for name, times in found.items()}
