"""The picture of a comparison: colours are log ratios, and cells without a shown difference are hatched."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import PolyCollection, QuadMesh

from spectra.analysis import compare
from spectra.bands import FilterBank
from spectra.plots import heatmap
from tests.spectra.plots.reading import refuse_collisions
from tests.spectra.synthetic import synthetic_cube


@pytest.fixture(scope="module")
def compared() -> xr.Dataset:
    return compare(synthetic_cube(4, 2, 8, tilt=0.05), synthetic_cube(4, 2, 8))


def test_the_colours_are_the_log_ratios(compared: xr.Dataset) -> None:
    axes = heatmap(compared).axes
    for ax, signal in zip(axes, compared.signal.values, strict=False):
        (mesh,) = (part for part in ax.collections if isinstance(part, QuadMesh))
        expected = compared.value.sel(signal=signal).transpose("band", "step").values
        np.testing.assert_allclose(np.ma.filled(mesh.get_array(), np.nan).reshape(expected.shape), expected)
        assert mesh.get_clim()[0] == -mesh.get_clim()[1]


def test_exactly_the_cells_that_include_no_difference_are_hatched(compared: xr.Dataset) -> None:
    for ax, signal in zip(heatmap(compared).axes, compared.signal.values, strict=False):
        part = compared.sel(signal=signal)
        unsure = np.isfinite(part.value) & (part.low_all <= 0) & (part.high_all >= 0)
        (hatched,) = (one for one in ax.collections if type(one) is PolyCollection)
        centres = {tuple(path.get_extents().get_points().mean(0)) for path in hatched.get_paths()}
        assert centres == {(float(s), float(b)) for s, b in np.argwhere(unsure.transpose("step", "band").values)}


@pytest.mark.parametrize("bands", [1, 2, 4, 8])
def test_no_word_leaves_the_page_or_covers_another(bands: int) -> None:
    cube = synthetic_cube(3, 1, 8, bank=FilterBank.octaves(bands, (16, 16)))
    refuse_collisions(heatmap(compare(cube, cube), "a against b", "8 pairs of runs"))


def test_equal_cubes_give_a_picture_too() -> None:
    same = synthetic_cube(2, 1, 4)
    assert heatmap(compare(same, same)).axes
