"""The picture of a comparison: colours are log ratios, and cells without a shown difference are hatched."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import PolyCollection, QuadMesh

from spectra.analysis import compare
from spectra.bands import FilterBank
from spectra.plots import heatmap
from spectra.plots.heatmap import ratio
from tests.spectra.plots.reading import refuse_collisions, words
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


def limits(compared: xr.Dataset) -> list[float]:
    axes = heatmap(compared).axes
    return [part.get_clim()[1] for ax in axes for part in ax.collections if isinstance(part, QuadMesh)]


def test_each_signal_has_its_own_scale_with_readable_ends(compared: xr.Dataset) -> None:
    """A signal that differs by a factor of 150 leaves the colours of the others as they were."""
    loud = compared.signal == "eps"
    other = compared.assign(value=compared.value.where(~loud, np.log(150)))
    before, after = limits(compared), limits(other)
    names = list(compared.signal.values)
    assert after[names.index("eps")] == pytest.approx(np.log(150))
    assert all(a == b for name, a, b in zip(names, before, after, strict=True) if name != "eps")
    shown = words(heatmap(other))
    assert "×150" in shown
    assert "÷150" in shown
    assert "e+" not in shown


def test_a_cell_far_beyond_all_others_is_cut_off_and_marked(compared: xr.Dataset) -> None:
    value = compared.value.where(compared.value.isnull(), 0.05).copy()
    value.loc[{"signal": "x0", "step": 3, "band": 1}] = 9.6
    figure = heatmap(compared.assign(value=value))
    place = list(compared.signal.values).index("x0")
    ax = figure.axes[place]
    assert limits(compared.assign(value=value))[place] == pytest.approx(0.05)
    dots = [line.get_xydata().tolist() for line in ax.lines]
    assert dots == [[[3.0, 1.0]]]
    assert words(figure).count("from +5.1 %") == 1
    assert "from −" not in words(figure)
    assert "beyond the ends" in words(figure)
    assert "beyond the ends" not in words(heatmap(compared))
    refuse_collisions(figure)


@pytest.mark.parametrize(
    ("factor", "said"),
    [(1.05, "+5 %"), (0.8, "−20 %"), (1.99, "+99 %"), (2, "×2"), (0.5, "÷2"), (2.54, "×2.5"), (153, "×150"),
     (1 / 153, "÷150"), (15200, "×15000"), (3e6, "×3·10⁶"), (1.996, "×2"), (1e-12, "÷10¹²")],
)  # fmt: skip
def test_ratios_are_per_cent_up_to_two_and_factors_from_there_on(factor: float, said: str) -> None:
    assert ratio(np.log(factor)) == said
