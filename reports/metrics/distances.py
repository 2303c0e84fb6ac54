"""Distances between two sets of features, as numbers: plain arrays, pictures along the first axis.

    frechet            between two Gaussians with the sets' means and covariances (Heusel et al. 2017).  Biased upwards
                       for finite n, by about c / n with an unknown c: compare at equal n, or extrapolate
    kernel_distance    squared maximum mean discrepancy with the cubic kernel of the kernel inception distance
                       (Binkowski et al. 2018; Gretton et al. 2012, Lemma 6).  Unbiased, so it may be below zero

Which network the features come from is what gives such a distance its meaning and its name.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from spectra.analysis.statistics import Array, places
from spectra.errors import UserError

DEGREE = 3
Features = NDArray[np.floating]


def frechet(x: Features, y: Features) -> float:
    """Frechet distance `|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2))` of sets (n, d) and (m, d), covariances over n - 1.

    The trace of the root is the sum of the singular values of `X Y^T` (centred rows, each over the root of its n - 1),
    because their squares are the eigenvalues of `C C'`.  So no matrix root is taken, and sets with fewer pictures than
    dimensions, whose covariances have no full rank, need no shrinkage; what they give is much too large all the same
    (`full_rank` says whether).

    Raises UserError for sets of fewer than two pictures or of different dimensions, and numbers that are not finite.
    """
    x, y = checked(x, y)
    (mean, a), (other, b) = _centred(x), _centred(y)
    crossed = np.linalg.svd(_factor(a) @ _factor(b).T, compute_uv=False).sum()
    apart = mean - other
    return max(float(apart @ apart + (a * a).sum() + (b * b).sum() - 2 * crossed), 0.0)


def full_rank(n: int, m: int, dims: int) -> bool:
    """Whether covariances of n and m pictures can have full rank."""
    return min(n, m) > dims


def extrapolated(x: Features, y: Features, cluster: Sequence[Hashable] | None = None) -> float:
    """The Frechet distance without its first order bias in the n of `x`, by the jackknife over clusters of pictures.

    What is left is the bias of the fixed set `y`, as in other extrapolations (Chong & Forsyth 2020).  May be below 0.
    """
    labels = range(len(x)) if cluster is None else cluster
    whole, left = frechet(x, y), frechet_without(x, y, labels)
    return float(len(left) * whole - (len(left) - 1) * left.mean())


def frechet_without(x: Features, y: Features, cluster: Sequence[Hashable]) -> Array:
    """Frechet distances with one cluster of `x` left out at a time, (clusters,)."""
    place = places(cluster)
    return np.array([frechet(x[place != one], y) for one in range(place.max() + 1)])


def cubic_kernel(x: Features, y: Features) -> Array:
    """`(x . y / d + 1)^3` of all pairs, (n, d) and (m, d) -> (n, m)."""
    return np.asarray((np.asarray(x, np.float64) @ np.asarray(y, np.float64).T / x.shape[1] + 1) ** DEGREE)


def kernel_distance(x: Features, y: Features, cluster: Sequence[Hashable] | None = None) -> float:
    """Unbiased squared MMD of sets (n, d) and (m, d) with the cubic kernel; 0 on average where both come from one law.

    Pictures of one cluster (a prompt) are not independent, so pairs within a cluster of `x` are left out; without
    `cluster` every picture is one.  Raises UserError as `frechet`, and for a single cluster.
    """
    x, y = checked(x, y)
    own, sizes, across, other = _kernel_sums(x, y, range(len(x)) if cluster is None else cluster)
    return float(_discrepancy(own.sum() - np.trace(own), sizes.sum() ** 2 - (sizes**2).sum(), across.sum(), sizes.sum())
                 + other)  # fmt: skip


def kernel_without(x: Features, y: Features, cluster: Sequence[Hashable]) -> Array:
    """Kernel distances with one cluster of `x` left out at a time, (clusters,); NaN where one is left."""
    x, y = checked(x, y)
    own, sizes, across, other = _kernel_sums(x, y, cluster)
    apart, pairs = own - np.diag(np.diag(own)), np.outer(sizes, sizes) - np.diag(sizes**2)
    left = apart.sum() - 2 * apart.sum(0), pairs.sum() - 2 * pairs.sum(0)
    return _discrepancy(*left, across.sum() - across, sizes.sum() - sizes) + other


def checked(x: Features, y: Features) -> tuple[Array, Array]:
    """Both sets in double precision.  Raises UserError where they are no two sets of vectors of one length."""
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise UserError(f"a distance needs two sets of at least two feature vectors of one length, not {a.shape} and "
                        f"{b.shape}")  # fmt: skip
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise UserError("features of some pictures are not finite: make them again, in float32")
    return a, b


def _centred(x: Array) -> tuple[Array, Array]:
    """Mean (d,) and rows (n, d) whose products are the covariance."""
    mean = x.mean(0)
    return mean, (x - mean) / np.sqrt(len(x) - 1)


def _factor(rows: Array) -> Array:
    """A matrix with at most d rows and the same products `R^T R` as `rows` (n, d)."""
    return np.asarray(np.linalg.qr(rows, mode="r")) if len(rows) > rows.shape[1] else rows


def _kernel_sums(x: Array, y: Array, cluster: Sequence[Hashable]) -> tuple[Array, Array, Array, float]:
    """Kernel sums: between clusters of x (g, g), their sizes (g,), with the mean of y (g,); the mean within y."""
    place = places(cluster)
    member = np.eye(place.max() + 1)[place]
    if member.shape[1] < 2:
        raise UserError("a kernel distance needs pictures of at least two prompts (or seeds of one)")
    inner, m = cubic_kernel(y, y), len(y)
    other = (inner.sum() - np.trace(inner)) / (m * (m - 1))
    return member.T @ cubic_kernel(x, x) @ member, member.sum(0), member.T @ cubic_kernel(x, y).mean(1), float(other)


def _discrepancy(own: Array, pairs: Array, across: Array, count: Array) -> Array:
    """Mean over pairs of x less twice the mean over pairs of both, from sums."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(own / pairs - 2 * across / count)
