"""What the numbers say in sentences; the first one says whether FeRA wins."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from benchmarks.quality.numbers import Cell
from benchmarks.quality.summary import GOAL, MAIN, Compared, Speed, Swept
from benchmarks.quality.words import ARM_WORDS, cell_name, listed, named, percent, steps
from reports.statistics import Ratio

SAME = "fera-uniform"
"""The arm that is LoRA by another name."""


def verdict(compared: Sequence[Compared], found: Sequence[Speed]) -> str:
    """The result in one paragraph."""
    main = next((one for one in compared if one.a == MAIN), None)
    if main is None or main.all is None:
        return "There is no verdict yet: FeRA with a prior or LoRA have no final runs with two seeds in common."
    others = [one for one in compared if one is not main]
    return " ".join(filter(None, [headline(main.all), in_cells(main), best_of(others), goal_words(found)]))


def headline(ratio: Ratio) -> str:
    """Whether FeRA beats LoRA; judged without correction, because this comparison was named before all others."""
    numbers = f"ratio {ratio.value:.3f}, 95 % interval {ratio.low:.3f} to {ratio.high:.3f}"
    setting = "started from the prior, at equal trainable parameters and at the best learning rate of each"
    who = "FeRA by band energies"
    if not ratio.differs:
        shows = percent(math.expm1(ratio.resolution))
        return (
            f"**{who} does not beat LoRA here**: {setting}, no difference was found between their final validation "
            f"errors ({numbers}; with 80 % power, differences above {shows} would show)."
        )
    if ratio.value > 1:
        return f"**{who} is worse than LoRA here**: {setting}, its final validation error is higher ({numbers})."
    return (
        f"**{who} ends with an error {percent(1 - ratio.value)} below LoRA's**: {setting}, over the cells of this "
        f"experiment ({numbers})."
    )


def in_cells(main: Compared) -> str:
    """Where the main arm's interval excludes no difference."""
    better = [cell for cell, r in main.each.items() if r is not None and r.differs and r.value < 1]
    worse = [cell for cell, r in main.each.items() if r is not None and r.differs and r.value > 1]
    if not better and not worse:
        return "In no single cell does the interval exclude equal errors."
    parts = [
        f"{word} on {listed([cell_name(cell) for cell in chosen])}"
        for word, chosen in (("better", better), ("worse", worse)) if chosen
    ]  # fmt: skip
    return f"In single cells it is {' and '.join(parts)}."


def best_of(others: Sequence[Compared]) -> str:
    """Which other arms differ from LoRA once all of them are corrected together."""
    lower = [one for one in others if one.all is not None and one.all.holds and one.all.value < 1]
    higher = [one for one in others if one.all is not None and one.all.holds and one.all.value > 1]
    if not others:
        return ""
    said = []
    if lower:
        said.append(f"lower than LoRA's are the errors of {listed([with_ratio(one) for one in lower])}")
    if higher:
        said.append(f"higher are those of {listed([with_ratio(one) for one in higher])}")
    if not said:
        return "No other arm differs from LoRA after correction."
    return f"Among the other {len(others)} arms, after correction, {'; '.join(said)}."


def with_ratio(one: Compared) -> str:
    """An arm and its ratio over all cells, or over those that there are."""
    assert one.all is not None
    ends = f"{one.all.low:.3f} to {one.all.high:.3f}"
    return f"{ARM_WORDS.get(one.a, one.a)} ({one.all.value:.3f}, {ends}{partly(one)})"


def chance_words(compared: Sequence[Compared]) -> str:
    """How far two arms of one function end apart: what a ratio in a single cell is when no method differs."""
    same = next((one for one in compared if one.a == SAME), None)
    there = [] if same is None else [ratio for ratio in same.each.values() if ratio is not None]
    if not there:
        return ""
    low, high = min(r.value for r in there), max(r.value for r in there)
    outside = sum(r.differs for r in there)
    return (
        f"{named(SAME)} is a check of the method: with even gates FeRA is the function that LoRA is, and only the "
        f"random start and the rate that its own sweep chose are others. Its ratios in single cells go from {low:.3f} "
        f"to {high:.3f}, and {outside} of {len(there)} uncorrected intervals exclude 1; a ratio of this size in one "
        "cell is no sign of a better or worse method."
    )


def partly(one: Compared) -> str:
    """How many cells a ratio over cells has, where some are missing."""
    there = sum(ratio is not None for ratio in one.each.values())
    return "" if there == len(one.each) else f", {there} of {len(one.each)} cells"


def goal_words(found: Sequence[Speed]) -> str:
    """Whether the goal of steps was met by any arm in any cell."""
    taken = {(one.arm, cell): share for one in found for cell, share in one.steps.items()}
    shares = {key: share.value for key, share in taken.items()}
    if not shares:
        return ""
    met = {arm: [cell for (one, cell), share in shares.items() if one == arm and share <= GOAL] for arm, _ in shares}
    reached = [
        f"{ARM_WORDS.get(arm, arm)} on {listed([f'{cell_name(c)}: {steps(taken[arm, c])}' for c in there])}"
        for arm, there in met.items() if there
    ]  # fmt: skip
    if reached:
        return f"The goal, LoRA's final error in {GOAL} of its steps, was reached by {'; '.join(reached)}."
    arm, cell = min(shares, key=lambda key: shares[key])
    least = shares[arm, cell]
    if math.isinf(least):
        return "No arm reached LoRA's final error in any cell."
    return (
        f"No arm reached the goal, LoRA's final error in {GOAL} of its steps: the least share, over all arms and "
        f"cells, was {steps(taken[arm, cell])}, of {ARM_WORDS.get(arm, arm)} on {cell_name(cell)}."
    )


def level_words(ratios: dict[Cell, list[Ratio]], snr: dict[Cell, list[float]]) -> str:
    """Where along the noise axis the main arm is better or worse than LoRA, from intervals of each level alone."""
    if not ratios:
        return ""
    said = []
    for cell, found in ratios.items():
        best = int(np.argmin([r.value for r in found]))
        worst = int(np.argmax([r.value for r in found]))
        said.append(
            f"- {cell_name(cell)}: lowest {found[best].value:.3f} at log SNR {snr[cell][best]:.1f}, "
            f"highest {found[worst].value:.3f} at {snr[cell][worst]:.1f}; "
            f"{sum(r.differs for r in found)} of {len(found)} intervals exclude 1 (not corrected)"
        )
    return "\n".join([f"For {named(MAIN)}:", "", *said])


def sweep_words(found: Sequence[Swept]) -> str:
    """Which sweeps ended with the best rate at an end of what was tried."""
    edge = [one for one in found if not one.inside]
    if not edge:
        return "In every cell the best rate of every arm lies inside the rates that were tried."
    where = listed([f"`{one.arm}` on {cell_name(one.cell)} ({one.best:g})" for one in edge])
    return f"The best rate lies at an end of what was tried for {where}; elsewhere it lies inside."


def rate_words(found: Sequence[Swept], a: str = MAIN, b: str = "lora") -> str:
    """How two arms compare at equal learning rates: what a comparison without a sweep would have shown."""
    errors = {(one.arm, one.cell): one.errors for one in found}
    logs: dict[float, list[float]] = {}
    for (arm, cell), own in errors.items():
        other = errors.get((b, cell), {})
        for rate in own.keys() & other.keys() if arm == a else ():
            if math.isfinite(own[rate]) and math.isfinite(other[rate]):
                logs.setdefault(rate, []).append(math.log(own[rate] / other[rate]))
    if not logs:
        return ""
    ratios = [
        f"{math.exp(float(np.mean(some))):.3f} at {rate:g} ({len(some)} cell{'s' * (len(some) > 1)})"
        for rate, some in sorted(logs.items())
    ]
    return (
        f"At equal rates, with the sweep's one seed, the error of {named(a)} over LoRA's is {listed(ratios)}, "
        "geometric means over cells: what a comparison at one rate, chosen for neither, would have shown."
    )
