"""Intervals for paired comparisons over training seeds and validation samples.

Every training seed meets every validation sample, so the design is crossed, not nested: the mean over
both has the variance `(MS_seed + MS_sample - MS_rest) / (S N)` of a two-way layout with random effects
(Searle, Casella & McCulloch, *Variance Components*, 1992, ch. 4). Its interval uses Student's t with
Satterthwaite's degrees of freedom (Biometrics Bulletin 2, 1946). With three seeds a bootstrap that draws
seeds and then samples within each covers 64 to 90 % where it promises 95 %; this one covers 90 to 98 %
(`tests/reports/test_statistics.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from spectra.analysis.statistics import Estimate, holm, json_fields

Array = NDArray[np.float64]
CONFIDENCE = 0.95
POWER = 0.8


@dataclass(frozen=True)
class Ratio:
    """A ratio with its interval; 1 is no difference. `low` and `high` are nan where nothing varies over repeats."""

    value: float
    low: float
    high: float
    seeds: int
    samples: int
    estimand: str
    confidence: float = CONFIDENCE
    p: float = np.nan
    """Two-sided, of no difference; nan where nothing varies over repeats."""
    p_corrected: float = np.nan
    """Holm's, over the cells that are shown together; nan where the ratio was not taken into a family."""
    error: float = np.nan
    """Standard error of the log ratio."""
    freedom: float = np.nan
    family: int = 1
    """How many cells are shown together."""

    @property
    def bounded(self) -> bool:
        """True when there is an interval."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    @property
    def differs(self) -> bool:
        """True when the interval excludes 1."""
        return self.bounded and not self.low <= 1 <= self.high

    @property
    def holds(self) -> bool:
        """True when there is a difference after correction for all the cells that are shown together."""
        if not np.isfinite(self.p_corrected):
            return self.differs
        return self.bounded and self.p_corrected < 1 - self.confidence

    @property
    def resolution(self) -> float:
        """The log ratio that so many repeats would show with 80 % power, the strictest of the family's levels held."""
        level = 1 - (1 - self.confidence) / 2 / self.family
        return float(self.error * (stdtrit(self.freedom, level) + stdtrit(self.freedom, POWER)))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; a number that does not exist is None."""
        return json_fields(self)


def crossed(table: Array) -> tuple[float, float]:
    """Standard error of the mean of `table` (seeds, samples) and its degrees of freedom; nan for a single cell.

    One seed: over samples, given that seed. One sample: over seeds, given that sample.
    """
    seeds, samples = table.shape
    rows, columns = table.mean(axis=1) - table.mean(), table.mean(axis=0) - table.mean()
    a = samples * (rows @ rows) / (seeds - 1) if seeds > 1 else 0.0
    b = seeds * (columns @ columns) / (samples - 1) if samples > 1 else 0.0
    if seeds * samples == 1:
        return float("nan"), float("nan")
    if a + b <= 0:
        return 0.0, 1.0
    rest = table - table.mean() - rows[:, None] - columns[None]
    c = (rest**2).sum() / ((seeds - 1) * (samples - 1)) if seeds > 1 and samples > 1 else 0.0
    freedom = (a + b) ** 2 / (a**2 / max(seeds - 1, 1) + b**2 / max(samples - 1, 1))
    variance = max(a + b - c, a, b) / (seeds * samples)
    return float(np.sqrt(variance)), float(freedom)


def spread(table: Array, confidence: float = CONFIDENCE) -> float:
    """Half width of the interval of the mean of `table` (seeds, samples); nan where it has one cell only."""
    error, freedom = crossed(table)
    return float(error * stdtrit(freedom, (1 + confidence) / 2))


def p_value(difference: float, error: float, freedom: float) -> float:
    """Two-sided p of Student's t; without any spread it is 1 for no difference, else 0; nan without a spread at all."""
    if not np.isfinite(error) or not np.isfinite(difference):
        return float("nan")
    if error == 0:
        return float(difference == 0)
    return float(2 * stdtr(freedom, -abs(difference) / error))


def log_ratio(value: float, table: Array, estimand: str, confidence: float = CONFIDENCE) -> Ratio:
    """The ratio exp(value) whose log has the linearised contributions `table` (seeds, samples)."""
    error, freedom = crossed(table)
    half = float(error * stdtrit(freedom, (1 + confidence) / 2))
    low, high, p = float(np.exp(value - half)), float(np.exp(value + half)), p_value(value, error, freedom)
    seeds, samples = table.shape
    return Ratio(
        float(np.exp(value)), low, high, seeds, samples, estimand, confidence, p, error=error, freedom=freedom
    )  # fmt: skip


def ratio_of_means(a: Array, b: Array, estimand: str, confidence: float = CONFIDENCE) -> Ratio:
    """`mean(a) / mean(b)` of two positive tables (seeds, samples), paired cell by cell.

    The interval is that of the log ratio, linearised: the cell (s, i) contributes `a_si/mean(a) - b_si/mean(b)`.
    """
    value = float(np.log(a.mean() / b.mean()))
    return log_ratio(value, a / a.mean() - b / b.mean(), estimand, confidence)


def geometric_mean(ratios: Array, samples: int, estimand: str) -> Ratio:
    """The geometric mean of one ratio per training seed (seeds,), with Student's t over seeds."""
    logs = np.log(ratios)[:, None]
    return replace(log_ratio(float(logs.mean()), logs, estimand), samples=samples)


def mean_distance(a: Array, b: Array, estimand: str, confidence: float = CONFIDENCE) -> Estimate:
    """Mean over bands of `|log(mean a / mean b)|` for energies (seeds, prompt, band), with its interval; 0 is a match.

    Linearised like the ratios: each band contributes with the sign of its own log ratio. Where that sign is not sure
    the distance is too large by about a standard error, and its interval ends at 0.
    """
    logs, parts = distance_parts(a, b)
    half = spread(parts, confidence)
    value = float(np.abs(logs).mean())
    low = max(value - half, 0.0) if np.isfinite(half) else float("-inf")
    high = value + half if np.isfinite(half) else float("inf")
    return Estimate(value, low, high, a.shape[1], "linearised, Student t, crossed", estimand, confidence)


def distance_parts(a: Array, b: Array) -> tuple[Array, Array]:
    """Log ratios of mean energies (band,) and what each cell (seeds, prompt) adds to the mean of their sizes."""
    means = a.mean(axis=(0, 1)), b.mean(axis=(0, 1))
    logs = np.log(means[0] / means[1])
    return logs, ((a / means[0] - b / means[1]) * np.sign(logs)).mean(axis=-1)


def corrected(ratios: Sequence[Ratio]) -> list[Ratio]:
    """The same ratios as one family: each with Holm's p over all of them that have one."""
    adjusted = holm(np.array([ratio.p for ratio in ratios], np.float64))
    size = max(int(np.isfinite(adjusted).sum()), 1)
    return [replace(ratio, p_corrected=float(p), family=size) for ratio, p in zip(ratios, adjusted, strict=True)]


def steps_to(steps: Array, errors: Array, target: float) -> float:
    """Steps at which `errors` (len(steps),) first falls to `target`, linear in between; nan if it never does."""
    below = np.flatnonzero(errors <= target)
    if not len(below):
        return float("nan")
    i = int(below[0])
    if i == 0:
        return float(steps[0])
    part = (errors[i - 1] - target) / (errors[i - 1] - errors[i])
    return float(steps[i - 1] + part * (steps[i] - steps[i - 1]))
