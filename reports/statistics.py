"""Intervals for paired comparisons over training seeds and validation samples.

Every training seed meets every validation sample, so the design is crossed, not nested: the mean over
both has the variance `(MS_seed + MS_sample - MS_rest) / (S N)` of a two-way layout with random effects
(Searle, Casella & McCulloch, *Variance Components*, 1992, ch. 4). Its interval uses Student's t with
Satterthwaite's degrees of freedom (Biometrics Bulletin 2, 1946). With three seeds a bootstrap that draws
seeds and then samples within each covers 64 to 90 % where it promises 95 %; this one covers 90 to 98 %
(`tests/reports/test_statistics.py`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Array = NDArray[np.float64]
CONFIDENCE = 0.95


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

    @property
    def bounded(self) -> bool:
        """True when there is an interval."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    @property
    def differs(self) -> bool:
        """True when the interval excludes 1."""
        return self.bounded and not self.low <= 1 <= self.high

    @property
    def resolution(self) -> float:
        """Half the width of the interval of the log ratio: a smaller difference would not show."""
        return float(np.log(self.high / self.low) / 2) if self.bounded else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; a number that does not exist is None."""
        return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in asdict(self).items()}


def spread(table: Array, confidence: float = CONFIDENCE) -> float:
    """Half width of the interval of the mean of `table` (seeds, samples); nan where it has one cell only.

    One seed: Student's t over samples, given that seed. One sample: over seeds, given that sample.
    """
    seeds, samples = table.shape
    rows, columns = table.mean(axis=1) - table.mean(), table.mean(axis=0) - table.mean()
    a = samples * (rows @ rows) / (seeds - 1) if seeds > 1 else 0.0
    b = seeds * (columns @ columns) / (samples - 1) if samples > 1 else 0.0
    if seeds * samples == 1:
        return float("nan")
    if a + b <= 0:
        return 0.0
    rest = table - table.mean() - rows[:, None] - columns[None]
    c = (rest**2).sum() / ((seeds - 1) * (samples - 1)) if seeds > 1 and samples > 1 else 0.0
    freedom = (a + b) ** 2 / (a**2 / max(seeds - 1, 1) + b**2 / max(samples - 1, 1))
    variance = max(a + b - c, a, b) / (seeds * samples)
    return float(np.sqrt(variance) * stdtrit(freedom, (1 + confidence) / 2))


def ratio_of_means(a: Array, b: Array, estimand: str, confidence: float = CONFIDENCE) -> Ratio:
    """`mean(a) / mean(b)` of two positive tables (seeds, samples), paired cell by cell.

    The interval is that of the log ratio, linearised: the cell (s, i) contributes `a_si/mean(a) - b_si/mean(b)`.
    """
    value = float(np.log(a.mean() / b.mean()))
    half = spread(a / a.mean() - b / b.mean(), confidence)
    low, high = float(np.exp(value - half)), float(np.exp(value + half))
    return Ratio(float(np.exp(value)), low, high, len(a), a.shape[1], estimand, confidence)


def geometric_mean(ratios: Array, samples: int, estimand: str) -> Ratio:
    """The geometric mean of one ratio per training seed (seeds,), with Student's t over seeds."""
    logs = np.log(ratios)[:, None]
    half = spread(logs)
    centre = float(logs.mean())
    low, high = float(np.exp(centre - half)), float(np.exp(centre + half))
    return Ratio(float(np.exp(centre)), low, high, len(ratios), samples, estimand)


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
