"""Small multiples: a panel per signal, its shares with their intervals, over the noise level."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import PolyCollection

from spectra.analysis import mean_over_prompts, shares
from spectra.bands import FilterBank
from spectra.errors import UserError
from spectra.plots import multiples
from tests.spectra.plots.reading import refuse_collisions, words
from tests.spectra.synthetic import synthetic_cube


@pytest.fixture(scope="module")
def cube() -> xr.Dataset:
    return synthetic_cube(prompts=3, seeds=2, steps=12)


def test_each_signal_has_a_panel_whose_lines_are_its_mean_shares(cube: xr.Dataset) -> None:
    figure = multiples(cube)
    assert len(figure.axes) == cube.sizes["signal"]
    for ax, signal in zip(figure.axes, cube.signal.values, strict=True):
        expected = mean_over_prompts(shares(cube, str(signal))).value.transpose("band", "step").values
        for line, row in zip(ax.lines, expected, strict=True):
            np.testing.assert_allclose(line.get_ydata(), row[np.isfinite(row)])
        assert sum(isinstance(part, PolyCollection) for part in ax.collections) == cube.sizes["band"]


def test_a_single_prompt_has_no_ribbon() -> None:
    figure = multiples(synthetic_cube(prompts=1, seeds=2, steps=6))
    assert not any(ax.collections for ax in figure.axes)


@pytest.mark.parametrize("bands", [1, 2, 5, 8])
def test_no_word_leaves_the_page_or_covers_another(bands: int) -> None:
    refuse_collisions(multiples(synthetic_cube(prompts=2, seeds=1, steps=8, bank=FilterBank.octaves(bands, (16, 16)))))


def test_names_of_bands_stay_beside_their_panel(cube: xr.Dataset) -> None:
    """Where one band has everything, the names of the others would push its own out at the top."""
    alone = cube.assign(energy=cube.energy.where(cube.band == 3, 0))
    for ax in multiples(alone).axes:
        heights = [text.get_position()[1] for text in ax.texts]
        assert len(heights) == 4
        assert min(heights) > 0
        assert max(heights) < 1


def test_exploding_variance_is_brought_to_unit_variance(cube: xr.Dataset) -> None:
    a, b = cube.signal_level.values, cube.noise_level.values
    exploding = cube.assign_coords(signal_level=("step", np.ones_like(a)), noise_level=("step", 15 * b))
    found = multiples(exploding).axes[0].lines[0].get_xdata()
    np.testing.assert_allclose(found, 15 * b / np.hypot(1, 15 * b))
    assert "unit variance" in words(multiples(exploding))


def test_what_is_missing_is_said(cube: xr.Dataset) -> None:
    gone = cube.assign(energy=cube.energy.where(cube.signal != "eps"))
    assert "not available in these runs" in words(multiples(gone))
    with pytest.raises(UserError, match="no complete run"):
        multiples(cube.isel(run=[]))
