"""Shares, emergence and paired comparisons; intervals are held to their coverage by simulation."""

import json
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from spectra import analysis
from spectra.analysis import Estimate, emergence, first_lasting, log_energy_ratio, paired_difference, shares
from spectra.errors import UserError
from tests.spectra.synthetic import synthetic_cube


@pytest.fixture(scope="module")
def cube() -> xr.Dataset:
    return synthetic_cube(prompts=3, seeds=2, steps=12)


def coverage(draw: Callable[[np.random.Generator], Estimate], truth: float, repeats: int = 600) -> float:
    rng = np.random.default_rng(7)
    return float(np.mean([draw(rng).includes(truth) for _ in range(repeats)]))


def test_analysis_needs_no_torch() -> None:
    code = "import sys, spectra.analysis as a; a.paired_difference([1, 2.], [0, 3.]); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("n", [4, 8, 25])
def test_small_paired_intervals_cover_what_they_promise(n: int) -> None:
    def draw(rng: np.random.Generator, method: analysis.Method = "auto") -> Estimate:
        shared = 5 * rng.normal(size=n)
        return paired_difference(shared + rng.normal(size=n) + 0.3, shared + rng.normal(size=n), method=method, n=200)

    assert 0.925 <= coverage(draw, 0.3) <= 0.975
    if n < 10:  # the same simulation finds an interval that is known to be too narrow
        assert coverage(lambda rng: draw(rng, "bootstrap"), 0.3) < 0.92


def test_large_samples_are_bootstrapped_and_covered() -> None:
    def draw(rng: np.random.Generator) -> Estimate:
        return paired_difference(rng.exponential(size=80), np.zeros(80), n=400)

    assert "bootstrap" in draw(np.random.default_rng(0)).method
    assert 0.915 <= coverage(draw, 1.0) <= 0.97


@pytest.mark.parametrize(("prompts", "seeds", "method"), [(6, 4, "t"), (12, 3, "auto"), (50, 2, "bootstrap")])
def test_runs_of_a_prompt_are_not_independent(prompts: int, seeds: int, method: analysis.Method) -> None:
    label = np.repeat(np.arange(prompts), seeds)

    def draw(rng: np.random.Generator, cluster: np.ndarray | None = label) -> Estimate:
        d = rng.normal(size=prompts)[label] + 0.5 * rng.normal(size=len(label)) - 0.2
        return paired_difference(d, np.zeros(len(d)), None if cluster is None else list(cluster), 400, method=method)

    assert 0.92 <= coverage(draw, -0.2) <= 0.98
    assert coverage(lambda rng: draw(rng, None), -0.2) < 0.88


def test_clusters_count_equally_whatever_their_size() -> None:
    estimate = paired_difference([1.0, 1.0, 1.0, 4.0], [0.0, 0.0, 0.0, 1.0], ["a", "a", "a", "b"])
    assert estimate.value == pytest.approx(2.0)
    assert estimate.n == 2
    assert estimate.estimand == "mean difference over clusters of pairs"
    assert estimate.method == "paired Student t"


def test_a_single_cluster_has_no_interval() -> None:
    estimate = paired_difference([1.0, 2.0], [0.0, 0.0], ["a", "a"])
    assert (estimate.low, estimate.high) == (-np.inf, np.inf)
    assert estimate.includes(1e9)
    assert json.loads(json.dumps(estimate.to_dict(), allow_nan=False))["low"] is None


def test_the_t_interval_is_the_textbook_one() -> None:
    estimate = paired_difference([3.0, 5.0, 4.0], [1.0, 2.0, 3.0])
    assert (estimate.low, estimate.high) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))
    assert not estimate.includes(5.0)


@pytest.mark.parametrize(
    ("a", "b", "cluster"),
    [([1.0], [1.0, 2.0], None), ([], [], None), ([np.nan], [1.0], None), ([1.0], [1.0], ["a", "b"])],
)
def test_values_that_cannot_be_paired_are_refused(a: list[float], b: list[float], cluster: list[str] | None) -> None:
    with pytest.raises(UserError, match="pair"):
        paired_difference(a, b, cluster)


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


def final(cube: xr.Dataset) -> xr.DataArray:
    return cube.energy.sel(signal="latent").isel(step=-1)


@pytest.mark.parametrize("of", ["ratios", "means"])
def test_log_ratio_of_a_scaled_cube_is_exact(cube: xr.Dataset, of: analysis.Of) -> None:
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


@pytest.mark.parametrize("of", ["ratios", "means"])
def test_log_ratio_intervals_cover(of: analysis.Of) -> None:
    truth = np.log(1.2) if of == "ratios" else np.log(1.2) + 0.3**2 / 2
    rng, hits = np.random.default_rng(3), 0
    for _ in range(400):
        b = xr.DataArray(np.exp(0.5 * rng.normal(size=(12, 1))), dims=("run", "band"))
        a = b * 1.2 * np.exp(0.3 * rng.normal(size=(12, 1)))
        found = log_energy_ratio(a, b, of)
        hits += bool(found.low.item() <= truth <= found.high.item())
    assert 0.915 <= hits / 400 <= 0.98
