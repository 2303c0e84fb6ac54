"""Intervals over clusters: textbook values, and what they may not depend on."""

import json
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from spectra.analysis.statistics import (
    Interval,
    cluster_means,
    false_discovery,
    holm,
    interval,
    mean_interval,
    method_used,
    nested_draws,
    p_values,
    paired_difference,
    simultaneous,
    studentised,
    t_quantile,
    within,
)
from spectra.errors import UserError


def test_clusters_count_equally_whatever_their_size() -> None:
    estimate = paired_difference([1.0, 1.0, 1.0, 4.0], [0.0, 0.0, 0.0, 1.0], ["a", "a", "a", "b"])
    assert estimate.value == pytest.approx(2.0)
    assert estimate.n == 2
    assert estimate.estimand == "mean difference over clusters of pairs"
    assert estimate.method == "paired Student t"


def test_a_single_cluster_has_no_interval() -> None:
    estimate = paired_difference([1.0, 2.0], [0.0, 0.0], ["a", "a"])
    assert (estimate.low, estimate.high) == (-np.inf, np.inf)
    assert estimate.includes(1e9)
    assert json.loads(json.dumps(estimate.to_dict(), allow_nan=False))["low"] is None


def test_the_t_interval_is_the_textbook_one() -> None:
    estimate = paired_difference([3.0, 5.0, 4.0], [1.0, 2.0, 3.0])
    assert (estimate.low, estimate.high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))
    assert not estimate.includes(5.0)


@pytest.mark.parametrize(
    ("a", "b", "cluster"),
    [([1.0], [1.0, 2.0], None), ([], [], None), ([np.nan], [1.0], None), ([1.0], [1.0], ["a", "b"])],
)
def test_values_that_cannot_be_paired_are_refused(a: list[float], b: list[float], cluster: list[str] | None) -> None:
    with pytest.raises(UserError, match="pair"):
        paired_difference(a, b, cluster)


def values(clusters: int = 8, seeds: int = 3, cells: int = 4) -> tuple[np.ndarray, list[int]]:
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(clusters), seeds)
    return rng.standard_normal((clusters, cells))[label] + rng.standard_normal((len(label), cells)), label.tolist()


@pytest.mark.parametrize("method", ["t", "bootstrap", "percentile"])
def test_order_of_members_does_not_matter(method: str) -> None:
    x, label = values()
    order = np.random.default_rng(1).permutation(len(label))
    found, again = (mean_interval(v, c, 0.9, method, 4000) for v, c in ((x, label), (x[order], np.array(label)[order])))
    for one, other in zip(found, again, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12 if method == "t" else 0.06)


@pytest.mark.parametrize("method", ["t", "bootstrap", "percentile"])
def test_intervals_follow_a_change_of_units(method: str) -> None:
    x, label = values()
    plain, scaled = (mean_interval(v, label, 0.95, method, 300) for v in (x, 5 - 2 * x))
    np.testing.assert_allclose(scaled.value, 5 - 2 * plain.value)
    for end, other in ((plain.low, scaled.high), (plain.high, scaled.low)):
        np.testing.assert_allclose(other, 5 - 2 * end, atol=0.05 if method == "percentile" else 1e-9)


def test_hierarchical_draws_are_means_of_members_of_one_cluster() -> None:
    label = list("abbccc")
    W = nested_draws(label, 500, np.random.default_rng(0)).toarray()
    assert W.shape == (1500, 6)
    np.testing.assert_allclose(W.sum(1), 1)
    member = np.array([[name == other for other in label] for name in "abc"])
    assert ((W @ member.T > 0).sum(1) == 1).all()
    np.testing.assert_allclose((W @ member.T).mean(0), 1 / 3, atol=0.04)  # clusters are drawn equally
    assert ((W > 0).sum(1) > 1).any()


def test_studentising_is_what_a_loop_over_samples_does() -> None:
    x, label = values(6, 2, 3)
    found = studentised(x, label, 0.9, 400, 7)
    slots = (nested_draws(label, 400, np.random.default_rng(7)) @ x).reshape(400, 6, 3)
    center = cluster_means(x, label).mean(0)
    t = [np.abs(s.mean(0) - center) / (s.std(0, ddof=1) / 6**0.5) for s in slots]
    np.testing.assert_allclose(found, np.quantile(t, 0.9, axis=0, method="higher"))


def test_few_clusters_are_left_to_student() -> None:
    x, label = values(4)
    np.testing.assert_allclose(mean_interval(x, label, 0.95, "bootstrap"), mean_interval(x, label, 0.95, "t"))
    assert method_used(4, "bootstrap", 9) == "Student t"
    assert method_used(8, "bootstrap", 9) == "hierarchical bootstrap, studentised, 9 draws"
    assert method_used(8, "auto", 9, "paired ") == "paired Student t"


def test_what_never_varies_has_an_interval_of_no_width() -> None:
    same = np.ones((8, 2))
    for method in ("t", "bootstrap", "percentile"):
        np.testing.assert_allclose(interval(same, 0.95, method, 100, 0), np.ones((3, 2)))


def test_bounded_intervals_stay_inside_and_are_fishers_for_cosines() -> None:
    plain = Interval(np.array([0.9, 0.5, 1.0]), np.array([0.7, 0.4, 1.0]), np.array([1.1, 0.6, 1.0]))
    value, low, high = within(plain, -1.0, 1.0)
    z, d = np.arctanh(0.9), 0.2 / (1 - 0.81)
    assert (low[0], high[0]) == pytest.approx((np.tanh(z - d), np.tanh(z + d)))
    assert ((low >= -1) & (high <= 1) & (low <= value) & (value <= high)).all()
    assert (low[2], high[2]) == (1, 1)
    open_ended = within(Interval(np.array(0.3), np.array(-np.inf), np.array(np.inf)), 0.0, 1.0)
    assert (open_ended.low, open_ended.high) == (0, 1)


def test_one_cell_needs_students_reach_and_many_need_more() -> None:
    rng = np.random.default_rng(0)
    one = rng.standard_normal((8, 1))
    assert simultaneous(one, 0.95, 20000) == pytest.approx(t_quantile(8, 0.95), rel=0.03)
    assert simultaneous(np.tile(one, 50), 0.95, 20000) == pytest.approx(t_quantile(8, 0.95), rel=0.03)
    many = simultaneous(rng.standard_normal((16, 50)), 0.95, 4000)
    assert t_quantile(16, 0.95) * 1.3 < many < t_quantile(16, 1 - 0.05 / 50) * 1.03
    assert simultaneous(rng.standard_normal((60, 1)), 0.95, 20000) == pytest.approx(1.96, rel=0.03)
    assert simultaneous(np.ones((8, 3)), 0.95) == t_quantile(8, 0.95)


def test_p_values_are_those_of_scipy_and_adjusted_ones_too() -> None:
    x = np.random.default_rng(0).standard_normal((9, 20)) + np.linspace(0, 1.5, 20)
    p = p_values(x)
    np.testing.assert_allclose(p, stats.ttest_1samp(x, 0).pvalue)
    np.testing.assert_allclose(false_discovery(p.reshape(4, 5)).ravel(), stats.false_discovery_control(p))
    gaps = np.append(p, np.nan)
    assert np.isnan(false_discovery(gaps)[-1])
    np.testing.assert_allclose(false_discovery(gaps)[:-1], stats.false_discovery_control(p))
    assert p_values(np.zeros((3, 1))) == 1
    assert np.isnan(p_values(x[:1])).all()


def test_holms_p_values_are_those_of_testing_every_intersection() -> None:
    """Holm's is the closed test of Bonferroni's: of all sets that contain a cell, the largest corrected minimum."""
    rng = np.random.default_rng(3)
    for m in (1, 2, 6):
        p = rng.random(m) ** 2
        sets = [s for size in range(1, m + 1) for s in combinations(range(m), size)]
        closed = [max(min(len(s) * p[list(s)].min(), 1) for s in sets if i in s) for i in range(m)]
        np.testing.assert_allclose(holm(p), closed)
    np.testing.assert_allclose(holm(np.array([0.1, 0.01, 0.022, 0.09, 0.02])), [0.18, 0.05, 0.08, 0.18, 0.08])
    table = holm(np.array([[0.01, np.nan], [0.04, 0.03]]))
    np.testing.assert_allclose(table, [[0.03, np.nan], [0.06, 0.06]])
    assert len(holm(np.array([]))) == 0


def test_holm_claims_nothing_wrongly_as_often_as_promised_and_finds_more_than_bonferroni() -> None:
    rng = np.random.default_rng(4)
    true = np.arange(8) < 3
    draws = rng.standard_normal((4000, 8, 10)) + rng.standard_normal((4000, 1, 10))
    p = stats.ttest_1samp(draws + 1.6 * true[:, None], 0, axis=2).pvalue
    claimed = np.array([holm(row) for row in p]) < 0.05
    assert claimed[:, ~true].any(1).mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 4000)
    assert claimed[:, true].mean() > (p[:, true] < 0.05 / 8).mean()
    assert (p[:, ~true] < 0.05).any(1).mean() > 0.1
