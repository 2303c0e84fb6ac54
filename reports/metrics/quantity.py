"""One thing that is measured of every adapter, and how numbers of it get intervals, alone and in pairs.

Everything is brought to one form: a value per adapter, and parts whose mean over clusters (prompts) is the value, to
first order.  Then an interval, a paired difference, its p value and its power are those of a mean over clusters:

    means              the parts are the numbers of the pictures themselves
    distances          the parts are the jackknife's pseudo-values, `G v - (G - 1) v_without_one`, one a prompt, moved
                       so that their mean is v (Efron & Stein 1981).  Prompts are left out whole
    ratios             of a over b: `a_i / a - b_i / b`, the linearised log ratio of the means

Intervals of means are Student's t; those of distances and ratios, which are no means, the studentised hierarchical
bootstrap (prompts, then seeds) of `spectra.analysis.statistics` over the parts.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from reports.metrics.results import Better, Kind
from spectra.analysis.power import detectable
from spectra.analysis.statistics import (
    Array,
    Estimate,
    Interval,
    Method,
    cluster_means,
    mean_interval,
    method_used,
    t_quantile,
    within,
)

DRAWS = 2000
SHARE = (0.0, 1.0)
MOST = 10.0
"""How many times as large as another a value may be for a difference to be one that matters."""


@dataclass(frozen=True)
class Quantity:
    """What is measured, for all adapters: `values` (adapter,), and `parts` (adapter, member) with a cluster each.

    logs      values and parts are logs, shown as their exponentials
    ratio     adapters are compared by ratio instead of difference; values are above 0
    bounds    what every value lies between
    reach     the largest difference that two values can have, where that is less than the bounds allow
    counted   parts are shares of a few things: where they do not vary, that is no certainty
    note      what all values suffer from; `notes` (adapter,) what each does
    skip      adapters that are not shown: the base, where the distance is that to the base
    """

    name: str
    title: str
    better: Better
    estimand: str
    unit: str
    adapters: tuple[str, ...]
    values: Array
    parts: Array
    cluster: tuple[Hashable, ...]
    pinned: str = ""
    network: str | None = None
    note: str = ""
    notes: tuple[str, ...] | None = None
    how: str = ""
    method: Method = "t"
    logs: bool = False
    ratio: bool = False
    bounds: tuple[float, float] | None = None
    reach: float = math.inf
    counted: bool = False
    skip: frozenset[str] = frozenset()

    @property
    def clusters(self) -> int:
        """The number of independent clusters."""
        return len(set(self.cluster))

    @property
    def kind(self) -> Kind:
        """How two adapters are compared."""
        return "ratio" if self.ratio or self.logs else "difference"

    def estimate(self, adapter: str, confidence: float) -> Estimate:
        """The value of one adapter with its interval."""
        row = self.adapters.index(adapter)
        plain = _around(self.values[row], self.parts[row], self.cluster, confidence, self.method)
        found = _sure(plain, self, confidence)
        used = self.how + method_used(self.clusters, self.method, DRAWS)
        if self.bounds:
            found = _bounded(found, *self.bounds, found is plain)
            used += _kept_within(self.clusters, *self.bounds)
        return _estimate(found, self.clusters, used, self.estimand, confidence, self.logs)


Found = Iterator[Quantity | str]
"""What can be measured, and sentences on what cannot."""


class Paired(NamedTuple):
    """Two adapters compared: the number with its interval, p, and the spread of clusters that the interval stands for.

    `spread` is on the scale of logs where numbers are compared by ratio, and None where shares do not vary.
    """

    difference: Estimate
    p: float
    spread: float | None


def averaged(quantity: Quantity, values: Array) -> Quantity:
    """`quantity` as a mean over clusters of numbers (adapter, member)."""
    means = np.stack([cluster_means(row, quantity.cluster).mean(0) for row in values])
    return replace(quantity, values=means, parts=np.asarray(values, np.float64))


def jackknifed(quantity: Quantity, values: Array, without: Array) -> Quantity:
    """`quantity` as no mean: values (adapter,), and (adapter, cluster) values with one cluster left out.

    The parts are pseudo-values, moved to have the values as their means; clusters are in the order of `places`.
    """
    size = without.shape[1]
    pseudo = size * values[:, None] - (size - 1) * without
    parts = values[:, None] + pseudo - pseudo.mean(1, keepdims=True)
    labels = tuple(dict.fromkeys(quantity.cluster))
    how = f"jackknife over {quantity.unit}, then "
    return replace(quantity, values=values, parts=parts, cluster=labels, how=how, method="bootstrap")


def paired(quantity: Quantity, a: str, b: str, confidence: float) -> Paired:
    """Adapter `a` less `b`, or over `b`, on the same prompts and seeds."""
    i, j = quantity.adapters.index(a), quantity.adapters.index(b)
    centre, parts, words, method = _contrast(quantity, i, j)
    plain = _around(centre, parts, quantity.cluster, confidence, method)
    found = _sure(plain, quantity, confidence)
    size, used = quantity.clusters, quantity.how + method_used(quantity.clusters, method, DRAWS, "paired ")
    half = float(found.high - found.value)
    if quantity.counted and size > 1:  # a difference of shares
        found = Interval(found.value, np.maximum(found.low, -1.0), np.minimum(found.high, 1.0))
        used += ", cut off at -1 and 1"
    estimate = _estimate(found, size, used, f"{words}, {quantity.estimand}", confidence, quantity.kind == "ratio")
    spread = half / t_quantile(size, confidence) * math.sqrt(size) if size > 1 else math.inf
    known = found is plain
    return Paired(estimate, float(p_value(centre, half, size, confidence)), spread if known else None)


def resolution(quantity: Quantity, found: Paired, level: float) -> float:
    """The true difference that shows with 80 % power at confidence `level`; of ratios, the change; inf if none does.

    Where shares do not vary, the share that would have shown in some cluster (`certainty`).
    """
    size = quantity.clusters
    if found.spread is None:
        return certainty(size, level)
    least = detectable(found.spread, size, level) if math.isfinite(found.spread) else math.inf
    if quantity.kind == "difference" and least > farthest(quantity):
        return math.inf
    with np.errstate(over="ignore"):
        return float(np.expm1(least)) if quantity.kind == "ratio" else least


def farthest(quantity: Quantity) -> float:
    """The largest difference that means something: the range of values, or of one without end ten times the largest."""
    if quantity.counted:
        return 1.0
    low, high = quantity.bounds or (-math.inf, math.inf)
    size = float(np.abs(quantity.values).max())
    many = MOST * size if math.isinf(high) and size > 0 else math.inf
    return min(high - low, quantity.reach, many)


def half_of(quantity: Quantity) -> float:
    """Half of the largest number, or of a scale with two ends; of ratios, twice or half.

    Where such a difference would not show, an adapter could have lost half of all distance unseen.
    """
    if quantity.kind == "ratio":
        return 1.0
    low, high = quantity.bounds or (-math.inf, math.inf)
    if quantity.counted or math.isfinite(high - low):
        return farthest(quantity) / 2
    return float(np.abs(quantity.values).max()) / 2


def p_value(value: ArrayLike, half: ArrayLike, size: int, confidence: float) -> Array:
    """The level at which an interval of this shape would end at 0: below 1 - confidence exactly where it excludes 0.

    Values and half widths of intervals (...) of `size` clusters -> (...).  For Student's t that is the p of the t
    test.  NaN for a single cluster, which says nothing; 1 where neither a difference nor a spread is seen.
    """
    from scipy.special import stdtr

    away, reach = np.abs(value), np.asarray(half, np.float64)
    if size < 2:
        return np.full(np.shape(away), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(away == 0, 0.0, t_quantile(size, confidence) * away / reach)
    return np.asarray(2 * stdtr(size - 1, -t))


def certainty(size: int, confidence: float) -> float:
    """How large a share may be that shows in none of `size` clusters (Clopper & Pearson's upper end)."""
    return float(1 - ((1 - confidence) / 2) ** (1 / size)) if size > 1 else math.inf


def _contrast(quantity: Quantity, i: int, j: int) -> tuple[Array, Array, str, Method]:
    """Centre, parts, words and method of the comparison of two rows."""
    a, b, parts = quantity.values[i], quantity.values[j], quantity.parts
    if not quantity.ratio:
        words = "ratio" if quantity.logs else "difference"
        return np.asarray(a - b), parts[i] - parts[j], words, quantity.method
    return np.asarray(np.log(a / b)), parts[i] / a - parts[j] / b, "ratio", "bootstrap"


def _around(centre: Array, parts: Array, cluster: tuple[Hashable, ...], confidence: float, method: Method) -> Interval:
    """The interval of the mean of `parts` (member,), moved to the centre; numbers equal but for rounding are equal."""
    order = sorted(range(len(parts)), key=lambda i: (str(cluster[i]), parts[i]))  # draws are the same for any order
    labels = [cluster[i] for i in order]
    mean, low, high = mean_interval(parts[order], labels, confidence, method, DRAWS)
    if high - low <= 1e-12 * max(float(np.abs(parts).max()), 1e-300):
        low = high = mean
    return Interval(np.asarray(centre), centre + (low - mean), centre + (high - mean))


def _sure(found: Interval, quantity: Quantity, confidence: float) -> Interval:
    """Shares that never vary are not thereby known exactly."""
    if not quantity.counted or found.low != found.high:
        return found
    reach = certainty(quantity.clusters, confidence)
    return Interval(found.value, found.value - reach, found.value + reach)


def _bounded(found: Interval, low: float, high: float, spread: bool) -> Interval:
    """Inside the bounds: in the logit between two, where there is a spread; cut off at one."""
    inside = within(found, low, high) if math.isfinite(high) and spread else found
    return Interval(found.value, np.maximum(inside.low, low), np.minimum(inside.high, high))


def _kept_within(size: int, low: float, high: float) -> str:
    """The words for what `_bounded` does."""
    if size < 2:
        return ""
    return f", kept between {low:g} and {high:g}" if math.isfinite(high) else f", cut off at {low:g}"


def _estimate(found: Interval, size: int, used: str, estimand: str, confidence: float, logs: bool) -> Estimate:
    with np.errstate(over="ignore"):
        value, low, high = (float(np.exp(end) if logs else end) for end in found)
    return Estimate(value, low, high, size, used, estimand, confidence)
