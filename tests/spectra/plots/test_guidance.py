"""What guidance adds, drawn from the recorded pairs."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from spectra.analysis import mean_over_prompts
from spectra.errors import UserError
from spectra.guidance import cosine, guidance_energy, optimal_scale
from spectra.plots import guidance
from tests.spectra.plots.reading import refuse_collisions, words
from tests.spectra.synthetic import synthetic_cube


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """Guided runs of the analytic model."""
    from spectra.probe import probe

    store: Path = tmp_path_factory.mktemp("guided") / "cube.zarr"
    signals = ("latent", "x0", "cond", "uncond", "guidance")
    return probe("gaussian:2x8x8", ["one", "two", "three"], [0, 1], 6, store, guidance_scale=3.0, signals=signals)


def test_the_lines_are_the_means_over_prompts(cube: xr.Dataset) -> None:
    first, second, third = guidance(cube).axes
    for ax, values in ((first, cosine(cube)), (second, optimal_scale(cube))):
        expected = mean_over_prompts(values.isel(step=slice(-1))).value.values
        np.testing.assert_allclose(ax.lines[-1].get_ydata(), expected)
    energy = guidance_energy(cube).isel(step=slice(-1))
    expected = mean_over_prompts(energy.sel(rule="cfg")).value.transpose("band", "step").values
    solid = [line.get_ydata() for line in third.lines if line.get_linestyle() == "-"]
    drawn = np.isfinite(solid)
    assert drawn.mean() > 0.8
    np.testing.assert_allclose(np.array(solid)[drawn], expected[drawn])


def test_differences_below_the_rounding_of_the_velocities_are_not_drawn(cube: xr.Dataset) -> None:
    """Not even where they come out as 0 or less, which has no place on a logarithmic axis."""
    pairs = cube.agreement.copy()
    pairs[{"band": 0, "step": slice(3, None)}] = 5.0  # cond is uncond there
    third = guidance(cube.assign(agreement=pairs)).axes[2]
    assert np.isfinite(third.lines[0].get_ydata()).tolist() == [True] * 3 + [False] * 3
    assert len(third.texts) == cube.sizes["band"]  # each line is named, where it ends
    nothing = guidance(cube.assign(agreement=cube.agreement * 0 + 1))
    assert "told from rounding" in words(nothing)


def test_the_lower_panel_says_what_it_counts(cube: xr.Dataset) -> None:
    said = guidance(cube).axes[2].get_ylabel().split()
    assert " ".join(said) == "power of the difference of velocities, channels summed, per run"


def test_no_word_leaves_the_page_or_covers_another(cube: xr.Dataset) -> None:
    refuse_collisions(guidance(cube))


def test_without_the_two_predictions_there_is_a_sentence_and_the_reason(cube: xr.Dataset) -> None:
    with pytest.raises(UserError, match="probe with guidance"):
        guidance(synthetic_cube(2, 1, 4))
    lost = cube.assign(agreement=cube.agreement * np.nan).assign_coords(
        split=("run", np.full(cube.sizes["run"], "guidance is rescaled", object))
    )
    with pytest.raises(UserError, match="guidance is rescaled"):
        guidance(lost)
