"""Power of paired studies: against tables, simulation, and itself turned round."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, ttest_1samp

from spectra.analysis.power import chance, detectable, needed, power
from spectra.errors import UserError


@pytest.mark.parametrize(("effect", "n"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_numbers_are_those_of_the_tables_for_the_one_sample_t_test(effect: float, n: int) -> None:
    """Two-sided, 5 %, power 80 %: what G*Power and R's power.t.test give."""
    assert needed(effect, 1.0) == n


def test_a_difference_is_found_as_often_in_simulated_studies() -> None:
    rng = np.random.default_rng(0)
    for n, difference, sd, confidence in ((5, 1.0, 0.8, 0.95), (16, 0.3, 0.5, 0.95), (16, -0.6, 0.5, 0.999)):
        studies = rng.normal(difference, sd, (n, 20_000))
        found = (ttest_1samp(studies, 0).pvalue < 1 - confidence).mean()
        assert chance(difference, sd, n, confidence) == pytest.approx(found, abs=4 * np.sqrt(0.25 / 20_000))


def test_without_a_difference_a_study_finds_one_as_often_as_it_is_allowed_to() -> None:
    assert chance(0.0, 1.0, 7, 0.9) == pytest.approx(0.1)
    assert chance(0.0, 0.0, 7, 0.9) == pytest.approx(0.1)


@given(st.floats(0.01, 100), st.integers(2, 400), st.sampled_from([0.9, 0.95, 0.9995]), st.floats(0.2, 0.99))
def test_the_detectable_difference_has_the_power_asked_for(sd: float, n: int, confidence: float, share: float) -> None:
    assert chance(detectable(sd, n, confidence, share), sd, n, confidence) == pytest.approx(share, abs=1e-6)


@given(st.floats(0.1, 5), st.integers(3, 500))
def test_the_number_needed_is_the_first_that_suffices(sd: float, n: int) -> None:
    difference = detectable(sd, n) * (1 + 1e-6)
    assert needed(difference, sd) == n
    assert chance(difference, sd, n - 1) < 0.8


def test_many_clusters_come_close_to_the_normal_rule() -> None:
    rule = (norm.ppf(0.975) + norm.ppf(0.8)) / np.sqrt(2000)
    assert detectable(1.0, 2000) == pytest.approx(rule, rel=2e-3)


def test_power_takes_the_spread_of_a_study_to_another_size() -> None:
    x = np.random.default_rng(1).normal(3, 2, 12)
    assert power(x) == pytest.approx(detectable(float(x.std(ddof=1)), 12))
    assert power(x + 5, 48) == pytest.approx(detectable(float(x.std(ddof=1)), 48))


def test_one_cluster_shows_nothing_and_no_spread_shows_everything() -> None:
    assert np.isposinf(detectable(1.0, 1))
    assert chance(5.0, 1.0, 1) == 0
    assert detectable(0.0, 4) == 0
    assert chance(1e-9, 0.0, 4) == 1
    assert needed(0.1, 0.0) == 2


@pytest.mark.parametrize(
    ("values", "n", "words"),
    [([1.0], None, "at least two"), ([1.0, np.nan], None, "finite"), ([1.0, 2.0], 0, "cluster")],
)
def test_what_is_no_study_is_refused(values: list[float], n: int | None, words: str) -> None:
    with pytest.raises(UserError, match=words):
        power(values, n)


def test_no_study_shows_nothing_at_all_or_next_to_nothing() -> None:
    with pytest.raises(UserError, match="difference of zero"):
        needed(0.0, 1.0)
    with pytest.raises(UserError, match="more than 1000000"):
        needed(1e-6, 1.0)
