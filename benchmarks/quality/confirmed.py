"""What the confirmation found: the best arm beyond the plan, with new training seeds and new held-out pictures."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from benchmarks.quality import words
from benchmarks.quality.numbers import finished, load, save
from benchmarks.quality.summary import GOAL, Compared, Speed, compare, speed
from benchmarks.quality.words import cell_name, listed, probability

BEST, REFERENCE, RIVAL = "fera-loha-clock", "lora", "loha"
PAIRS = ((BEST, REFERENCE), (BEST, RIVAL), (RIVAL, REFERENCE))
"""What was to be compared, named before the runs; one family of Holm's correction."""


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


def table(found: list[Compared], fast: dict[str, Speed]) -> str:
    """Ratios of final errors, and steps to LoRA's."""
    where = list(found[0].each)
    rows = [
        [f"`{one.a}` / `{one.b}`", words.ratio(one.all, bold=True), probability(one.all.p_corrected),
         *(words.ratio(one.each[cell]) for cell in where)]
        for one in found if one.all is not None
    ]  # fmt: skip
    errors = words.table(["arms", "ratio over all cells", "p (Holm)", *map(cell_name, where)], rows)
    paced = [[f"`{arm}`", *(words.steps(one.steps.get(cell)) for cell in where)] for arm, one in fast.items()]
    return f"{errors}\n\n{words.table(['arm', *(f'steps, {cell_name(cell)}' for cell in where)], paced)}"


def verdict(found: list[Compared], fast: Speed) -> str:
    """Whether the best arm beats LoRA and LoHa, and where it reaches the goal."""
    said = [f"{standing(one)} ({words.ratio(one.all)})" for one in found if one.a == BEST]
    met = [cell_name(cell) for cell, steps in fast.steps.items() if steps.value <= GOAL]
    goal = f"reached on {listed(met)}" if met else "reached nowhere"
    return (
        f"FeRA with LoHa's kind of experts and a clock is {listed(said)}; the goal of {GOAL} of LoRA's steps is {goal}."
    )


def standing(one: Compared) -> str:
    """`better than lora`, after correction."""
    assert one.all is not None
    word = "not found to differ from" if not one.all.holds else "better than" if one.all.value < 1 else "worse than"
    return f"{word} `{one.b}`"


def section(data: xr.Dataset | None) -> str:
    """A sentence and tables; empty where nothing was confirmed yet."""
    found = compare(data, PAIRS) if data is not None else []
    if data is None or len(found) < len(PAIRS):
        return ""
    fast = {arm: speed(data, arm, {}) for arm in (BEST, RIVAL)}
    return f"{verdict(found, fast[BEST])}\n\n{table(found, fast)}"
