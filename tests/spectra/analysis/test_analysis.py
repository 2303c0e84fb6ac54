"""Shares, means with intervals, and when bands are decided; coverage is held in `tests/oracles/test_coverage.py`."""

import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from scipy.optimize import brentq

from spectra.analysis import emergence, first_lasting, shares
from spectra.analysis.labels import (
    coherence,
    mean_over_prompts,
    relative,
    select,
    select_runs,
    settings_in_words,
    settings_of,
)
from spectra.bands import FilterBank
from spectra.errors import UserError
from spectra.gaussian import GaussianField, flow_levels
from tests.spectra.synthetic import gaussian_cube, synthetic_cube


@pytest.fixture(scope="module")
def cube() -> xr.Dataset:
    return synthetic_cube(prompts=3, seeds=2, steps=12)


def test_analysis_needs_no_torch() -> None:
    code = (
        "import sys, spectra.accessor as a; a.analysis.paired_difference([1.], [0.]); assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_shares_sum_to_one_and_are_those_of_summed_channels(cube: xr.Dataset) -> None:
    share = shares(cube, "latent")
    assert share.dims == ("run", "step", "band")
    np.testing.assert_allclose(share.sum("band"), 1, rtol=1e-5)
    E = cube.energy.values[1, 3, 0].sum(0)
    np.testing.assert_allclose(share.values[1, 3], E / E.sum(), rtol=1e-5)


def test_shares_of_a_prediction_are_nan_after_the_end_and_of_nothing_zero(cube: xr.Dataset) -> None:
    assert shares(cube, "x0")[:, -1].isnull().all()
    assert not shares(cube, "x0")[:, :-1].isnull().any()
    silent = cube.assign(energy=cube.energy * 0)
    assert (shares(silent, "latent") == 0).all()


def test_frames_are_summed(cube: xr.Dataset) -> None:
    video = cube.assign(energy=xr.concat([cube.energy, cube.energy], "frame"))
    xr.testing.assert_allclose(shares(video, "latent"), shares(cube, "latent"))


def test_an_unknown_signal_is_named_with_what_there_is(cube: xr.Dataset) -> None:
    with pytest.raises(UserError, match="no signal 'noise': it recorded latent, x0"):
        shares(cube, "noise")


def test_a_band_counts_as_decided_only_once_it_stays_so() -> None:
    reached = np.array([[0, 1, 0, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 0]], bool).T
    assert first_lasting(reached).tolist() == [3, 0, np.inf]


def with_coherence(cube: xr.Dataset, first: list[list[int]]) -> xr.Dataset:
    """Coherence 1 from step first[run][band] on."""
    step = np.arange(cube.sizes["step"])
    values = (step[None, :, None] >= np.array(first)[:, None]).astype(np.float32)
    values[:, -1] = np.nan
    return cube.assign(coherence=(("run", "step", "band"), values))


def test_emergence_finds_planted_steps(cube: xr.Dataset) -> None:
    planted = with_coherence(cube, [[0, 3, 5, 11]] * 6)
    found = emergence(planted)
    assert found.step.values.tolist() == [0, 3, 5, 11]
    assert found.low.values.tolist() == found.high.values.tolist() == [0, 3, 5, 11]
    np.testing.assert_allclose(found.noise_level, cube.noise_level[[0, 3, 5, 11]])
    assert "scale_low" in found.coords
    assert found.attrs["n"] == 3


def test_bands_never_decided_are_infinite(cube: xr.Dataset) -> None:
    found = emergence(with_coherence(cube, [[0, 3, 5, 12]] * 6))
    assert found.step.values[-1] == np.inf
    assert np.isnan(found.noise_level.values[-1])
    some = emergence(with_coherence(cube, [[0, 3, 5, 5]] * 4 + [[0, 3, 5, 12]] * 2), threshold=0.6)
    assert (some.step.values[-1], some.low.values[-1], some.high.values[-1]) == (5, 5, np.inf)


def test_emergence_resamples_prompts_and_runs_only_where_there_is_one(cube: xr.Dataset) -> None:
    """Two runs of each prompt agree: more seeds must not narrow the interval."""
    planted = with_coherence(cube, [[0, 2, 4, 4]] * 2 + [[0, 2, 4, 6]] * 2 + [[0, 2, 4, 8]] * 2)
    found = emergence(planted, threshold=0.6)
    assert (found.step.values[-1], found.low.values[-1], found.high.values[-1]) == (6, 4, 8)
    alone = emergence(planted.isel(run=slice(0, 2)))
    assert "runs of one prompt" in alone.attrs["method"]
    single = emergence(planted.isel(run=slice(0, 1)))
    assert (single.low.values == 0).all()
    assert (single.high.values == np.inf).all()


def test_emergence_is_ordered_in_a_world_with_falling_power() -> None:
    found = emergence(synthetic_cube(prompts=4, seeds=4, steps=24))
    assert (np.diff(found.step.values) >= 0).all()
    assert found.step.values[-1] > found.step.values[0]
    assert (found.low <= found.step).all()
    assert (found.step <= found.high).all()


def test_emergence_needs_coherence(cube: xr.Dataset) -> None:
    for empty in (cube.assign(coherence=cube.coherence * np.nan), cube.isel(run=slice(0, 0))):
        with pytest.raises(UserError, match="no coherence"):
            emergence(empty)


# By energy, against the closed form


BANK = FilterBank((0.8, 1.6, 3.2, 6.4))


def plain_field(exponent: float = 2.0) -> GaussianField:
    """24 x 32, power ~ f^-exponent, mean and mean's variance 0."""
    field = GaussianField.power_law((1, 24, 32), exponent)
    S = field.variance.copy()
    S[:, 0, 0] = 0
    return GaussianField(field.mean, S / S.mean())


def test_half_of_the_energy_is_there_where_the_closed_form_says() -> None:
    """R(s) = sum D^2 S rho / sum D^2 S, rho = a^2 S / (a^2 S + b^2), is 1/2: .335 .51 .68 .81 .906, fine to coarse."""
    S, D2 = plain_field().variance[0], BANK.transfer(24, 32) ** 2

    def missing(s: float, band: int) -> float:
        rho = (1 - s) ** 2 * S / ((1 - s) ** 2 * S + s * s)
        return float((D2[band] * S * rho).sum() / (D2[band] * S).sum() - 0.5)

    truth = [brentq(missing, 1e-3, 0.999, args=(band,)) for band in range(5)]
    np.testing.assert_allclose(truth[::-1], [0.334, 0.510, 0.672, 0.792, 0.905], atol=0.022)
    fine = gaussian_cube(plain_field(), flow_levels(np.linspace(1, 0, 201)), bank=BANK, runs=24)
    found = emergence(fine, by="energy")
    np.testing.assert_allclose(found.crossing_noise_level[1:], truth[1:], atol=0.005)
    assert found.crossing_noise_level[0] == pytest.approx(truth[0], abs=0.015)  # few modes: logs and means differ
    log_snr = 2 * np.log((1 - found.crossing_noise_level) / found.crossing_noise_level)
    np.testing.assert_allclose(found.crossing_log_snr, log_snr, rtol=1e-9)
    for name in ("noise_level", "log_snr"):
        low, value, high = (found[f"crossing_{name}{end}"] for end in ("_low", "", "_high"))
        assert ((low < value) & (value < high)).all()
    assert found.attrs["by"] == "energy"
    assert found.attrs["threshold"] == 0.5
    assert "geometric mean of the energy of x0" in found.attrs["estimand"]


def test_energy_does_not_decide_where_guidance_makes_it_overshoot(cube: xr.Dataset) -> None:
    guided = cube.assign_coords(guidance_rule=("run", np.full(6, "cfg", object)))
    unnamed = cube.drop_vars("guidance_rule").assign_coords(guidance_scale=("run", np.full(6, 7.5)))
    for each in (guided, unnamed):
        with pytest.raises(UserError, match="overshoots"):
            emergence(each, by="energy")
        assert emergence(each).attrs["by"] == "coherence"
    assert np.isfinite(emergence(cube, by="energy").crossing_noise_level[0])
    with pytest.raises(UserError, match='by="coherence" or by="energy"'):
        emergence(cube, by="share")  # type: ignore[arg-type]


def test_crossings_lie_between_the_steps_around_them(cube: xr.Dataset) -> None:
    """A mean that rises from 0.7 to 0.9 between two steps crosses 0.8 halfway."""
    values = np.tile(np.repeat([0.7, 0.9], [4, 9])[None, :, None], (6, 1, 4)).astype(np.float32)
    values[:, -1] = np.nan
    found = emergence(cube.assign(coherence=(("run", "step", "band"), values)))
    assert (found.step == 4).all()
    np.testing.assert_allclose(found.crossing_noise_level, cube.noise_level[3:5].mean(), rtol=1e-5)
    np.testing.assert_allclose(found.crossing_noise_level_low, found.crossing_noise_level_high, rtol=1e-5)


def test_steps_are_those_of_the_sampler_where_it_calls_more_than_once(cube: xr.Dataset) -> None:
    twice = with_coherence(cube, [[0, 3, 5, 11]] * 6).assign_coords(step=np.arange(13) // 2)
    found = emergence(twice)
    assert found.step.values.tolist() == [0, 1, 2, 5]
    assert [found[name].values.tolist() for name in ("call", "call_low", "call_high")] == [[0, 3, 5, 11]] * 3
    np.testing.assert_allclose(found.noise_level, cube.noise_level[[0, 3, 5, 11]])


def test_bands_never_decided_have_levels_only_as_bounds(cube: xr.Dataset) -> None:
    found = emergence(with_coherence(cube, [[0, 3, 5, 12]] * 6)).isel(band=-1)
    assert found.call == np.inf
    assert np.isnan(found.crossing_noise_level)
    assert found.crossing_noise_level_low == cube.noise_level[-1]
    assert found.crossing_log_snr_high == np.inf


# Means with intervals


def test_means_are_over_seeds_and_then_prompts(cube: xr.Dataset) -> None:
    share = shares(cube, "x0")
    uneven = share.isel(run=[0, 1, 2, 4])
    found = mean_over_prompts(uneven)
    means = np.stack([uneven.values[:2].mean(0), uneven.values[2], uneven.values[3]])
    np.testing.assert_allclose(found.value, means.mean(0), rtol=1e-6)
    assert found.value.dims == ("step", "band")
    assert found.attrs["n"] == 3
    assert found.attrs["method"] == "Student t"
    assert "share of the energy of x0 over prompts" in found.attrs["estimand"]
    inside = found.isel(step=slice(0, -1))
    assert ((inside.low > 0) & (inside.low < inside.value) & (inside.value < inside.high) & (inside.high < 1)).all()


def test_unbounded_data_have_the_textbook_interval() -> None:
    data = xr.DataArray([3.0, 5.0, 4.0], dims="run", name="x")
    found = mean_over_prompts(data)
    assert (found.low.item(), found.high.item()) == pytest.approx((4 - 4.302653 / 3**0.5, 4 + 4.302653 / 3**0.5))
    assert mean_over_prompts(data[:1]).high == np.inf
    with pytest.raises(UserError, match="no complete run"):
        mean_over_prompts(data[:0])


def test_lazy_cubes_stay_lazy_and_say_the_same(cube: xr.Dataset) -> None:
    lazy = cube.chunk({"run": 1})
    for make in (shares, relative, coherence):
        assert make(lazy).chunks is not None
        found, expected = mean_over_prompts(make(lazy)), mean_over_prompts(make(cube))
        assert all(found[name].chunks is not None for name in ("value", "low", "high"))
        xr.testing.assert_allclose(found.compute(), expected)
    boot = (mean_over_prompts(shares(each), method="bootstrap", n=50) for each in (lazy, cube))
    xr.testing.assert_allclose(*boot)


def test_relative_energies_of_noise_are_one(cube: xr.Dataset) -> None:
    start = relative(synthetic_cube(prompts=8, seeds=4, steps=1, shape=(4, 16, 16))).sel(signal="latent").isel(step=0)
    np.testing.assert_allclose(start.mean(("run", "channel")), 1, atol=0.1)
    assert relative(cube).dims == cube.energy.dims


def test_the_guidance_split_is_read_where_there_is_one(cube: xr.Dataset) -> None:
    named = cube.assign_coords(signal=np.array(["latent", "x0", "cond", "uncond"], object))
    some = named.assign_coords(split=("run", np.array(["", "guidance is off"] * 3, object)))
    assert select(some, "cond").sizes["run"] == 3
    assert select(some, "latent").sizes["run"] == 6
    with pytest.raises(UserError, match="guidance is off"):
        select(some.isel(run=[1, 3]), "cond")


def test_coherence_needs_x0(cube: xr.Dataset) -> None:
    assert coherence(cube).dims == ("run", "step", "band")
    for empty in (cube.drop_vars("coherence"), cube.assign(coherence=cube.coherence * np.nan)):
        with pytest.raises(UserError, match="no coherence: record it with the signal x0"):
            coherence(empty)


def test_one_noise_recorded_twice_counts_once_where_runs_are_the_sample() -> None:
    """Else the interval over the runs of one prompt would shrink with every copy."""
    once = synthetic_cube(prompts=1, seeds=4, steps=12)
    twice = once.isel(run=[0, 1, 2, 3, 3, 2, 1, 0, 0, 1, 2, 3])
    xr.testing.assert_allclose(emergence(twice), emergence(once))
    assert emergence(twice).attrs["n"] == 4
    assert emergence(once.isel(run=[2, 2])).attrs["n"] == 1
    drawn = twice.assign_coords(seed=("run", np.full(12, 7)), draw=("run", np.tile(np.arange(4), 3)))
    unknown = twice.assign_coords(seed=("run", np.full(12, -1)))
    assert [emergence(one).attrs["n"] for one in (drawn, unknown)] == [4, 12]


def test_runs_of_several_settings_are_counted_told_apart_and_chosen() -> None:
    cube = synthetic_cube(2, 2, 4).assign_coords(
        adapter=("run", np.array(["", "", "a", "a"], object)),
        guidance_scale=("run", [1.0, 1.0, 1.0, np.nan]),
        adapter_detail=("run", np.array(["", "", '[{"hash": "0123456789"}]', '[{"hash": "0123456789"}]'], object)),
    )
    assert len(settings_of(cube)) == 3
    words = settings_in_words(settings_of(cube))
    assert words == ["adapter= guidance_scale=1", "adapter=a guidance_scale=1", "adapter=a guidance_scale=nan"]
    assert emergence(cube).attrs["settings"] == 3
    assert select_runs(cube, adapter="").sizes["run"] == 2
    assert select_runs(cube, adapter="a", guidance_scale="nan").sizes["run"] == 1
    assert select_runs(cube, adapter_detail="01234567").sizes["run"] == 2
    with pytest.raises(UserError, match=r"no run has adapter=b: this cube has \(none\), a"):
        select_runs(cube, adapter="b")
