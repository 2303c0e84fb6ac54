"""Numbers of every kind as means of parts: intervals, pairs, p values and what would have shown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import binomtest, ttest_1samp, ttest_rel

from reports.metrics.distances import frechet, frechet_without
from reports.metrics.quantity import (
    SHARE,
    Quantity,
    averaged,
    certainty,
    half_of,
    jackknifed,
    p_value,
    paired,
    resolution,
)
from spectra.analysis.power import detectable
from spectra.analysis.statistics import Array, nested_draws

NAMES = ("a", "b")


def quantity(values: Array, seeds: int = 1, **more: object) -> Quantity:
    """Numbers (adapter, member) of two adapters as a mean."""
    labels = tuple(np.repeat(np.arange(values.shape[1] // seeds), seeds).tolist())
    empty = np.zeros((len(values), 1))
    plain = Quantity("x", "X", "lower", "mean of x", "prompts", NAMES, empty[:, 0], empty, labels)
    return replace(averaged(plain, values), **more)  # type: ignore[arg-type]


def numbers(prompts: int = 9, seeds: int = 1, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    shared = rng.normal(2, 0.4, prompts * seeds)
    return shared + rng.normal(0, 0.1, (2, prompts * seeds))


def test_a_mean_has_students_interval_over_prompts() -> None:
    x = numbers(9, 3)
    found, means = quantity(x, 3).estimate("a", 0.9), x[0].reshape(9, 3).mean(1)
    low, high = ttest_1samp(means, 0).confidence_interval(0.9)
    assert (found.value, found.low, found.high, found.n) == pytest.approx((means.mean(), low, high, 9))


def test_a_difference_is_the_paired_t_test() -> None:
    x = numbers()
    found, known = paired(quantity(x), "a", "b", 0.95), ttest_rel(x[0], x[1])
    low, high = known.confidence_interval(0.95)
    assert (found.difference.low, found.difference.high) == pytest.approx((low, high))
    assert found.p == pytest.approx(known.pvalue)
    assert found.spread == pytest.approx((x[0] - x[1]).std(ddof=1))


def test_the_resolution_is_what_power_says_of_the_differences() -> None:
    x = numbers()
    one = quantity(x)
    expected = detectable(float((x[0] - x[1]).std(ddof=1)), 9, 0.99)
    assert resolution(one, paired(one, "a", "b", 0.95), 0.99) == pytest.approx(expected)


def test_a_ratio_turns_over_and_knows_no_unit() -> None:
    one, other = quantity(numbers(), ratio=True), quantity(7 * numbers(), ratio=True)
    there, back, scaled = paired(one, "a", "b", 0.95), paired(one, "b", "a", 0.95), paired(other, "a", "b", 0.95)
    assert there.difference.value == pytest.approx(numbers()[0].mean() / numbers()[1].mean())
    assert back.difference.value == pytest.approx(1 / there.difference.value)
    assert back.difference.low == pytest.approx(1 / there.difference.high)
    assert scaled.difference.low == pytest.approx(there.difference.low)
    assert scaled.p == pytest.approx(there.p)


@given(st.floats(-3, 3), st.floats(0.01, 2), st.integers(2, 40), st.sampled_from([0.9, 0.95, 0.99]))
def test_p_is_small_exactly_where_the_interval_excludes_zero(value: float, half: float, n: int, level: float) -> None:
    assume(abs(abs(value) - half) > 1e-9)
    assert (p_value(value, half, n, level) < 1 - level) == (abs(value) > half)
    assert p_value(half, half, n, level) == pytest.approx(1 - level)


def test_what_never_varies_is_certain_and_a_single_prompt_says_nothing() -> None:
    assert p_value(0.0, 0.0, 5, 0.95) == 1
    assert p_value(0.1, 0.0, 5, 0.95) == 0
    assert np.isnan(p_value(0.1, np.inf, 1, 0.95))
    one = quantity(numbers(1))
    assert np.isneginf(one.estimate("a", 0.95).low)
    assert np.isposinf(resolution(one, paired(one, "a", "b", 0.95), 0.95))


@pytest.mark.parametrize("n", [2, 5, 30])
def test_shares_that_never_vary_are_as_sure_as_the_exact_binomial_says(n: int) -> None:
    exact = binomtest(0, n).proportion_ci(0.95, "exact")
    assert certainty(n, 0.95) == pytest.approx(exact.high)
    nothing = quantity(np.zeros((2, n)), bounds=SHARE, counted=True)
    found = nothing.estimate("a", 0.95)
    assert (found.low, found.high) == pytest.approx((0, exact.high))
    everything = quantity(np.ones((2, n)), bounds=SHARE, counted=True).estimate("a", 0.95)
    assert (everything.low, everything.high) == pytest.approx((1 - exact.high, 1))
    between = paired(nothing, "a", "b", 0.95)
    assert between.difference.high == pytest.approx(exact.high)
    assert between.p == 1
    assert resolution(nothing, between, 0.95) == pytest.approx(exact.high)


def test_half_of_a_distance_is_that_of_the_largest_and_half_of_a_scale_that_of_its_ends() -> None:
    x = np.array([[150.0, 250.0], [80.0, 120.0]])
    assert half_of(quantity(x, bounds=(0.0, np.inf))) == 100
    assert half_of(quantity(x / 1000, bounds=SHARE, counted=True)) == 0.5
    assert half_of(quantity(x / 1000, bounds=(-1.0, 1.0))) == 1
    assert half_of(quantity(x, ratio=True, bounds=(0.0, np.inf))) == 1


def test_intervals_of_shares_and_distances_stay_inside() -> None:
    x = np.array([[1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 1.0]])
    share = quantity(x, bounds=SHARE, counted=True)
    assert 0 < share.estimate("a", 0.95).low < share.estimate("a", 0.95).high < 1
    distance = quantity(0.01 + x, bounds=(0.0, np.inf))
    assert distance.estimate("b", 0.95).low == 0


def test_the_jackknife_of_a_mean_is_the_mean_itself() -> None:
    x = numbers(7)
    plain = quantity(x)
    without = np.stack([(row.sum() - row) / 6 for row in x])
    found = jackknifed(plain, x.mean(1), without)
    assert found.parts == pytest.approx(x)
    assert "jackknife over prompts" in found.estimate("a", 0.95).method


def test_the_jackknife_spreads_as_drawing_prompts_and_then_seeds_does() -> None:
    rng = np.random.default_rng(3)
    prompts, seeds, dims = 24, 2, 3
    content = rng.normal(size=(prompts, 1, dims)) + 0.7 * rng.normal(size=(prompts, seeds, dims))
    x, y = content.reshape(-1, dims) + 1.5 * np.eye(dims)[0], rng.normal(size=(80, dims))
    labels = np.repeat(np.arange(prompts), seeds).tolist()
    value, without = frechet(x, y), frechet_without(x, y, labels)
    found = jackknifed(quantity(np.zeros((2, 48)), seeds), np.full(2, value), np.stack([without] * 2))
    spread = found.parts[0].std(ddof=1) / np.sqrt(prompts)
    weights = nested_draws(labels, 400, np.random.default_rng(0)).tocoo()
    rows = [weights.col[weights.row // prompts == draw] for draw in range(400)]
    repeats = [np.rint(weights.data[weights.row // prompts == draw] * seeds).astype(int) for draw in range(400)]
    draws = [frechet(x[np.repeat(row, times)], y) for row, times in zip(rows, repeats, strict=True)]
    assert spread == pytest.approx(np.std(draws), rel=0.25)


def test_members_in_another_order_give_the_same_answer() -> None:
    x, order = numbers(8, 2), np.random.default_rng(0).permutation(16)
    one = quantity(x, 2)
    other = replace(one, parts=one.parts[:, order], cluster=tuple(np.array(one.cluster)[order].tolist()))
    assert paired(other, "a", "b", 0.95).p == pytest.approx(paired(one, "a", "b", 0.95).p)
