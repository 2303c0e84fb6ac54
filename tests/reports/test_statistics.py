"""The intervals of the report, against other ways to the same numbers and against known truths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.statistics import (
    Array,
    corrected,
    geometric_mean,
    mean_distance,
    ratio_of_means,
    spread,
    steps_to,
)
from spectra.analysis import paired_difference
from spectra.analysis.statistics import holm


def test_with_one_seed_the_interval_is_students_t_over_samples() -> None:
    table = np.random.default_rng(0).normal(size=(1, 12))
    other = paired_difference(table[0], np.zeros(12), method="t")
    assert spread(table) == pytest.approx(other.high - other.value)


def test_with_one_sample_the_interval_is_students_t_over_seeds() -> None:
    table = np.random.default_rng(1).normal(size=(5, 1))
    other = paired_difference(table[:, 0], np.zeros(5), method="t")
    assert spread(table) == pytest.approx(other.high - other.value)


def test_a_single_cell_has_no_interval_and_equal_cells_have_none_of_width() -> None:
    assert np.isnan(spread(np.ones((1, 1))))
    assert spread(np.ones((3, 4))) == 0


def crossed(rng: np.random.Generator, seeds: int, samples: int, parts: tuple[float, float, float]) -> Array:
    """Random effects of seeds, samples and both, with mean zero."""
    a, b, c = parts
    return np.asarray(
        a * rng.normal(size=(seeds, 1)) + b * rng.normal(size=(1, samples)) + c * rng.normal(size=(seeds, samples))
    )


@pytest.mark.parametrize("parts", [(1.0, 0.0, 3.0), (0.0, 1.0, 1.0), (0.3, 2.0, 2.0), (0.05, 2.0, 1.0)])
@pytest.mark.parametrize("seeds", [3, 5])
def test_intervals_cover_what_they_promise_with_few_seeds(seeds: int, parts: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(2)
    tables = [crossed(rng, seeds, 24, parts) for _ in range(600)]
    covered = np.mean([abs(table.mean()) < spread(table) for table in tables])
    assert 0.90 < covered < 0.99


def test_drawing_seeds_and_then_samples_within_them_would_cover_far_too_little() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(150):
        table = crossed(rng, 5, 24, (0.05, 2.0, 1.0))
        seed, sample = rng.integers(5, size=(200, 5, 1)), rng.integers(24, size=(200, 5, 24))
        low, high = np.quantile(table[seed, sample].mean(axis=(1, 2)), [0.025, 0.975])
        covered += low < 0 < high
    assert covered / 150 < 0.8


positive = st.lists(st.floats(0.1, 10), min_size=12, max_size=12).map(lambda v: np.array(v).reshape(3, 4))


@given(positive, positive, st.floats(0.01, 100))
def test_a_ratio_of_means_knows_no_unit_and_turns_over(a: Array, b: Array, unit: float) -> None:
    there, scaled, back = ratio_of_means(a, b, "x"), ratio_of_means(unit * a, unit * b, "x"), ratio_of_means(b, a, "x")
    assert scaled.value == pytest.approx(there.value)
    assert scaled.low == pytest.approx(there.low, rel=1e-6)
    assert back.value == pytest.approx(1 / there.value)
    assert back.low == pytest.approx(1 / there.high, rel=1e-6)


def test_a_ratio_of_means_is_no_mean_of_ratios() -> None:
    a, b = np.array([[1.0, 9.0]]), np.array([[2.0, 3.0]])
    assert ratio_of_means(a, b, "x").value == pytest.approx(2.0)


def test_equal_arms_do_not_differ() -> None:
    table = np.random.default_rng(4).lognormal(size=(3, 5))
    same = ratio_of_means(table, table, "x")
    assert (same.value, same.low, same.high, same.differs) == (1.0, 1.0, 1.0, False)


def test_a_geometric_mean_over_one_seed_has_no_interval() -> None:
    one = geometric_mean(np.array([0.5]), 8, "x")
    assert one.value == 0.5
    assert not one.bounded
    assert one.to_dict()["low"] is None


def test_a_geometric_mean_takes_halves_and_doubles_for_equal() -> None:
    both = geometric_mean(np.array([0.5, 2.0]), 8, "x")
    assert both.value == pytest.approx(1.0)
    assert both.low < 1 < both.high


def test_steps_to_a_target_are_linear_between_evaluations() -> None:
    steps, errors = np.array([0.0, 100.0, 200.0]), np.array([1.0, 0.6, 0.5])
    assert steps_to(steps, errors, 0.8) == pytest.approx(50)
    assert steps_to(steps, errors, 0.5) == pytest.approx(200)
    assert steps_to(steps, errors, 2.0) == 0
    assert np.isnan(steps_to(steps, errors, 0.4))


def test_the_resolution_is_what_shows_four_times_in_five() -> None:
    ones = np.ones((1, 16))
    tables = np.exp(0.1 * np.random.default_rng(5).normal(size=(400, 1, 16)))
    resolution = np.mean([ratio_of_means(table, ones, "x").resolution for table in tables])
    seen = np.mean([ratio_of_means(table * np.exp(resolution), ones, "x").differs for table in tables])
    assert 0.75 < seen < 0.87


def test_in_a_family_only_a_larger_difference_would_show() -> None:
    table = np.random.default_rng(6).lognormal(0, 0.1, (1, 16))
    alone = ratio_of_means(table, np.ones((1, 16)), "x")
    among = corrected([alone] * 5)
    assert among[0].resolution > alone.resolution
    assert among[0].p_corrected == pytest.approx(min(1, 5 * alone.p))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holms_correction_is_the_sequential_test(values: list[float]) -> None:
    p = np.array(values)
    adjusted = holm(p)
    for level in (0.01, 0.05, 0.2):
        rejected: set[int] = set()
        for rank, i in enumerate(np.argsort(p, kind="stable")):  # Holm (1979): stop at the first that is kept
            if p[i] * (len(p) - rank) > level:
                break
            rejected.add(int(i))
        assert set(np.flatnonzero(adjusted <= level).tolist()) == rejected


def test_what_has_no_p_is_left_out_of_the_family() -> None:
    np.testing.assert_allclose(holm(np.array([0.01, np.nan, 0.04])), [0.02, np.nan, 0.04])


def test_the_p_of_a_ratio_agrees_with_its_interval() -> None:
    rng = np.random.default_rng(7)
    for shift in np.linspace(0.9, 1.1, 21):
        a, b = shift * rng.lognormal(0, 0.1, (3, 6)), rng.lognormal(0, 0.1, (3, 6))
        ratio = ratio_of_means(a, b, "x")
        assert (ratio.p < 0.05) == ratio.differs


def test_a_spectral_distance_covers_the_truth() -> None:
    rng, truth = np.random.default_rng(8), np.array([0.5, -0.3, 0.2, 0.4])
    covered = []
    for _ in range(400):
        b = rng.lognormal(0, 0.5, (1, 24, 4))
        a = b * np.exp(truth) * rng.lognormal(0, 0.2, (1, 24, 4)) / np.exp(0.02)
        found = mean_distance(a, b, "x")
        covered.append(found.low <= np.abs(truth).mean() <= found.high)
    assert 0.91 < np.mean(covered) < 0.98


def test_the_distance_of_equal_energies_is_zero_and_of_one_picture_has_no_interval() -> None:
    energy = np.random.default_rng(9).lognormal(size=(3, 6, 4))
    same = mean_distance(energy, energy, "x")
    assert (same.value, same.low, same.high) == (0, 0, 0)
    single = mean_distance(energy[:1, :1], 2 * energy[:1, :1], "x")
    assert single.value == pytest.approx(np.log(2))
    assert np.isinf(single.high)
