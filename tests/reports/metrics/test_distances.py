"""Frechet and kernel distances against scipy, torchmetrics, loops and closed forms."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.stats import ortho_group

from reports.metrics.distances import (
    cubic_kernel,
    extrapolated,
    frechet,
    frechet_without,
    full_rank,
    kernel_distance,
    kernel_without,
)
from spectra.analysis.statistics import Array
from spectra.errors import UserError

seeds = st.integers(0, 10_000)


def sets(seed: int, n: int = 20, m: int = 30, dims: int = 5) -> tuple[Array, Array]:
    """Two correlated sets with different means and covariances."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(2, dims, dims))
    return rng.normal(size=(n, dims)) @ mix[0], 0.5 + rng.normal(size=(m, dims)) @ mix[1]


def by_roots(x: Array, y: Array, ridge: float = 0.0) -> float:
    """The textbook formula, with a matrix root of the product of covariances."""
    a, b = (np.cov(s, rowvar=False) + ridge * np.eye(s.shape[1]) for s in (x, y))
    apart = x.mean(0) - y.mean(0)
    return float(apart @ apart + np.trace(a) + np.trace(b) - 2 * np.trace(sqrtm(a @ b).real))


@pytest.mark.parametrize(("n", "m", "dims"), [(20, 30, 5), (200, 40, 16), (50, 50, 1)])
def test_the_frechet_distance_is_that_of_matrix_roots(n: int, m: int, dims: int) -> None:
    x, y = sets(1, n, m, max(dims, 2))
    x, y = x[:, :dims], y[:, :dims]
    assert frechet(x, y) == pytest.approx(by_roots(x, y), rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(6, 7), (6, 40), (40, 6)])
def test_fewer_pictures_than_dimensions_give_the_limit_of_vanishing_shrinkage(n: int, m: int) -> None:
    x, y = sets(2, n, m, 12)
    off = [by_roots(x, y, ridge) - frechet(x, y) for ridge in (1e-4, 1e-6, 1e-8)]
    assert abs(off[2]) < abs(off[1]) < abs(off[0])
    assert off[2] == pytest.approx(0, abs=1e-2)


def test_torchmetrics_finds_the_same_distances() -> None:
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    network = torch.nn.Flatten()
    setattr(network, "num_features", 5)  # noqa: B010 - what torchmetrics asks a network of one's own for
    x, y = sets(3, 24, 24)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fid = FrechetInceptionDistance(feature=network).set_dtype(torch.float64)
        kid = KernelInceptionDistance(feature=network, subsets=1, subset_size=24).set_dtype(torch.float64)
    for metric in (fid, kid):
        metric.update(torch.from_numpy(y), real=True)
        metric.update(torch.from_numpy(x), real=False)
    assert frechet(x, y) == pytest.approx(float(fid.compute()), rel=1e-5)
    assert kernel_distance(x, y) == pytest.approx(float(kid.compute()[0]), rel=1e-5)


@given(seeds, st.floats(0.1, 3), st.floats(-2, 2))
def test_a_scaled_and_moved_set_is_as_far_as_gaussians_say(seed: int, scale: float, step: float) -> None:
    x, _ = sets(seed)
    apart = (scale - 1) * x.mean(0) + step
    variance = np.trace(np.cov(x, rowvar=False))
    assert frechet(x, scale * x + step) == pytest.approx(apart @ apart + (1 - scale) ** 2 * variance, abs=1e-8)


@given(seeds)
def test_both_distances_are_symmetric_and_do_not_know_directions(seed: int) -> None:
    x, y = sets(seed)
    turn = ortho_group.rvs(5, random_state=seed)
    for distance in (frechet, kernel_distance):
        assert distance(x, y) == pytest.approx(distance(y, x), rel=1e-9, abs=1e-8)
        assert distance(x @ turn, y @ turn) == pytest.approx(distance(x, y), rel=1e-8, abs=1e-8)


@given(seeds, st.floats(-5, 5), st.floats(0.1, 10))
def test_the_frechet_distance_follows_units_and_not_origins(seed: int, step: float, unit: float) -> None:
    x, y = sets(seed)
    assert frechet(x + step, y + step) == pytest.approx(frechet(x, y), rel=1e-8)
    assert frechet(unit * x, unit * y) == pytest.approx(unit**2 * frechet(x, y), rel=1e-8)


@given(seeds, st.integers(2, 12))
def test_a_set_is_at_no_distance_from_itself(seed: int, n: int) -> None:
    x, _ = sets(seed, n)
    assert frechet(x, x) == pytest.approx(0, abs=1e-10 * (x**2).sum())
    assert frechet(x, x[::-1]) == pytest.approx(0, abs=1e-10 * (x**2).sum())


def test_the_frechet_distance_is_too_large_for_few_pictures_and_extrapolation_mends_most_of_it() -> None:
    rng = np.random.default_rng(4)
    y = rng.normal(size=(4000, 6))
    studies = [rng.normal(size=(30, 6)) for _ in range(100)]
    plain = np.array([frechet(x, y) for x in studies])
    mended = np.array([extrapolated(x, y) for x in studies])
    assert plain.mean() > 0.4  # the truth is 0
    assert abs(mended.mean()) < 0.1 * plain.mean()
    assert np.mean([frechet(rng.normal(size=(60, 6)), y) for _ in range(100)]) == pytest.approx(
        plain.mean() / 2, rel=0.1
    )


def test_full_rank_needs_more_pictures_than_dimensions() -> None:
    assert full_rank(9, 9, 8)
    assert not full_rank(8, 100, 8)
    assert not full_rank(100, 8, 8)
    assert np.linalg.matrix_rank(np.cov(sets(0, 9, 9, 8)[0], rowvar=False)) == 8
    assert np.linalg.matrix_rank(np.cov(sets(0, 8, 9, 8)[0], rowvar=False)) == 7


def test_leaving_out_clusters_is_what_a_loop_does() -> None:
    x, y = sets(5, 12)
    cluster = np.repeat([3, 1, 2, 0], 3)[::-1]
    keep = [cluster != one for one in dict.fromkeys(cluster)]
    assert frechet_without(x, y, cluster.tolist()) == pytest.approx([frechet(x[k], y) for k in keep])
    left = [kernel_distance(x[k], y, cluster[k].tolist()) for k in keep]
    assert kernel_without(x, y, cluster.tolist()) == pytest.approx(left)


def test_the_kernel_distance_is_its_sum_over_pairs_of_different_prompts() -> None:
    x, y = sets(6, 6, 5, 3)
    prompt = ["a", "a", "b", "b", "b", "c"]

    def k(a: Array, b: Array) -> float:
        return float((a @ b / 3 + 1) ** 3)

    own = np.mean([k(x[i], x[j]) for i in range(6) for j in range(6) if prompt[i] != prompt[j]])
    other = np.mean([k(y[i], y[j]) for i in range(5) for j in range(5) if i != j])
    across = np.mean([k(a, b) for a in x for b in y])
    assert kernel_distance(x, y, prompt) == pytest.approx(own + other - 2 * across)
    assert cubic_kernel(x, y)[2, 1] == pytest.approx(k(x[2], y[1]))


def test_the_kernel_distance_of_sets_from_one_law_is_zero_on_average_even_in_clusters() -> None:
    rng = np.random.default_rng(7)

    def prompts(count: int, pictures: int) -> Array:
        own = rng.normal(size=(count, 1, 4)) + 0.3 * rng.normal(size=(count, pictures, 4))
        return np.asarray(own.reshape(-1, 4))

    label = np.repeat(np.arange(8), 3).tolist()
    studies = [(prompts(8, 3), prompts(40, 1)) for _ in range(500)]
    right = np.array([kernel_distance(x, y, label) for x, y in studies])
    wrong = np.array([kernel_distance(x, y) for x, y in studies])
    error = right.std() / np.sqrt(len(studies))
    assert abs(right.mean()) < 4 * error
    assert wrong.mean() > 10 * error


@pytest.mark.parametrize("distance", [frechet, kernel_distance])
def test_what_is_no_pair_of_sets_is_refused(distance: object) -> None:
    assert callable(distance)
    x, y = sets(9)
    for bad in (x[:1], x[:, :2], x[0]):
        with pytest.raises(UserError, match="two sets of at least two"):
            distance(bad, y)
    with pytest.raises(UserError, match="not finite"):
        distance(np.where(x == x[0, 0], np.nan, x), y)


def test_one_prompt_has_no_kernel_distance() -> None:
    x, y = sets(10)
    with pytest.raises(UserError, match="two prompts"):
        kernel_distance(x, y, ["a"] * len(x))
