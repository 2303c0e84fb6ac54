"""The prior on a synthetic cube: smooth pictures that emerge from noise, with energies known in closed form."""

from __future__ import annotations

import json
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
from spectra.bands import FilterBank
from spectra.errors import UserError
from spectra.probe import probe
from tests.tiny import tiny_sd

GRID, CHANNELS, STEPS, RUNS = (16, 16), 4, 12, 24
BANK = FilterBank.octaves(4, GRID)


def latents(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise level (steps + 1,) and latents (runs, steps + 1, channel, h, w) along a straight path from noise."""
    draw = np.random.default_rng(seed)
    noise = draw.standard_normal((RUNS, 1, CHANNELS, *GRID))
    ripple = np.add.outer(np.sin(np.arange(16) / 2.5), np.cos(np.arange(16) / 3.5))
    smooth = ripple * draw.standard_normal((RUNS, 1, CHANNELS, 1, 1)) + draw.standard_normal((RUNS, 1, CHANNELS, 1, 1))
    level = np.linspace(1, 0, STEPS + 1)
    t = level[:, None, None, None]
    return level, (1 - t) * (smooth + 0.1 * draw.standard_normal(noise.shape)) + t * noise


def cube(seed: int = 0, **attrs: Any) -> xr.Dataset:
    level, x = latents(seed)
    energy = BANK.energies(torch.from_numpy(x)).numpy()
    stacked = np.stack([energy, np.full_like(energy, np.nan)], 2).astype(np.float32)  # latent, x0
    dims = ("run", "step", "signal", "channel", "band")
    described = {"model": "mini", "model_hash": "abc123", "family": "sd", "bank": json.dumps(BANK.to_dict()),
                 "grid": json.dumps(GRID)}  # fmt: skip
    return xr.Dataset(
        {"energy": (dims, stacked), "status": ("run", np.ones(RUNS, np.uint8))},
        coords={"signal": ["latent", "x0"], "noise_level": ("step", level)},
        attrs={**described, **attrs},
    )


@pytest.fixture(scope="module")
def prior() -> Prior:
    return Prior.from_cube(cube())


def features() -> torch.Tensor:
    """What the router reads of the recorded latents, (runs, steps, bands), by the router's own functions."""
    x = torch.from_numpy(latents()[1][:, :-1])
    return log_shares(latent_energy(x.flatten(0, 1), BANK)).unflatten(0, (RUNS, STEPS))


def start_gates(config: Any, x: torch.Tensor) -> torch.Tensor:
    """Gates of a fresh adapter with this configuration on latents x, as probabilities."""
    unet = tiny_sd().unet
    inject_adapter_in_model(config, unet)
    with torch.no_grad():
        unet(x, torch.ones(len(x)), torch.zeros(len(x), 3, 32))
    gates = gates_of(unet)
    assert gates is not None
    return gates / gates.shape[1]


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
    return every.unflatten(0, (RUNS, STEPS)).mean(0).numpy()


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
    return start_gates(config, x.flatten(0, 1)).unflatten(0, (RUNS, STEPS)).numpy()


def test_more_overlap_is_milder_and_starves_nobody() -> None:
    u = np.linspace(0, 1, 101)
    sharp, mild = (soft_prototypes(u, 3, overlap) for overlap in (0.1, 1.0))
    np.testing.assert_allclose(mild.sum(1), 1)
    assert mild.max() < 0.75 < 0.99 < sharp.max()
    assert mild.min() > 0.03 > 1e-6 > sharp.min()
    np.testing.assert_allclose(soft_prototypes(u, 1, 1.0), 1)


def test_overlap_and_experts_reach_the_start() -> None:
    sharp = Prior.from_cube(cube(), experts=2, overlap=0.3)
    assert np.array(sharp.gates).shape == (STEPS, 2)
    assert np.ptp(np.array(sharp.gates), axis=0).max() > 0.8
    assert sharp.fera_config(target_modules=["to_q"]).num_experts == 2


def test_equal_input_gives_equal_bytes_and_another_seed_another_start(prior: Prior, tmp_path: Path) -> None:
    torch.manual_seed(99)
    again = Prior.from_cube(cube())
    assert prior.save(tmp_path / "a.json").read_bytes() == again.save(tmp_path / "b.json").read_bytes()
    assert Prior.from_cube(cube(), seed=1).router != prior.router


def test_the_order_of_the_steps_does_not_matter(prior: Prior) -> None:
    order = [*np.random.default_rng(0).permutation(STEPS), STEPS]
    shuffled = cube().isel(step=order)
    assert Prior.from_cube(shuffled).noise_level == prior.noise_level
    np.testing.assert_allclose(Prior.from_cube(shuffled).feature_mean, prior.feature_mean)


def test_runs_that_broke_off_are_left_out(prior: Prior) -> None:
    broken = cube()
    whole = broken.isel(run=slice(1, None))
    broken["energy"][0, 5:] = np.nan
    assert Prior.from_cube(broken) == Prior.from_cube(whole)
    assert Prior.from_cube(broken).provenance["runs"] == RUNS - 1


def test_video_cubes_count_all_frames() -> None:
    still = cube()
    halves = xr.concat([still["energy"], still["energy"]], dim="frame")
    video = still.drop_vars("energy").assign(energy=halves.transpose("run", "step", "signal", "frame", ...))
    np.testing.assert_allclose(Prior.from_cube(video).feature_mean, Prior.from_cube(still).feature_mean, rtol=1e-5)


def test_it_reads_what_a_probe_writes(tmp_path: Path) -> None:
    probed = probe(tiny_sd(), ["a red square"], [0, 1], 3, tmp_path / "cube.zarr")
    prior = Prior.from_cube(tmp_path / "cube.zarr")
    assert prior.noise_level == pytest.approx(probed["noise_level"].values[:-1], rel=1e-6)
    assert prior.provenance["model_hash"] == probed.attrs["model_hash"]
    assert prior.provenance["cube"] == str(tmp_path / "cube.zarr")
    assert np.array(prior.gates).argmax(1).tolist() == [0, 1, 2]


def test_a_saved_prior_comes_back_equal(prior: Prior, tmp_path: Path) -> None:
    path = prior.save(tmp_path / "deep" / "prior.json")
    assert Prior.load(path) == prior
    assert [file.name for file in path.parent.iterdir()] == ["prior.json"]


def test_a_prior_that_cannot_be_written_says_where(prior: Prior, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write the prior to .*prior\.json"):
        prior.save(tmp_path / "file" / "prior.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "cube"}, "is not a prior"),
        ({"format": 2}, "another format"),
        ({"surprise": 1}, "surprise"),
        ({"feature_mean": [0.0]}, "feature_mean"),
        ({"feature_mean": [0.0, 0.0, 0.0, None]}, "feature_mean|float"),
        ({"feature_std": [1.0, 1.0, 1.0, 0.0]}, "feature_std"),
        ({"scales": [1.0, 1.0, 2.0]}, "distinct"),
        ({"router": {"w1": []}}, "weights"),
        ({"experts": 2}, "gates"),
        ({"tau": "hot"}, "not a valid prior"),
        ({"provenance": {}}, "which model"),
    ],
)
def test_a_damaged_prior_is_refused(prior: Prior, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = prior.save(tmp_path / "prior.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=words):
        Prior.load(path)


def test_a_torn_or_missing_file_is_refused(prior: Prior, tmp_path: Path) -> None:
    path = prior.save(tmp_path / "prior.json")
    path.write_bytes(path.read_bytes()[:-200])
    for name in ("prior.json", "nothing.json", "."):
        with pytest.raises(UserError, match="cannot be read as a prior"):
            Prior.load(tmp_path / name)


def test_another_model_is_refused_by_name(prior: Prior) -> None:
    prior.check_model("abc123")
    with pytest.raises(UserError, match=r"learned from mini .*abc123.*def456"):
        prior.check_model("def456")


def test_fields_that_contradict_the_fit_are_refused_and_others_are_free(prior: Prior) -> None:
    config = prior.fera_config(r=2, target_modules=["to_q"], alpha=1.0, num_experts=3)
    assert (config.r, config.alpha, config.num_experts, config.scales) == (2, 1.0, 3, BANK.scales)
    assert config.provenance is not None
    assert config.provenance["model_hash"] == "abc123"
    assert "cube" not in config.provenance  # a path of this machine has no place in an adapter that is shared
    for wrong in ({"num_experts": 4}, {"tau": 1.0}, {"scales": (1.0, 2.0)}):
        with pytest.raises(UserError, match=f"fitted with {next(iter(wrong))}"):
            prior.fera_config(target_modules=["to_q"], **wrong)


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
        (lambda: cube(bank="["), "filter bank cannot be read"),
        (lambda: cube(grid="[16]"), "grid cannot be read"),
    ],
)
def test_a_cube_that_lacks_something_says_what(damaged: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        Prior.from_cube(damaged())


@pytest.mark.parametrize("asked", [{"experts": 0}, {"overlap": 0.0}, {"tau": float("nan")}, {"hidden": 0}])
def test_an_impossible_request_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Prior.from_cube(cube(), **asked)


def test_it_explains_itself_in_sentences_with_its_own_numbers(prior: Prior) -> None:
    sentences = prior.explain()
    assert all(sentence[0].isupper() and sentence.endswith(".") for sentence in sentences)
    text = " ".join(sentences)
    assert f"{RUNS} samples of mini, {STEPS} denoising steps" in text
    assert "0.8, 1.6, 3.2" in text
    assert f"{prior.shares[0][0]:.0%} to {prior.shares[-1][0]:.0%}" in text
    assert "Expert 1 leads at noise levels 1 to" in text
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
