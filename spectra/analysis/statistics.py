"""Intervals for means over prompts, with several runs of each prompt: plain arrays, members along the first axis.

Runs of one prompt are not independent of each other, so prompts are the sample: runs are averaged within their prompt
(a cluster), prompts count equally, and an interval says what other prompts might have given.  Three methods:

    t           Student's t over the clusters' means.  The default: its coverage is held to 95 +- 1.5 % by simulation
                with 8, 16 and 32 clusters wherever the means are not skewed (`tests/oracles/test_coverage.py`).
    bootstrap   hierarchical and studentised: clusters are drawn, then members within each, and each draw is divided by
                its own standard error, so the noise that the second stage adds cancels.  Symmetric, and half way to t.
                For skewed values (ratios of mean energies), where t covers 92 % with 8 clusters.
    percentile  the usual bootstrap of clusters; it covers 85 % with 8 clusters and is here for comparison.

Sources: Davison & Hinkley, Bootstrap Methods and their Application (1997), sections 2.4, 3.8 and 5.2.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectra.errors import UserError

Array = NDArray[np.float64]
Method = Literal["auto", "t", "bootstrap", "percentile"]

FEW = 5  # clusters; with fewer, draws of one cluster only are common and studentising divides by nothing
MANY = 40  # clusters; from here on the spread of a standard error hardly matters to the largest of many t values
BLOCK = 1 << 22  # numbers held at a time while drawing


@dataclass(frozen=True)
class Estimate:
    """A number with its interval: what it estimates, how, and from how many independent clusters.

    The interval is unbounded where there is a single cluster.
    """

    value: float
    low: float
    high: float
    n: int
    method: str
    estimand: str
    confidence: float = 0.95

    def includes(self, x: float) -> bool:
        """True where x is inside the interval, so that the data do not speak against it."""
        return self.low <= x <= self.high

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON; an unbounded end is None."""
        return json_fields(self)


def json_fields(record: Any) -> dict[str, Any]:
    """The fields of a record (a dataclass) as JSON values; a number that is not there or has no bound is None."""
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in asdict(record).items()}


class Interval(NamedTuple):
    """Mean over clusters and its interval, each (...)."""

    value: Array
    low: Array
    high: Array


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    cluster: Sequence[Hashable] | None = None,
    n: int = 2000,
    seed: int = 0,
    *,
    confidence: float = 0.95,
    method: Method = "auto",
    what: str = "difference",
) -> Estimate:
    """The mean of a - b for values (members,) paired one to one, with an interval over clusters (or over members).

    Differences are averaged within clusters first, and clusters count equally; `n` are the draws of a bootstrap.

    Raises UserError where the values cannot be paired or are not finite.
    """
    left, right = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if left.ndim != 1 or left.shape != right.shape or len(left) == 0 or not np.isfinite(left - right).all():
        raise UserError(f"paired values are two equal rows of finite numbers, not {left.shape} and {right.shape}")
    labels = list(range(len(left))) if cluster is None else list(cluster)
    if len(labels) != len(left):
        raise UserError(f"{len(left)} pairs need {len(left)} cluster labels, not {len(labels)}")
    value, low, high = mean_interval(left - right, labels, confidence, method, n, seed)
    clusters = len(set(labels))
    estimand = f"mean {what} over {'pairs' if cluster is None else 'clusters of pairs'}"
    used = method_used(clusters, method, n, "paired ")
    return Estimate(float(value), float(low), float(high), clusters, used, estimand, confidence)


def cluster_means(values: Array, cluster: Sequence[Hashable]) -> Array:
    """Means within clusters, (members, ...) -> (clusters, ...), in the order in which clusters first appear."""
    place = places(cluster)
    sizes = np.bincount(place)
    if not len(sizes):
        return np.asarray(values, np.float64)
    sums = np.add.reduceat(values[np.argsort(place, kind="stable")], np.cumsum(sizes) - sizes, axis=0, dtype=np.float64)
    return np.asarray(sums / sizes.reshape(-1, *[1] * (values.ndim - 1)))


def places(cluster: Sequence[Hashable]) -> NDArray[np.int64]:
    """The number of each member's cluster, in the order in which clusters first appear, (members,)."""
    order = {label: i for i, label in enumerate(dict.fromkeys(cluster))}
    return np.array([order[label] for label in cluster], np.int64)


def mean_interval(
    values: Array, cluster: Sequence[Hashable], confidence: float, method: Method = "auto", n: int = 2000, seed: int = 0
) -> Interval:
    """Mean over clusters and its interval: (members, ...) and a label each -> three arrays (...)."""
    means = cluster_means(values, cluster)
    if method != "bootstrap" or len(means) < FEW:
        return interval(means, confidence, method, n, seed)
    cells = np.ascontiguousarray(values, np.float64).reshape(len(values), -1)
    value, error = means.mean(0), standard_error(means)
    drawn = studentised(cells, cluster, confidence, n, seed).reshape(value.shape)
    # Half way to Student's: with 8 clusters the drawn reach alone covers 97 % of numbers that are not skewed.
    spread = (drawn + t_quantile(len(means), confidence)) / 2 * error
    return Interval(value, value - spread, value + spread)


def interval(means: Array, confidence: float, method: Method, n: int, seed: int) -> Interval:
    """Mean over clusters and its interval, from the clusters' means (clusters, ...) -> three arrays (...)."""
    size, value = len(means), np.asarray(means.mean(0))
    if size == 1:
        return Interval(value, np.full_like(value, -np.inf), np.full_like(value, np.inf))
    if method == "bootstrap" and size >= FEW:
        return mean_interval(means, range(size), confidence, method, n, seed)
    if method != "percentile":
        half = t_quantile(size, confidence) * standard_error(means)
        return Interval(value, value - half, value + half)
    spread = (resampled_means(means, n, seed) - value) * np.sqrt(size / (size - 1))  # draws spread by 1/n, not 1/(n-1)
    low, high = np.quantile(spread, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return Interval(value, value + low, value + high)


def within(found: Interval, floor: float, ceiling: float) -> Interval:
    """The interval of a mean of numbers between two bounds, made symmetric in its logit instead (delta method).

    It stays between the bounds and covers numbers that crowd at one of them: 94 % where the plain one has 92.  For
    cosines, between -1 and 1, this is Fisher's z.
    """
    span = ceiling - floor
    x, half = (found.value - floor) / span, (found.high - found.value) / span
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        odds, shift = x / (1 - x), np.exp(half / (x * (1 - x)))
        low, high = (floor + span * (1 - 1 / (1 + part)) for part in (odds / shift, odds * shift))
    inside = (x > 0) & (x < 1) & (half > 0)
    low, high = np.where(inside, low, found.low), np.where(inside, high, found.high)
    return Interval(found.value, np.clip(low, floor, ceiling), np.clip(high, floor, ceiling))


def method_used(size: int, method: Method, n: int, kind: str = "") -> str:
    """The words for what `mean_interval` does with `size` clusters."""
    if size == 1:
        return "none: a single cluster says nothing about others"
    if method == "bootstrap" and size >= FEW:
        return f"{kind}hierarchical bootstrap, studentised, {n} draws"
    return f"{kind}percentile bootstrap, {n} draws" if method == "percentile" else f"{kind}Student t"


def t_quantile(size: int, confidence: float) -> float:
    """Half width of the t interval of a mean of `size` values, in standard errors."""
    from scipy.special import stdtrit

    return float(stdtrit(size - 1, (1 + confidence) / 2))


def standard_error(means: Array) -> Array:
    """Standard error of the mean of (clusters, ...), (...)."""
    return np.asarray(means.std(0, ddof=1) / np.sqrt(len(means)))


def resampled_means(means: Array, n: int, seed: int) -> Array:
    """Means of n bootstrap samples of whole clusters, (clusters, ...) -> (n, ...): counts times values."""
    size = len(means)
    counts = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), size=n)
    return np.asarray(np.tensordot(counts / size, means, axes=1))


def nested_draws(cluster: Sequence[Hashable], n: int, rng: np.random.Generator) -> Any:
    """Weights of n hierarchical bootstrap samples, sparse (n * clusters, members): each row is one drawn cluster.

    Clusters are drawn with replacement, and within each drawn one as many of its members as it has, with replacement.
    A row times the values of the members is the mean of that cluster in that draw.
    """
    from scipy.sparse import csr_array

    place = places(cluster)
    sizes, by_cluster = np.bincount(place), np.argsort(place, kind="stable")
    drawn = rng.integers(len(sizes), size=n * len(sizes))
    count = sizes[drawn]
    first = np.repeat((np.cumsum(sizes) - sizes)[drawn], count)
    column = by_cluster[first + (rng.random(len(first)) * np.repeat(count, count)).astype(np.int64)]
    ends = np.concatenate([[0], np.cumsum(count)])
    return csr_array((np.repeat(1 / count, count), column, ends), shape=(len(drawn), len(place)))


def studentised(values: Array, cluster: Sequence[Hashable], confidence: float, n: int, seed: int) -> Array:
    """How many standard errors a symmetric interval reaches: (members, cells) -> (cells,)."""
    value, rng = cluster_means(values, cluster).mean(0), np.random.default_rng(seed)
    clusters = len(set(cluster))
    draws = np.empty((n, values.shape[1]))
    for part in _parts(n, clusters * values.shape[1]):
        slots = (nested_draws(cluster, part.stop - part.start, rng) @ values).reshape(-1, clusters, values.shape[1])
        draws[part] = _ratio(np.abs(slots.mean(1) - value), slots.std(1, ddof=1) / np.sqrt(clusters))
    return np.asarray(np.quantile(draws, confidence, axis=0, method="higher"))


def simultaneous(means: Array, confidence: float, n: int = 2000, seed: int = 0) -> float:
    """How many standard errors intervals of all cells together reach: (clusters, cells) -> the quantile of max |t|.

    Normal samples with the covariance of the clusters' means are drawn and treated like them.  One cell gives Student's
    t; with many, correlated cells it lies between that and Bonferroni's (Hothorn, Bretz & Westfall 2008, section 3).
    """
    size, rng = len(means), np.random.default_rng(seed)
    residual = means - means.mean(0)
    residual = residual[:, residual.std(0) > 1e-12 * np.maximum(np.abs(means).max(0), 1e-300)] / np.sqrt(size - 1)
    if residual.shape[1] == 0:
        return t_quantile(size, confidence)
    rows = size if size < MANY else 1
    largest = np.empty(n)
    for part in _parts(n, rows * residual.shape[1]):
        draws = rng.standard_normal((part.stop - part.start, rows, size)) @ residual
        spread = draws.std(1, ddof=1) if rows > 1 else np.sqrt((residual**2).sum(0))
        largest[part] = (np.sqrt(rows) * np.abs(draws.mean(1)) / spread).max(1)
    return float(np.quantile(largest, confidence))


def p_values(means: Array, tolerance: float = 0.0) -> Array:
    """Two-sided p of Student's t against a mean of 0, (clusters, ...) -> (...); NaN where there is no answer.

    A mean that is no larger than `tolerance` is no difference, and of a larger one the excess is tested.
    """
    from scipy.special import stdtr

    if len(means) == 1:
        return np.full(means.shape[1:], np.nan)
    t = _ratio(np.maximum(np.abs(means.mean(0)) - tolerance, 0), standard_error(means))
    return np.asarray(2 * stdtr(len(means) - 1, -t))


def false_discovery(p: Array) -> Array:
    """P values adjusted for having looked at all of them (Benjamini & Hochberg), in the shape of `p`; NaN stay."""
    from scipy.stats import false_discovery_control

    adjusted, there = np.full(p.shape, np.nan), np.isfinite(p)
    if there.any():
        adjusted[there] = false_discovery_control(p[there])
    return adjusted


def holm(p: Array) -> Array:
    """P values adjusted so that none is wrong, with their confidence, among all of them; in the shape of `p`; NaN stay.

    Step-down: the k-th smallest of m is multiplied by m - k + 1 (Holm, Scandinavian Journal of Statistics 6, 1979).
    """
    adjusted, there = np.full(p.shape, np.nan), np.isfinite(p)
    found = p[there]
    order = np.argsort(found)
    stepped = np.maximum.accumulate(found[order] * np.arange(len(found), 0, -1))
    back = np.empty_like(found)
    back[order] = np.minimum(stepped, 1)
    adjusted[there] = back
    return adjusted


def _ratio(size: Array, error: Array) -> Array:
    """size / error of numbers >= 0; 0 where both vanish, inf where only the error does, NaN where either is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((size == 0) & (error == 0), 0.0, size / error)


def _parts(n: int, width: int) -> Iterator[slice]:
    """Slices of n draws, `width` numbers each, that fit in memory together."""
    step = max(BLOCK // max(width, 1), 1)
    return (slice(start, min(start + step, n)) for start in range(0, n, step))
