"""Small multiples: a panel per signal, its shares with their intervals, over the steps."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import LineCollection, PolyCollection

from spectra.analysis import mean_over_prompts, shares
from spectra.bands import FilterBank
from spectra.errors import UserError
from spectra.plots import multiples
from spectra.plots.style import short
from tests.spectra.plots.reading import refuse_collisions, words
from tests.spectra.synthetic import synthetic_cube


@pytest.fixture(scope="module")
def cube() -> xr.Dataset:
    return synthetic_cube(prompts=4, seeds=2, steps=12)


def test_each_signal_has_a_panel_whose_lines_are_its_mean_shares(cube: xr.Dataset) -> None:
    figure = multiples(cube)
    assert len(figure.axes) == cube.sizes["signal"]
    for ax, signal in zip(figure.axes, cube.signal.values, strict=True):
        expected = mean_over_prompts(shares(cube, str(signal))).value.transpose("band", "step").values
        for line, row in zip(ax.lines, expected, strict=True):
            np.testing.assert_allclose(line.get_ydata(), row[np.isfinite(row)])
        assert sum(isinstance(part, PolyCollection) for part in ax.collections) == cube.sizes["band"]


@pytest.mark.parametrize(("prompts", "seeds", "lines"), [(1, 1, 0), (1, 2, 2), (2, 3, 2), (3, 1, 3), (4, 2, 0)])
def test_few_prompts_have_a_thin_line_each_instead_of_a_ribbon(prompts: int, seeds: int, lines: int) -> None:
    """Of a single prompt it is the runs."""
    for ax in multiples(synthetic_cube(prompts, seeds, steps=6)).axes:
        thin = [len(part.get_segments()) for part in ax.collections if isinstance(part, LineCollection)]
        assert thin == [lines] * 4 * bool(lines)
        assert any(isinstance(part, PolyCollection) for part in ax.collections) == (prompts >= 4)


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


@pytest.mark.parametrize("kind", ["flow", "variance preserving", "exploding", "data"])
def test_every_step_has_its_place_whatever_the_noise_levels(cube: xr.Dataset, kind: str) -> None:
    """Of a variance-preserving model most levels are close to 1, and of an exploding one close to 0."""
    b = cube.noise_level.values
    levels = {"flow": b, "variance preserving": b**0.1, "exploding": 157 * b**7, "data": b**0.1}[kind]
    there = cube.assign_coords(noise_level=("step", levels))
    figure = multiples(there.assign_attrs(sampler="forward") if kind == "data" else there)
    for ax in figure.axes:
        assert all(line.get_xdata().tolist() == list(range(len(line.get_xdata()))) for line in ax.lines)
        assert ax.get_xlim() == (0, 12)
    assert figure.axes[0].get_xlabel() == ("noise level" if kind == "data" else "step, noise level below")
    refuse_collisions(figure)


def test_levels_close_to_one_are_told_apart() -> None:
    assert [short(level) for level in (1.0, 0.9987, 0.966, 0.5, 0.0, 157.4)] == [
        "1",
        "0.999",
        "0.966",
        "0.5",
        "0",
        "157",
    ]


def test_what_is_missing_is_said(cube: xr.Dataset) -> None:
    gone = cube.assign(energy=cube.energy.where(cube.signal != "eps"))
    assert "not available in these runs" in words(multiples(gone))
    with pytest.raises(UserError, match="no complete run"):
        multiples(cube.isel(run=[]))
