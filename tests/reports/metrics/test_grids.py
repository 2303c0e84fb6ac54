"""Cell by cell: ratios per noise level and band, with intervals for each and for all."""

from __future__ import annotations

import numpy as np
import pytest

from reports.metrics import band_grid, validation_grid
from reports.statistics import ratio_of_means
from spectra.errors import UserError
from tests.reports.metrics.fixtures import evaluation

DATA = evaluation(2, 8, levels=6)


def test_cells_are_ratios_of_mean_errors_with_about_students_interval() -> None:
    grid = validation_grid(DATA, "fera-0", "base")
    errors = DATA.validation_error.values
    for level in range(6):
        a, b = (errors[k, level].mean(1)[None] for k in (1, 0))
        known = ratio_of_means(a, b, "x")
        assert grid.value.values[level] == pytest.approx(known.value)
        assert np.log(grid.high / grid.value).values[level] == pytest.approx(np.log(known.high / known.value), rel=0.3)
    assert (grid.value.values > 0.68).all()
    assert (grid.p_adjusted.values < 0.001).all()
    assert grid.noise_level.values == pytest.approx(DATA.noise_level.values)
    assert grid.attrs["n"] == 24


def test_intervals_for_all_cells_are_wider_and_p_values_larger() -> None:
    for grid in (validation_grid(DATA, "fera-0", "lora-1", bands=True), band_grid(DATA, "fera-0", "lora-1")):
        assert (grid.high_all >= grid.high * 0.999).all()
        assert (grid.low_all <= grid.low * 1.001).all()
        assert (grid.p_adjusted >= grid.p_value).all()
        assert (grid.low_all <= 1).any()


def test_bands_and_levels_keep_their_labels() -> None:
    both = validation_grid(DATA, "fera-0", "base", bands=True)
    assert both.value.dims == ("level", "band")
    assert {"frequency", "noise_level", "scale_low"} <= set(both.coords)
    energy = band_grid(DATA, "fera-0", "base")
    rows = (DATA.part == "asked").values
    means = DATA.energy.values[:2][:, rows].sum(2).mean(1)
    assert energy.value.values == pytest.approx(means[1] / means[0], rel=1e-5)


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="no adapter 'x'"):
        validation_grid(DATA, "x", "base")
    with pytest.raises(UserError, match="no validation_error"):
        validation_grid(evaluation(1, 2, validation=False), "fera-0", "base")
    empty = DATA.assign(energy=DATA.energy * 0)
    with pytest.raises(UserError, match="above zero"):
        band_grid(empty, "fera-0", "base")
