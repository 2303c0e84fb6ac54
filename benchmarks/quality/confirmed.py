"""What the confirmation found: the best arm beyond the plan, with new training seeds and new held-out pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import xarray as xr

from benchmarks.quality import drawn, tables, words
from benchmarks.quality.numbers import Cell, finished, load, save
from benchmarks.quality.summary import GOAL, Compared, Speed, compare, speed
from benchmarks.quality.words import ARM_WORDS, cell_name, listed

BEST, REFERENCE, RIVAL = "fera-loha-clock", "lora", "loha"
PAIRS = ((BEST, REFERENCE), (BEST, RIVAL), (RIVAL, REFERENCE))
"""What is compared, named before any of these runs was read; one family of Holm's correction."""


def store_of(numbers: Path) -> Path:
    """Where the numbers of the confirmation lie, beside the others."""
    return numbers.with_name(f"{numbers.stem}_confirm.zarr")


def renew(runs: Path, store: Path) -> None:
    """Write what the runs of the confirmation found, if there are any."""
    found = finished(runs, "confirm")
    if found is not None:
        save(found, store)


def read(store: Path) -> xr.Dataset | None:
    """The numbers of the confirmation; None where there are none."""
    return load(store) if store.is_dir() else None


def drawn_words(data: xr.Dataset, where: list[Cell]) -> str:
    """What the pictures of the best arm are like beside LoRA's."""
    right = drawn.right_over(data, where, BEST, REFERENCE)
    each = [f"{words.difference(drawn.closer(data, cell, BEST, REFERENCE))} ({cell_name(cell)})" for cell in where]
    return (
        f"Its pictures of held-out captions, less LoRA's: share of right attributes {words.difference(right)}, mean "
        f"over {len(where)} cells; mean |log ratio| of band energies to the held-out pictures (below 0 is closer) "
        f"{listed(each)}."
    )


def verdict(found: list[Compared], fast: Speed) -> str:
    """Whether the best arm beats LoRA and LoHa, where it does not, and where it reaches the goal."""
    best = [one for one in found if one.a == BEST]
    met = [cell_name(cell) for cell in fast.met]
    goal = f"reached on {listed(met)}" if met else "reached nowhere"
    return (
        "FeRA with experts of LoHa's kind that a clock gates, found beyond the plan and then tested with new seeds on "
        f"new pictures, has a final error, over all cells, {listed([standing(one) for one in best])}{not_in(best)}; "
        f"the goal of {GOAL} of LoRA's steps is {goal}."
    )


def not_in(best: list[Compared]) -> str:
    """The cells in which an arm is behind another, with the ratios; empty where there are none."""
    behind = [
        f"{cell_name(cell)} ({r.value:.3f} of {ARM_WORDS.get(one.b, one.b)}'s, {r.low:.3f} to {r.high:.3f})"
        for one in best for cell, r in one.each.items() if r is not None and r.value > 1
    ]  # fmt: skip
    return f", though it is not lower on {listed(behind)}" if behind else ""


def standing(one: Compared) -> str:
    """How an error stands to another's after correction: `lower than LoRA's (ratio 0.960, 0.953 to 0.968)`."""
    r = one.all
    assert r is not None
    word = "not found to differ from" if not r.holds else "lower than" if r.value < 1 else "higher than"
    return f"{word} {ARM_WORDS.get(one.b, one.b)}'s (ratio {r.value:.3f}, {r.low:.3f} to {r.high:.3f})"


def section(data: xr.Dataset | None, costs: Mapping[str, Mapping[str, float]]) -> tuple[str, str]:
    """The sentence, and the tables with what the pictures are like; both empty where nothing was confirmed yet."""
    found = compare(data, PAIRS) if data is not None else []
    if data is None or len(found) < len(PAIRS):
        return "", ""
    fast = [speed(data, arm, costs) for arm in (BEST, RIVAL)]
    parts = [tables.pair_table(found), tables.speed_table(fast), drawn_words(data, list(fast[0].steps))]
    return verdict(found, fast[0]), "\n\n".join(parts)
