"""What the final runs drew: whether the text was heard, and how the energies of the bands match held-out pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import stdtrit

from benchmarks.quality.contrasts import mean_of_cells
from benchmarks.quality.numbers import SOURCES, Array, Cell, common, rows_of, values_of
from reports.statistics import CONFIDENCE, Ratio, distance_parts, p_value, ratio_of_means


@dataclass(frozen=True)
class Difference:
    """A difference with its interval and two-sided p; 0 is no difference."""

    value: float
    low: float
    high: float
    p: float
    seeds: int
    samples: int

    @property
    def differs(self) -> bool:
        """True when the interval excludes 0."""
        return not self.low <= 0 <= self.high


def difference(values: dict[Cell, float], parts: dict[Cell, Array]) -> Difference:
    """The mean over cells of `values`, each the mean of linear contributions (seeds, samples) up to a constant."""
    error, freedom = mean_of_cells(parts)
    value, half = float(np.mean(list(values.values()))), error * float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
    seeds, samples = min(len(part) for part in parts.values()), min(part.shape[1] for part in parts.values())
    return Difference(value, value - half, value + half, p_value(value, error, freedom), seeds, samples)


def right(numbers: xr.Dataset, rows: NDArray[np.int64], source: str = "adapter") -> Array:
    """Share of the attributes that a caption names and the reader finds, (run, picture)."""
    chosen = numbers.isel(source=SOURCES.index(source))
    found = np.asarray(chosen.attribute_right.isel(run=rows).values, np.float64)
    kept = ~np.isnan(found).all((0, 2))
    return np.asarray(np.nanmean(found[:, kept], axis=-1))


def right_difference(numbers: xr.Dataset, cell: Cell, a: str, b: str) -> Difference:
    """Share of attributes that are right in pictures of `a`, less that of `b`."""
    first, second = (right(numbers, rows) for rows in common(numbers, cell, (a, b)))
    gap = first - second
    return difference({cell: float(gap.mean())}, {cell: gap})


def right_over(numbers: xr.Dataset, where: Sequence[Cell], arm: str, other: str) -> Difference:
    """The same, mean over cells; `other` is an arm, or `base` for the pictures of the base in the same runs."""
    gaps = {}
    for cell in where:
        first, second = common(numbers, cell, (arm, arm if other == "base" else other))
        gaps[cell] = right(numbers, first) - right(numbers, second, "base" if other == "base" else "adapter")
    return difference({cell: float(gap.mean()) for cell, gap in gaps.items()}, gaps)


def energies(numbers: xr.Dataset, rows: NDArray[np.int64], source: str = "adapter") -> Array:
    """Band energies of final latents (run, prompt, band): pictures of one prompt are averaged first."""
    found = values_of(numbers.isel(source=SOURCES.index(source)), "energy", rows)
    prompts = numbers.prompt.values[rows[0]][: found.shape[1]]
    return np.stack([found[:, prompts == prompt].mean(1) for prompt in np.unique(prompts)], axis=1)


def band_ratios(numbers: xr.Dataset, cell: Cell, arm: str, source: str = "adapter") -> list[Ratio]:
    """Per band, energy of an arm's pictures over that of the held-out pictures of the same captions; 1 is a match."""
    rows = rows_of(numbers, cell, arm)
    rows = rows if source == "adapter" else rows[:1]  # the base draws the same pictures in every run
    made, real = energies(numbers, rows, source), energies(numbers, rows, "reference")
    estimand = "ratio of mean band energies, generated over held-out pictures of the same captions"
    return [ratio_of_means(made[..., band], real[..., band], estimand) for band in range(made.shape[-1])]


def mismatch(numbers: xr.Dataset, rows: NDArray[np.int64], band: int | None) -> tuple[float, Array]:
    """`|log ratio|` of mean energies to the held-out pictures, of one band or averaged over all, and its parts."""
    chosen = slice(None) if band is None else slice(band, band + 1)
    made, real = energies(numbers, rows)[..., chosen], energies(numbers, rows, "reference")[..., chosen]
    logs, parts = distance_parts(made, real)
    return float(np.abs(logs).mean()), parts


def closer(numbers: xr.Dataset, cell: Cell, a: str, b: str, band: int | None = None) -> Difference:
    """How much larger the mismatch of `a` is than that of `b`; below 0 `a` is closer to the held-out pictures."""
    return closer_over(numbers, [cell], a, b, band)


def closer_over(numbers: xr.Dataset, where: Sequence[Cell], a: str, b: str, band: int | None = None) -> Difference:
    """The same, mean over cells."""
    values, parts = {}, {}
    for cell in where:
        (own, mine), (other, theirs) = (mismatch(numbers, rows, band) for rows in common(numbers, cell, (a, b)))
        values[cell], parts[cell] = own - other, mine - theirs
    return difference(values, parts)
