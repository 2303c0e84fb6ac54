"""Paired comparisons of cubes: what is paired, what is refused, and numbers that are known."""

import json

import numpy as np
import pytest
import xarray as xr

from spectra.analysis.comparison import Of, compare, log_energy_ratio
from spectra.bands import FilterBank
from spectra.errors import UserError
from tests.spectra.synthetic import synthetic_cube


@pytest.fixture(scope="module")
def cube() -> xr.Dataset:
    return synthetic_cube(prompts=3, seeds=2, steps=12)


@pytest.fixture(scope="module")
def pair() -> tuple[xr.Dataset, xr.Dataset]:
    """A cube whose upper frequencies are stronger by 0.1 in log amplitude, and the plain one."""
    tilted, plain = (synthetic_cube(prompts=6, seeds=2, steps=8, tilt=tilt) for tilt in (0.1, 0.0))
    return tilted, plain


def final(cube: xr.Dataset) -> xr.DataArray:
    return cube.energy.sel(signal="latent").isel(step=-1)


@pytest.mark.parametrize("of", ["ratios", "means"])
def test_log_ratio_of_a_scaled_cube_is_exact(cube: xr.Dataset, of: Of) -> None:
    found = log_energy_ratio(final(cube).astype(np.float64) * 1.5, final(cube).astype(np.float64), of)
    for name in ("value", "low", "high"):
        np.testing.assert_allclose(found[name], np.log(1.5), atol=1e-12)
    assert found.value.dims == ("band",)
    assert found.attrs["n"] == 3
    assert "log ratio" in found.attrs["estimand"]


def test_log_ratio_finds_what_changed_and_only_there() -> None:
    """In the linear world of Gaussian fields pairing removes nearly all noise."""
    plain, tilted = (final(synthetic_cube(prompts=5, seeds=2, steps=10, tilt=tilt)) for tilt in (0.0, 0.1))
    found = log_energy_ratio(tilted, plain)
    assert abs(found.value.values[0]) < 0.01
    assert 0.05 < found.low.values[-1] < found.high.values[-1] < 0.2
    assert (found.high - found.low).values[-1] < 0.05


def test_runs_are_paired_by_prompt_and_seed_in_any_order(cube: xr.Dataset) -> None:
    shuffled = final(cube).isel(run=[5, 3, 1, 0, 2, 4])
    np.testing.assert_allclose(log_energy_ratio(shuffled, final(cube)).value, 0, atol=1e-12)
    with pytest.raises(UserError, match="cannot be paired"):
        log_energy_ratio(final(cube), final(cube).isel(run=[0, 1, 2, 3, 4, 4]))
    with pytest.raises(UserError, match="cannot be paired"):
        log_energy_ratio(final(cube), final(cube).isel(run=slice(0, 4)))


def test_the_two_estimands_differ_where_the_ratio_varies() -> None:
    base = xr.DataArray([[1.0], [1.0], [1.0]], dims=("run", "band"))
    double = base * xr.DataArray([1.0, 1.0, 4.0], dims="run")
    assert log_energy_ratio(double, base, "ratios").value.item() == pytest.approx(np.log(4) / 3)
    assert log_energy_ratio(double, base, "means").value.item() == pytest.approx(np.log(2))


def test_log_ratios_of_nothing_are_refused(cube: xr.Dataset) -> None:
    with pytest.raises(UserError, match="above zero"):
        log_energy_ratio(cube.energy.sel(signal="x0"), cube.energy.sel(signal="x0"))


def test_a_comparison_finds_what_changed_and_names_what_it_estimates(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    found = compare(*pair)
    assert found.value.dims == ("step", "signal", "band")
    assert found.attrs["estimand"] == "mean log ratio of energies over prompts, A over B"
    assert found.attrs["method"] == "paired Student t"
    assert (found.attrs["n"], found.attrs["paired"], found.attrs["unpaired_here"]) == (6, 12, 0)
    last = found.sel(signal="latent").isel(step=-1)
    assert 0.08 < last.low[-1] < last.value[-1] < last.high[-1] < 0.2
    assert last.p_adjusted[-1] < 0.001
    expected = log_energy_ratio(*(each.energy.sel(signal="latent").isel(step=-1) for each in pair))
    for name in ("value", "low", "high"):
        np.testing.assert_allclose(last[name], expected[name])
    assert found.sel(signal="x0").isel(step=-1).value.isnull().all()
    assert found.scale_low.dims == ("band",)


def test_intervals_of_all_cells_contain_those_of_one(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    found = compare(*pair).sel(signal="latent").isel(step=slice(1, None))
    assert ((found.low_all <= found.low) & (found.high <= found.high_all)).all()
    assert (found.low_all < found.low).isel(band=-1).all()
    assert (found.p_adjusted >= found.p_value).all()


def test_comparing_the_other_way_round_changes_the_sign(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    there, back = compare(*pair), compare(*pair[::-1])
    np.testing.assert_allclose(there.value, -back.value, atol=1e-12)
    np.testing.assert_allclose(there.low, -back.high, atol=1e-12)


def test_a_cube_does_not_differ_from_itself(cube: xr.Dataset) -> None:
    found = compare(cube, cube.isel(run=[3, 1, 2, 0, 5, 4])).sel(signal="latent")
    assert (found.value == 0).all()
    for name in ("low", "high", "low_all", "high_all"):
        np.testing.assert_allclose(abs(found[name]), found.attrs["resolution"])
    assert (found.p_value == 1).all()


@pytest.mark.parametrize("of", ["ratios", "means"])
@pytest.mark.parametrize(("change", "told_apart"), [(1e-7, False), (4e-7, False), (1e-5, True)])
def test_what_float32_cannot_hold_is_no_difference(cube: xr.Dataset, of: Of, change: float, told_apart: bool) -> None:
    """Another device may be off by the same last bits in every run, without any spread between prompts."""
    found = compare(cube.assign(energy=(cube.energy * (1 + change)).astype(np.float32)), cube, of=of, n=50)
    found = found.isel(step=slice(0, -1))
    assert ((found.low > 0) == told_apart).all()
    assert ((found.low_all > 0) == told_apart).all()
    assert ((found.p_adjusted < 0.05) == told_apart).all()
    assert (abs(found.value) > 0).any()  # it is reported all the same
    assert found.attrs["resolution"] == pytest.approx(4.77e-7, rel=1e-2)


def test_the_resolution_is_that_of_the_numbers_which_were_given(cube: xr.Dataset) -> None:
    exact = final(cube).astype(np.float64)
    assert log_energy_ratio(exact * (1 + 1e-9), exact).low.values.min() > 0
    assert log_energy_ratio(exact, final(cube)).attrs["resolution"] > 1e-7


def test_the_ratio_of_means_is_bootstrapped_and_is_what_it_says(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    found = compare(*pair, of="means", n=200).sel(signal="latent").isel(step=-1)
    a, b = (each.energy.sel(signal="latent").isel(step=-1).sum("channel").mean("run") for each in pair)
    np.testing.assert_allclose(found.value, np.log(a / b), atol=1e-6)
    assert found.attrs["method"] == "paired hierarchical bootstrap, studentised, 200 draws"
    assert "log ratio of mean energies" in found.attrs["estimand"]
    assert ((found.low <= found.value) & (found.value <= found.high)).all()


def test_runs_without_a_partner_are_counted(pair: tuple[xr.Dataset, xr.Dataset]) -> None:
    tilted, plain = pair
    found = compare(tilted.isel(run=slice(0, 9)), plain.isel(run=slice(2, None)))
    assert [found.attrs[name] for name in ("paired", "unpaired_here", "unpaired_there", "n")] == [7, 2, 3, 4]
    expected = compare(tilted.isel(run=slice(2, 9)), plain.isel(run=slice(2, 9)))
    np.testing.assert_allclose(found.value, expected.value)
    with pytest.raises(UserError, match="no run in common"):
        compare(tilted.isel(run=slice(0, 4)), plain.isel(run=slice(4, None)))


def test_runs_that_cannot_be_told_apart_are_refused(cube: xr.Dataset) -> None:
    with pytest.raises(UserError, match=r"other cube has the run .* more than once .*: it was recorded again"):
        compare(cube, xr.concat([cube, cube], "run"))
    guided = cube.assign_coords(guidance_scale=cube.guidance_scale + 2)
    with pytest.raises(UserError, match=r"several runs of .* settings guidance_scale=1; guidance_scale=3: select"):
        compare(cube, xr.concat([cube, guided], "run"))
    with pytest.raises(UserError, match="seed is not known"):
        compare(cube.assign_coords(seed=("run", [-1, *range(5)])), cube)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c.assign_attrs(bank=json.dumps(FilterBank((1.0, 2.0, 3.0)).to_dict())), "bank is .* there"),
        (lambda c: c.assign_attrs(grid="[32, 8]"), r"grid is \[16, 16\] here and \[32, 8\] there"),
        (lambda c: c.isel(step=slice(0, 7)), "steps are 13 here and 7 there"),
        (lambda c: c.isel(channel=[0]), "channels are 4 here and 1 there"),
        (lambda c: c.assign_coords(noise_level=c.noise_level**2), "noise_level differs from entry 1 on"),
        (lambda c: c.assign_coords(signal=np.array(["a", "b", "c", "d"], object)), "no signal in common"),
    ],
)
def test_cubes_that_were_recorded_otherwise_are_refused(cube: xr.Dataset, change, sentence: str) -> None:
    with pytest.raises(UserError, match=f"cannot be compared: .*{sentence}"):
        compare(cube, change(cube))


def test_only_signals_that_both_have_are_compared(cube: xr.Dataset) -> None:
    found = compare(cube.isel(signal=[3, 1]), cube.isel(signal=[0, 1, 2]))
    assert found.signal.values.tolist() == ["x0"]
    np.testing.assert_allclose(found.value.isel(step=slice(0, -1)), 0, atol=1e-12)


def test_other_schedulers_are_named_as_the_reason() -> None:
    one = synthetic_cube(2, 1, 4).assign_attrs(scheduler='{"class": "DDIMScheduler"}')
    other = synthetic_cube(2, 1, 5).assign_attrs(scheduler='{"class": "HeunDiscreteScheduler"}')
    with pytest.raises(UserError, match="the scheduler is DDIMScheduler here and HeunDiscreteScheduler there; steps"):
        compare(one, other)
