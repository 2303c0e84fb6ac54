"""What the confirmation found: the best arm beyond the plan, with new training seeds and new held-out pictures."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from benchmarks.quality import words
from benchmarks.quality.numbers import finished, load, save
from benchmarks.quality.summary import GOAL, Compared, Speed, compare, speed
from benchmarks.quality.words import ARM_WORDS, cell_name, listed, probability

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
    said = [standing(one) for one in found if one.a == BEST]
    met = [cell_name(cell) for cell, steps in fast.steps.items() if steps.value <= GOAL]
    goal = f"reached on {listed(met)}" if met else "reached nowhere"
    return (
        "FeRA with experts of LoHa's kind that a clock gates, found beyond the plan and then tested with new seeds on "
        f"new pictures, is {listed(said)}; the goal of {GOAL} of LoRA's steps is {goal}."
    )


def standing(one: Compared) -> str:
    """How an arm stands to another after correction, with the ratio: `better than LoRA (0.960, 0.953 to 0.968)`."""
    r = one.all
    assert r is not None
    word = "not found to differ from" if not r.holds else "better than" if r.value < 1 else "worse than"
    return f"{word} {ARM_WORDS.get(one.b, one.b)} ({r.value:.3f}, {r.low:.3f} to {r.high:.3f})"


def section(data: xr.Dataset | None) -> tuple[str, str]:
    """The sentence and the tables; both empty where nothing was confirmed yet."""
    found = compare(data, PAIRS) if data is not None else []
    if data is None or len(found) < len(PAIRS):
        return "", ""
    fast = {arm: speed(data, arm, {}) for arm in (BEST, RIVAL)}
    return verdict(found, fast[BEST]), table(found, fast)
