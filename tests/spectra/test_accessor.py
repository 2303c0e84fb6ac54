"""`cube.spectra`: one thin door to every analysis."""

import numpy as np
import pytest
import xarray as xr

import spectra.accessor  # noqa: F401
from spectra import analysis
from spectra.bands import FilterBank
from spectra.errors import UserError
from spectra.gaussian import GaussianField, flow_levels
from tests.spectra.synthetic import gaussian_cube


@pytest.fixture(scope="module")
def cube() -> xr.Dataset:
    field = GaussianField.power_law((2, 16, 16), 2.0)
    return gaussian_cube(field, flow_levels(np.linspace(1, 0, 11)), bank=FilterBank.octaves(4, (16, 16)), runs=8)


def test_every_analysis_is_reached_and_gives_what_its_function_gives(cube: xr.Dataset) -> None:
    other = FilterBank((1.0, 2.0))
    pairs = {
        "shares": (cube.spectra.shares("x0"), analysis.shares(cube, "x0")),
        "mean_shares": (cube.spectra.mean_shares(), analysis.mean_over_prompts(analysis.shares(cube))),
        "coherence": (cube.spectra.coherence(), analysis.coherence(cube)),
        "mean_coherence": (cube.spectra.mean_coherence(), analysis.mean_over_prompts(analysis.coherence(cube))),
        "relative": (cube.spectra.relative(), analysis.relative(cube)),
        "emergence": (cube.spectra.emergence(0.7, by="coherence"), analysis.emergence(cube, 0.7)),
        "slope": (cube.spectra.slope("latent"), analysis.slope(cube, "latent")),
        "discretisation": (cube.spectra.discretisation(), analysis.discretisation(cube)),
        "compare": (cube.spectra.compare(cube, of="means", n=50), analysis.compare(cube, cube, of="means", n=50)),
        "reband": (cube.spectra.reband(other), analysis.reband(cube, other)),
        "mean": (cube.spectra.mean(cube.energy), analysis.mean_over_prompts(cube.energy)),
    }
    for found, expected in pairs.values():
        xr.testing.assert_identical(found, expected)
    public = {name for name in dir(type(cube.spectra)) if not name.startswith("_")}
    assert public == set(pairs)


def test_the_accessor_is_made_once_per_cube(cube: xr.Dataset) -> None:
    assert cube.spectra is cube.spectra
    assert cube.spectra.bank == FilterBank.octaves(4, (16, 16))
    assert cube.spectra.grid == (16, 16)


def test_options_of_intervals_pass_through(cube: xr.Dataset) -> None:
    wide, narrow = (cube.spectra.mean_shares(confidence=c) for c in (0.99, 0.5))
    assert ((wide.low < narrow.low) & (narrow.high < wide.high)).isel(step=3).all()
    assert "bootstrap" in cube.spectra.mean_shares(method="bootstrap", n=50).attrs["method"]


def test_it_says_what_it_holds_and_can_do(cube: xr.Dataset) -> None:
    assert repr(cube.spectra).startswith(
        "<spectra of a cube: 8 runs, 11 steps, 2 signals, 4 bands; coherence, compare, "
    )


def test_other_datasets_are_told_what_is_missing(cube: xr.Dataset) -> None:
    with pytest.raises(UserError, match=r"no energy.*open one with open_cube"):
        _ = xr.Dataset({"x": 1}).spectra
    with pytest.raises(UserError, match="does not say its bank"):
        _ = cube.drop_attrs().spectra
