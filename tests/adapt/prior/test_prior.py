"""The prior on a synthetic cube: smooth pictures that emerge from noise, with energies known in closed form."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from peft import inject_adapter_in_model

import adapt
from adapt import Prior
from adapt.fera import gates_of
from adapt.fera.router import latent_energy, log_shares
from adapt.prior import soft_prototypes
from spectra.errors import UserError
from spectra.probe import probe
from tests.adapt.prior.worlds import BANK, GRID, RUNS, STEPS, cube, latents, usual
from tests.tiny import tiny_sd


def learn(source: Any, **options: Any) -> Prior:
    """A prior in the bands that the cube was recorded in, so that what a router reads is known to rounding."""
    return Prior.from_cube(source, **{"scales": BANK.scales, **options})


@pytest.fixture(scope="module")
def prior() -> Prior:
    return usual()


def features() -> torch.Tensor:
    """What the router reads of the recorded latents, (runs, steps, bands), by the router's own functions."""
    x = torch.from_numpy(latents()[1][:, :-1])
    found: torch.Tensor = log_shares(latent_energy(x.flatten(0, 1), BANK)).unflatten(0, (RUNS, STEPS))
    return found


def start_gates(config: Any, x: torch.Tensor) -> torch.Tensor:
    """Gates of a fresh adapter with this configuration on latents x, as probabilities."""
    unet = tiny_sd().unet
    inject_adapter_in_model(config, unet)
    with torch.no_grad():
        unet(x, torch.ones(len(x)), torch.zeros(len(x), 3, 32))
    gates = gates_of(unet)
    assert gates is not None
    found: torch.Tensor = gates / gates.shape[1]
    return found


def test_it_takes_the_bank_and_the_statistics_of_what_the_denoiser_was_given(prior: Prior) -> None:
    assert prior.scales == BANK.scales
    assert prior.grid == GRID
    flat = features().flatten(0, 1).numpy()
    np.testing.assert_allclose(prior.feature_mean, flat.mean(0), rtol=1e-4)
    np.testing.assert_allclose(prior.feature_std, flat.std(0), rtol=1e-4)


def test_an_adapter_starts_with_the_fitted_gates(prior: Prior) -> None:
    x = torch.from_numpy(latents()[1]).float()[:, :-1]
    gates = start_gates(prior.fera_config(target_modules=["to_q"]), x[0])
    intended = torch.from_numpy(soft_prototypes((np.arange(STEPS) + 0.5) / STEPS, 3, prior.overlap)).float()
    assert (gates - intended).abs().mean() < 4 * prior.gate_error + 0.01
    np.testing.assert_allclose(prior.gates, _mean_gates(prior, x), atol=1e-3)


def _mean_gates(prior: Prior, x: torch.Tensor) -> np.ndarray:
    every = start_gates(prior.fera_config(target_modules=["to_q"]), x.flatten(0, 1))
    found: np.ndarray = every.unflatten(0, (RUNS, STEPS)).mean(0).numpy()
    return found


def test_from_step_one_the_experts_part_by_noise_level(prior: Prior) -> None:
    gates = np.array(prior.gates)
    assert gates[0].argmax() == 0
    assert gates[STEPS // 2].argmax() == 1
    assert gates[-1].argmax() == 2
    assert np.ptp(gates, axis=0).max() > 0.3
    blind = start_gates(_blind(), _path())
    assert np.ptp(gates, axis=0).max() > 2 * np.ptp(blind.numpy(), axis=0).max()


def _blind() -> Any:
    torch.manual_seed(0)
    return adapt.FeraConfig(target_modules=["to_q"])


def _path() -> torch.Tensor:
    return torch.from_numpy(latents()[1][0, :-1]).float()


def test_the_fit_is_close_and_says_how_close(prior: Prior) -> None:
    u = (np.arange(STEPS) + 0.5) / STEPS
    error = np.abs(_every_gate(prior) - soft_prototypes(u, 3, prior.overlap))
    assert prior.gate_error == pytest.approx(error.mean(), rel=0.02)
    assert prior.gate_error_max == pytest.approx(error.max(), rel=0.02)
    assert prior.gate_error < 0.05


def _every_gate(prior: Prior) -> np.ndarray:
    x = torch.from_numpy(latents()[1]).float()[:, :-1]
    config = prior.fera_config(target_modules=["to_q"])
    found: np.ndarray = start_gates(config, x.flatten(0, 1)).unflatten(0, (RUNS, STEPS)).numpy()
    return found


def test_overlap_and_experts_reach_the_start() -> None:
    sharp = learn(cube(), experts=2, overlap=0.3)
    assert np.array(sharp.gates).shape == (STEPS, 2)
    assert np.ptp(np.array(sharp.gates), axis=0).max() > 0.8
    assert sharp.fera_config(target_modules=["to_q"]).num_experts == 2


def test_equal_input_gives_equal_bytes_and_another_seed_another_start(prior: Prior, tmp_path: Path) -> None:
    torch.manual_seed(99)
    again = learn(cube())
    assert prior.save(tmp_path / "a.json").read_bytes() == again.save(tmp_path / "b.json").read_bytes()
    assert learn(cube(), seed=1).router != prior.router


def test_the_order_of_the_steps_does_not_matter(prior: Prior) -> None:
    order = [*np.random.default_rng(0).permutation(STEPS), STEPS]
    shuffled = cube().isel(step=order)
    assert learn(shuffled).noise_level == prior.noise_level
    np.testing.assert_allclose(learn(shuffled).feature_mean, prior.feature_mean)


def test_runs_that_broke_off_are_left_out(prior: Prior) -> None:
    broken = cube()
    whole = broken.isel(run=slice(1, None))
    broken["energy"][0, 5:] = np.nan
    assert learn(broken) == learn(whole)
    assert learn(broken).provenance["runs"] == RUNS - 1


def test_video_cubes_count_all_frames() -> None:
    still = cube()
    halves = xr.concat([still["energy"], still["energy"]], dim="frame")
    video = still.drop_vars("energy").assign(energy=halves.transpose("run", "step", "signal", "frame", ...))
    np.testing.assert_allclose(learn(video).feature_mean, learn(still).feature_mean, rtol=1e-5)


def test_it_reads_what_a_probe_writes(tmp_path: Path) -> None:
    probed = probe(tiny_sd(), ["a red square"], [0, 1], 3, tmp_path / "cube.zarr")
    prior = Prior.from_cube(tmp_path / "cube.zarr")
    assert prior.noise_level == pytest.approx(probed["noise_level"].values[:-1], rel=1e-6)
    assert prior.provenance["model_hash"] == probed.attrs["model_hash"]
    assert prior.provenance["cube"] == str(tmp_path / "cube.zarr")
    assert np.array(prior.gates).argmax(1).tolist() == [0, 1, 2]


def test_another_model_is_refused_by_name(prior: Prior) -> None:
    prior.check_model("abc123")
    with pytest.raises(UserError, match=r"learned from mini .*abc123.*def456"):
        prior.check_model("def456")


def without(name: str) -> xr.Dataset:
    damaged = cube()
    damaged.attrs.pop(name)
    return damaged


@pytest.mark.parametrize(
    ("damaged", "words"),
    [
        (lambda: cube().drop_vars("energy"), "no energy"),
        (lambda: cube().sel(signal=["x0"]), "no signal 'latent'"),
        (lambda: cube().drop_vars("noise_level"), "noise level"),
        (lambda: cube().isel(run=slice(0)), "no complete run"),
        (lambda: cube().isel(step=slice(-2, None)), "two or more steps"),
        (lambda: cube().isel(band=slice(3)), "3 bands"),
        (lambda: without("bank"), "bank"),
        (lambda: without("grid"), "grid"),
        (lambda: without("model_hash"), "model_hash"),
        (lambda: cube().assign_attrs(bank="["), "filter bank cannot be read"),
        (lambda: cube().assign_attrs(grid="[16]"), "grid cannot be read"),
        (lambda: cube().drop_vars("spectrum"), "no spectrum"),
        (lambda: cube().drop_vars("timestep"), "timestep"),
        (lambda: cube().drop_vars("log_snr"), "log snr"),
    ],
)
def test_a_cube_that_lacks_something_says_what(damaged: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Prior.from_cube(damaged())


@pytest.mark.parametrize("asked", [
    {"experts": 0}, {"overlap": 0.0}, {"tau": float("nan")}, {"hidden": 0}, {"experts": 1.5}, {"experts": "3"},
    {"hidden": 2.0}, {"tau": "warm"}, {"overlap": None}, {"features": "clock"}, {"features": ()},
])  # fmt: skip
def test_an_impossible_request_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        learn(cube(), **asked)


def test_one_feature_may_be_named_without_a_tuple() -> None:
    prior = learn(cube(), features="log_snr")
    assert prior.features == ("log_snr",)
    schedule = {"kind": "flow", "steps": 1000}
    made = prior.fera_config(target_modules=["to_q"], features="log_snr", noise_schedule=schedule)
    assert made.features == ("log_snr",)


def test_it_explains_itself_in_sentences_with_its_own_numbers(prior: Prior) -> None:
    sentences = prior.explain()
    assert all(sentence[0].isupper() and sentence.endswith(".") for sentence in sentences)
    text = " ".join(sentences)
    assert f"{RUNS} samples of mini (12 prompts), {STEPS} denoising steps" in text
    assert "0.8, 1.6, 3.2" in text
    assert f"{prior.shares[0][0]:.0%} to {prior.shares[-1][0]:.0%}" in text
    assert "Expert 0 leads at noise levels 1 to" in text
    assert f"{prior.gate_error:.1%}" in text
    changed = replace(prior, gate_error=0.123)
    assert "12.3%" in " ".join(changed.explain())


def test_importing_it_needs_numpy_alone() -> None:
    script = (
        "import sys, adapt.prior;"
        "assert not {'torch', 'peft', 'diffusers', 'transformers', 'zarr'} & set(sys.modules), sorted(sys.modules)"
    )
    root = Path(adapt.__file__).parents[1]
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": str(root)})


def test_runs_of_several_settings_are_not_pooled(mixed: Path) -> None:
    from spectra import open_cube
    from spectra.analysis.labels import select_runs, settings_of

    cube = open_cube(mixed)
    with pytest.raises(UserError, match="runs of 2 settings"):
        Prior.from_cube(cube)
    one = select_runs(cube, **{name: value for name, value in settings_of(cube)[0].items() if name != "adapter_detail"})
    assert Prior.from_cube(one).scales


@pytest.mark.parametrize("experts", range(1, 7))
def test_the_start_follows_the_prototypes_with_any_number_of_experts(experts: int) -> None:
    prior = learn(cube(), experts=experts)
    intended = soft_prototypes((np.arange(STEPS) + 0.5) / STEPS, experts, 1.0)
    assert np.array(prior.gates).shape == (STEPS, experts)
    np.testing.assert_allclose(prior.gates, intended, atol=0.12)
    assert prior.gate_error < 0.05


@pytest.mark.parametrize("features", [("snr",), ("log_snr",), ("shares", "snr"), ("shares", "log_snr")])
def test_any_features_can_be_read_and_the_clock_is_followed_most_closely(features: tuple[str, ...]) -> None:
    prior = learn(cube(), features=features)
    assert prior.features == features
    assert len(prior.feature_mean) == sum(1 if name == "log_snr" else 4 for name in features)
    assert prior.gate_error < (0.02 if "log_snr" in features else 0.06)
