"""One arm against another: in a cell, and over cells.

Arms are paired by training seed and held-out picture, and the intervals are those of `reports.statistics`: crossed
random effects of seeds and pictures.  Over cells the geometric mean of the ratios is taken.  Both models see the same
pictures of a task, so their contributions are first averaged, picture by picture and seed by seed, and only tasks count
as independent.  The cells are those that were chosen, not a sample of others: an interval speaks of other seeds and
pictures in these cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import stdtrit

from benchmarks.quality.numbers import Array, Cell, cells, common, curve_of, values_of
from reports.statistics import CONFIDENCE, Ratio, crossed, p_value, ratio_of_means

ERROR = "ratio of mean validation errors at the end of training, over all noise levels"
CURVE_STEPS = 1
"""Training steps between two points at which a learning curve is compared."""


@dataclass(frozen=True)
class Steps:
    """Steps to reach another arm's final error over the steps of that arm's training.

    The ends are the first and the last step at which the two errors cannot be told apart: a confidence set made by
    inverting the test at each step (Fieller's way).  `inf` where the arm does not get there during its training.
    """

    value: float
    low: float
    high: float
    seeds: int
    samples: int


def tables(numbers: xr.Dataset, cell: Cell, a: str, b: str) -> tuple[Array, Array]:
    """Final errors (seeds, samples) of two arms over the seeds that both have, averaged over noise levels."""
    first, second = (values_of(numbers, "error", rows).mean(1) for rows in common(numbers, cell, (a, b)))
    return first, second


def have(numbers: xr.Dataset, cell: Cell, a: str, b: str, least: int = 2) -> bool:
    """Whether two arms have `least` training seeds in common in a cell."""
    return len(common(numbers, cell, (a, b))[0]) >= least


def in_cell(numbers: xr.Dataset, cell: Cell, a: str, b: str) -> Ratio | None:
    """Final error of `a` over that of `b`; None where they have fewer than two seeds in common."""
    return ratio_of_means(*tables(numbers, cell, a, b), ERROR) if have(numbers, cell, a, b) else None


def by_level(numbers: xr.Dataset, cell: Cell, a: str, b: str) -> list[Ratio]:
    """The same ratio at each noise level alone."""
    first, second = (values_of(numbers, "error", rows) for rows in common(numbers, cell, (a, b)))
    estimand = "ratio of mean validation errors at one noise level, end of training"
    return [ratio_of_means(first[:, i], second[:, i], estimand) for i in range(first.shape[1])]


def over_cells(numbers: xr.Dataset, a: str, b: str, chosen: Sequence[Cell] | None = None) -> Ratio | None:
    """Geometric mean over cells of the ratio of final errors; None where no cell has both arms."""
    where = [cell for cell in (chosen or cells(numbers)) if have(numbers, cell, a, b)]
    if not where:
        return None
    found = {cell: tables(numbers, cell, a, b) for cell in where}
    return pooled(found, f"geometric mean over {len(where)} cells of the {ERROR}")


def pooled(found: dict[Cell, tuple[Array, Array]], estimand: str) -> Ratio:
    """Geometric mean over cells of mean(a) / mean(b), from tables (seeds, samples) of each cell."""
    logs = [float(np.log(a.mean() / b.mean())) for a, b in found.values()]
    parts = {cell: a / a.mean() - b / b.mean() for cell, (a, b) in found.items()}
    error, freedom = mean_of_cells(parts)
    value, half = float(np.mean(logs)), error * float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
    seeds, samples = min(len(part) for part in parts.values()), sum(samples_of(parts).values())
    low, high = float(np.exp(value - half)), float(np.exp(value + half))
    ratio, p = Ratio(float(np.exp(value)), low, high, seeds, samples, estimand), p_value(value, error, freedom)
    return replace(ratio, p=p, error=error, freedom=freedom)


def mean_of_cells(parts: dict[Cell, Array]) -> tuple[float, float]:
    """Standard error and degrees of freedom of the mean over cells of means of tables (seeds, samples).

    Tables of one task are averaged first over what they share (the same pictures, the same seeds); tasks are
    independent, and their variances add, with Satterthwaite's degrees of freedom.
    """
    variances, freedoms = [], []
    for task in dict.fromkeys(task for _, task in parts):
        members = [part for (_, name), part in parts.items() if name == task]
        seeds, samples = (min(part.shape[axis] for part in members) for axis in (0, 1))
        error, freedom = crossed(np.mean([part[:seeds, :samples] for part in members], axis=0))
        variances.append((error * len(members) / len(parts)) ** 2)
        freedoms.append(freedom)
    total = float(np.sum(variances))
    weight = float(np.sum(np.square(variances) / np.array(freedoms)))
    return float(np.sqrt(total)), total**2 / weight if weight > 0 else 1.0


def samples_of(parts: dict[Cell, Array]) -> dict[str, int]:
    """Task -> held-out pictures."""
    return {task: part.shape[1] for (_, task), part in parts.items()}


def curves(numbers: xr.Dataset, cell: Cell, a: str, b: str) -> tuple[Array, Array, Array]:
    """Steps (evaluations,) of `a`, learning curves (seeds, evaluations, samples) of `a` and of `b`."""
    first, second = common(numbers, cell, (a, b))
    return *curve_of(numbers, first), curve_of(numbers, second)[1]


def at_step(steps: Array, curve: Array, step: float) -> Array:
    """A learning curve (seeds, evaluations, samples) at one step, linear between evaluations: (seeds, samples)."""
    right = int(np.clip(np.searchsorted(steps, step), 1, len(steps) - 1))
    part = (step - steps[right - 1]) / (steps[right] - steps[right - 1])
    return np.asarray((1 - part) * curve[:, right - 1] + part * curve[:, right])


def along_training(numbers: xr.Dataset, cell: Cell, a: str, b: str) -> tuple[Array, list[Ratio]]:
    """Steps at which `a` was evaluated, and its error at each over that of `b` at the same step."""
    first, second = common(numbers, cell, (a, b))
    (steps, curve), (others, other) = curve_of(numbers, first), curve_of(numbers, second)
    estimand = "ratio of mean validation errors at one training step, over all noise levels"
    return steps, [
        ratio_of_means(curve[:, i], at_step(others, other, min(step, others[-1])), estimand)
        for i, step in enumerate(steps)
    ]


def budget_tables(numbers: xr.Dataset, cell: Cell, a: str, b: str, share: float) -> tuple[Array, Array]:
    """Errors (seeds, samples) of `a` after `share` of its steps (at most all), and the final ones of `b`."""
    steps, curve, other = curves(numbers, cell, a, b)
    return at_step(steps, curve, min(share, 1.0) * steps[-1]), other[:, -1]


def steps_to_reach(numbers: xr.Dataset, cell: Cell, a: str, b: str) -> Steps:
    """Steps of `a` to the final mean error of `b`, over the steps of `b`, linear between evaluations."""
    first, second = common(numbers, cell, (a, b))
    (steps, curve), (others, other) = curve_of(numbers, first), curve_of(numbers, second)
    return crossing(steps, curve, other[:, -1], float(others[-1]))


def crossing(steps: Array, curve: Array, target: Array, total: float) -> Steps:
    """Where `curve` (seeds, evaluations, samples) falls to `target` (seeds, samples), as a share of `total` steps."""
    grid = np.arange(steps[0], steps[-1] + CURVE_STEPS, CURVE_STEPS)
    ratios = [ratio_of_means(at_step(steps, curve, step), target, "error at a step") for step in grid]
    return Steps(
        first_below(grid, np.array([ratio.value for ratio in ratios])) / total,
        first_below(grid, np.array([ratio.low for ratio in ratios])) / total,
        first_below(grid, np.array([ratio.high for ratio in ratios])) / total,
        *target.shape,
    )


def first_below(grid: Array, values: NDArray[np.float64]) -> float:
    """The first point of `grid` at which `values` is 1 or less, linear in between; inf if there is none."""
    below = np.flatnonzero(values <= 1)
    if not len(below):
        return float("inf")
    i = int(below[0])
    if i == 0:
        return float(grid[0])
    return float(grid[i - 1] + (values[i - 1] - 1) / (values[i - 1] - values[i]) * (grid[i] - grid[i - 1]))
