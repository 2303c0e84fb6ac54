"""Crossings, and the exact arithmetic behind slopes and discretisation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from spectra.analysis.kernels import band_sums, between, crossing, final_power, first_lasting, log_snr, on_modes
from spectra.bands import FilterBank, radial_spectrum
from spectra.gaussian import GaussianField, flow_levels


def test_a_straight_line_is_crossed_where_it_is() -> None:
    curve = np.stack([np.arange(6.0) - 2.25, np.arange(6.0) + 1, np.arange(6.0) - 9, [-1, 1, -1, 1, 3, 4]], axis=1)
    np.testing.assert_allclose(crossing(curve), [2.25, 0, np.inf, 2.5])
    np.testing.assert_allclose(between(np.arange(6.0) ** 2, crossing(curve)), [5.25, 0, np.nan, 6.5])


@given(arrays(np.float64, (7, 3), elements=st.floats(-2, 2, width=16)))
def test_a_crossing_is_in_the_step_before_the_first_lasting_one(curve: np.ndarray) -> None:
    first, place = first_lasting(curve >= 0), crossing(curve)
    inside = np.isfinite(first)
    np.testing.assert_array_equal(np.isfinite(place), inside)
    assert (place[inside] <= first[inside]).all()
    assert (place[inside] >= np.maximum(first[inside] - 1, 0)).all()


@given(arrays(np.float64, (7, 3), elements=st.floats(-2, 2, width=16)), st.floats(0, 1))
def test_a_higher_curve_crosses_no_later(curve: np.ndarray, lift: float) -> None:
    """So the ends of an interval are in order."""
    assert (crossing(curve + lift) <= crossing(curve) + 1e-9).all()


def test_log_snr_is_infinite_at_the_ends() -> None:
    assert log_snr(np.array([0.0, 0.5, 1.0]), np.array([1.0, 0.5, 0.0])).tolist() == [-np.inf, 0, np.inf]


def test_power_of_bins_on_modes_adds_up_to_the_spectrum() -> None:
    import torch

    x = torch.randn(24, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    spectrum = radial_spectrum(x, 16).numpy()
    modes = on_modes(np.ones(16), (24, 32))
    assert modes.shape == (24, 32)
    power = on_modes(np.arange(16.0), (24, 32))
    sums = [(power == r).sum() for r in range(16)]
    assert sum(sums) == 24 * 32
    assert spectrum.sum() == pytest.approx(float((x**2).sum()))


def test_the_power_of_finished_samples_is_that_of_the_samplers_path() -> None:
    field, levels = GaussianField.power_law((2, 12, 16), 1.5), flow_levels(np.linspace(1, 0, 8))
    bank = FilterBank.octaves(4, (12, 16))
    found = band_sums(final_power(field.variance, lambda one: one.path(levels)), bank)
    np.testing.assert_allclose(found, field.expected_energies(bank, levels, "latent")[-1], rtol=1e-12)
