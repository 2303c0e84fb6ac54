"""Intervals of the metrics cover what they promise, by simulated studies of 16 prompts with two seeds each.

The truth is that of much larger studies, or the mean of the studies themselves where the estimand is what so many
pictures give (Frechet distances, whose bias belongs to n).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from reports.metrics.distances import extrapolated, frechet, frechet_without, kernel_distance, kernel_without
from reports.metrics.quantity import SHARE, Quantity, averaged, jackknifed, paired
from reports.metrics.spectral import log_distance, without_each
from spectra.analysis.statistics import Array, Estimate, cluster_means

PROMPTS, SEEDS, DIMS = 16, 2, 6
LABELS = np.repeat(np.arange(PROMPTS), SEEDS)
NOTHING = np.zeros((2, 1))
PLAIN = Quantity("x", "X", "lower", "x", "prompts", ("a", "b"), NOTHING[:, 0], NOTHING, tuple(LABELS.tolist()))
REFERENCE = np.random.default_rng(99).normal(size=(64, DIMS))
ENERGY = np.array([4.0, 2.0, 1.0])
Study = tuple[Estimate, Estimate]


def pictures(rng: np.random.Generator, shift: float) -> Array:
    """Features of two adapters (2, n, d): shared contents, a shift of the second, noise of each."""
    content = rng.normal(size=(PROMPTS, 1, DIMS)) + 0.7 * rng.normal(size=(PROMPTS, SEEDS, DIMS))
    both = content + 0.3 * rng.normal(size=(2, PROMPTS, SEEDS, DIMS))
    both[..., 0] += shift
    both[1, ..., 1] += 0.5
    return np.asarray(both.reshape(2, -1, DIMS))


def by_frechet(rng: np.random.Generator) -> Study:
    made = pictures(rng, 1.0)
    without = np.stack([frechet_without(x, REFERENCE, LABELS.tolist()) for x in made])
    return both(jackknifed(PLAIN, np.array([frechet(x, REFERENCE) for x in made]), without))


def by_kernel(rng: np.random.Generator) -> Study:
    made = pictures(rng, 0.5)
    without = np.stack([kernel_without(x, REFERENCE, LABELS.tolist()) for x in made])
    values = [kernel_distance(x, REFERENCE, LABELS.tolist()) for x in made]
    return both(jackknifed(PLAIN, np.array(values), without))


def by_energy(rng: np.random.Generator) -> Study:
    content = rng.lognormal(0, 0.4, (PROMPTS, 1, 3)) * rng.lognormal(0, 0.2, (PROMPTS, SEEDS, 3))
    made = np.stack([2.0, 1.5])[:, None, None, None] * ENERGY * content * rng.lognormal(0, 0.05, (2, *content.shape))
    means = [cluster_means(x.reshape(-1, 3), LABELS.tolist()) for x in made]
    values = np.array([log_distance(x.mean(0), ENERGY) for x in means])
    return both(jackknifed(PLAIN, values, np.stack([log_distance(without_each(x), ENERGY) for x in means])))


def by_share(rng: np.random.Generator) -> Study:
    chance = rng.beta(4.5, 0.5, (PROMPTS, 1))
    right = np.stack([rng.random((PROMPTS, SEEDS)) < chance * part for part in (1.0, 0.8)]).reshape(2, -1)
    return both(averaged(replace(PLAIN, bounds=SHARE, counted=True), right.astype(float)))


def by_ratio(rng: np.random.Generator) -> Study:
    errors = rng.lognormal(0, 0.3, (PROMPTS, 1)) * rng.lognormal(0, 0.05, (2, PROMPTS, SEEDS)) * [[[0.7]], [[1.0]]]
    return both(averaged(replace(PLAIN, ratio=True), errors.reshape(2, -1)))


def both(quantity: Quantity) -> Study:
    """The first adapter's number, and its difference from the second."""
    return quantity.estimate("a", 0.95), paired(quantity, "a", "b", 0.95).difference


MEAN_ENERGY = (0.4**2 + 0.2**2 + 0.05**2) / 2  # log of the mean of lognormal factors
CASES = {
    "frechet": (by_frechet, None),
    "kernel": (by_kernel, None),
    "energy": (by_energy, (np.log(2) + MEAN_ENERGY, np.log(2 / 1.5))),
    "share": (by_share, (0.9, 0.18)),
    "ratio": (by_ratio, (0.7 * np.exp((0.3**2 + 0.05**2) / 2), 0.7)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("studies", [120, pytest.param(1500, marks=pytest.mark.slow)])
def test_intervals_of_values_and_differences_cover_what_they_promise(case: str, studies: int) -> None:
    make, truths = CASES[case]
    rng = np.random.default_rng(5)
    found = [make(rng) for _ in range(studies)]
    for which in range(2):
        estimates = [study[which] for study in found]
        truth = truths[which] if truths else float(np.mean([one.value for one in estimates]))
        covered = np.mean([one.includes(truth) for one in estimates])
        assert 0.95 - 3 * np.sqrt(0.05 * 0.95 / studies) - 0.015 <= covered, (case, which, covered)
        assert covered < 1 or studies < 200, (case, which, "intervals are far too wide")


@pytest.mark.slow
def test_extrapolated_frechet_distances_centre_on_the_distance_of_many_pictures() -> None:
    rng = np.random.default_rng(6)
    many = rng.normal(size=(200_000, DIMS)) * np.sqrt(1 + 0.49 + 0.09) + np.eye(DIMS)[0]
    found = [extrapolated(pictures(rng, 1.0)[0], REFERENCE, LABELS.tolist()) for _ in range(600)]
    plain = [frechet(pictures(rng, 1.0)[0], REFERENCE) for _ in range(600)]
    truth = frechet(many, REFERENCE)
    assert abs(np.mean(found) - truth) < 0.15 * abs(np.mean(plain) - truth)
