"""Distances of energies: logs of ratios, whatever the unit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.metrics.spectral import log_distance, log_ratio, without_each
from spectra.errors import UserError

energies = st.lists(st.floats(1e-3, 1e3), min_size=4, max_size=4).map(np.array)


def test_twice_the_energy_in_every_band_is_log_two_away() -> None:
    reference = np.array([1.0, 0.5, 3.0])
    assert log_distance(2 * reference, reference) == pytest.approx(np.log(2))
    assert log_distance(reference / 2, reference) == pytest.approx(np.log(2))
    assert log_distance(reference * [2, 1, 0.5], reference) == pytest.approx(2 / 3 * np.log(2))


@given(energies, energies, energies, st.floats(0.01, 100))
def test_the_distance_is_a_metric_without_a_unit(a: np.ndarray, b: np.ndarray, c: np.ndarray, unit: float) -> None:
    assert log_distance(a, a) == 0
    assert log_distance(a, b) == pytest.approx(log_distance(b, a))
    assert log_distance(a, c) <= log_distance(a, b) + log_distance(b, c) + 1e-12
    assert log_distance(unit * a, unit * b) == pytest.approx(log_distance(a, b), abs=1e-12)


def test_empty_bands_have_no_log() -> None:
    with pytest.raises(UserError, match="above zero"):
        log_ratio(np.array([1.0, 0.0]), np.array([1.0, 1.0]))


def test_means_without_each_are_those_of_the_others() -> None:
    x = np.random.default_rng(0).normal(size=(5, 3))
    assert without_each(x) == pytest.approx(np.stack([np.delete(x, i, 0).mean(0) for i in range(5)]))
