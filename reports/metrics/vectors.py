"""Directions of features: similarity, diversity and nearest neighbours, by the cosine.  Plain arrays."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from reports.metrics.distances import Features
from spectra.analysis.statistics import Array, places
from spectra.errors import UserError

BLOCK = 1 << 24  # cosines held at a time


class Nearest(NamedTuple):
    """Of each picture, the place of its nearest neighbour, (n,), and the distance to it, one minus the cosine."""

    place: np.ndarray[tuple[int], np.dtype[np.int64]]
    distance: Array


def directions(x: Features) -> Array:
    """Features (..., d) scaled to length one.  Raises UserError where one is zero or not finite."""
    x = np.asarray(x, np.float64)
    length = np.sqrt((x * x).sum(-1, keepdims=True))
    if not (np.isfinite(length) & (length > 0)).all():
        raise UserError("features of some pictures are zero or not finite, so that they have no direction")
    return np.asarray(x / length)


def cosine(x: Features, y: Features) -> Array:
    """Cosines of vectors paired along the last axis, (..., d) and (..., d) -> (...)."""
    return np.asarray(np.clip((directions(x) * directions(y)).sum(-1), -1, 1))


def similarity(x: Features, y: Features) -> Array:
    """Mean cosine of each vector of x (..., d) with all of y (m, d), (...)."""
    return np.asarray(directions(x) @ directions(y).mean(0))


def nearest(x: Features, y: Features) -> Nearest:
    """The nearest of y (m, d) to each of x (n, d)."""
    a, b = directions(x), directions(y)
    step = max(BLOCK // len(b), 1)
    tables = [a[start : start + step] @ b.T for start in range(0, len(a), step)]
    place = np.concatenate([table.argmax(1) for table in tables])
    return Nearest(place, 1 - cosine(x, np.asarray(y)[place]))


def diversity(x: Features, cluster: Sequence[Hashable]) -> Array:
    """Mean of one minus the cosine over pairs within each cluster, (n, d) -> (clusters,); NaN for clusters of one."""
    place, a = places(cluster), directions(x)
    sizes = np.bincount(place)
    sums = np.zeros((len(sizes), a.shape[1]))
    np.add.at(sums, place, a)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = ((sums**2).sum(1) - sizes) / (sizes * (sizes - 1.0))
    return np.where(sizes > 1, np.maximum(1 - mean, 0.0), np.nan)
