"""Data under the forward process, against the closed form of Gaussian data and against scipy on real pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

import spectra
from spectra.errors import UserError
from spectra.forward import probe_data, unit_noise
from spectra.models import load_pipeline
from spectra.process import forward_levels
from spectra.signals import schedule_of
from spectra.zoo.gaussian import gaussian_pipeline
from spectra.zoo.tasks import subject_picture
from tests.spectra.witness import BANK, energies, scipy_energies
from tests.tiny import tiny_sd


def under(name: str = "FlowMatchEulerDiscreteScheduler") -> Any:
    pipe = gaussian_pipeline("gaussian:2x12x16:2.0:0.7")
    pipe.scheduler = getattr(diffusers, name)()
    return pipe


def pairs(pipe: Any, n: int) -> list[tuple[torch.Tensor, str]]:
    return [(torch.tensor(field), "a") for field in pipe.field("a").sample(n, seed=5)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures: one with a caption, one without, one wider than the model's size and half transparent."""
    place = tmp_path_factory.mktemp("data")
    caption, picture = subject_picture(np.random.default_rng(0))
    pixels = (picture * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(place / "a.png")
    (place / "a.txt").write_text(f"{caption}\n")
    Image.fromarray(pixels[::-1]).save(place / "b.png")
    alpha = np.full((*pixels.shape[:2], 1), 128, np.uint8)
    Image.fromarray(np.concatenate([pixels, alpha], 2)).resize((128, 96)).save(place / "c.png")
    return place


@pytest.mark.parametrize("name", ["FlowMatchEulerDiscreteScheduler", "EulerDiscreteScheduler"])
def test_gaussian_data_have_the_energies_of_the_forward_marginal(name: str, tmp_path: Path) -> None:
    pipe = under(name)
    cube = probe_data(pipe, pairs(pipe, 40), tmp_path / "c.zarr", levels=4, seeds=range(6), bank=BANK, batch=40)
    assert cube.sizes["run"] == 240
    for i, (a, b) in enumerate(zip(cube.signal_level.values, cube.noise_level.values, strict=True)):
        E = energies(cube, "latent")[:, i]
        expected = pipe.field("a").expected(BANK, "latent", a, b)
        by_noise = E.reshape(6, 40, *E.shape[1:]).mean(1)  # all data share the noise of a seed: six draws, not 240
        by_data = E.reshape(6, 40, *E.shape[1:]).mean(0)
        error = np.sqrt(by_noise.var(0, ddof=1) / 6 + by_data.var(0, ddof=1) / 40)
        assert (abs(E.mean(0) - expected) < 5 * error).all()
    white = BANK.white_noise(12, 16)
    noise = energies(cube, "eps")[::40, 0]
    assert (abs(noise.mean(0) - white.mean) < 5 * np.sqrt(white.variance / 6)).all()


@pytest.mark.parametrize(("name", "space"), [("FlowMatchEulerDiscreteScheduler", "flow"), ("DDIMScheduler", "vp")])
def test_every_run_is_a_field_plus_noise_by_hand(name: str, space: str, tmp_path: Path) -> None:
    pipe = under(name)
    data = pairs(pipe, 3)
    cube = probe_data(pipe, data, tmp_path / "c.zarr", levels=4, seeds=(2, 9), bank=BANK, batch=2)
    assert cube.attrs["state_space"] == space
    assert (cube.signal_level.values[-1], cube.noise_level.values[-1]) == (1, 0)
    for run in range(6):
        seed, draw = int(cube.seed[run]), int(cube.draw[run])
        x0, eps = data[draw][0].double(), unit_noise((2, 12, 16), seed).double()
        for i, (a, b) in enumerate(zip(cube.signal_level.values, cube.noise_level.values, strict=True)):
            found = cube.energy.isel(run=run, step=i).transpose("signal", "channel", "band").values
            np.testing.assert_allclose(found[0], scipy_energies((a * x0 + b * eps)[None])[0], rtol=1e-4)
            if b > 0:
                np.testing.assert_allclose(found[1], scipy_energies(x0[None])[0], rtol=1e-4)
                np.testing.assert_allclose(found[2], scipy_energies(eps[None])[0], rtol=1e-4)
    assert np.isnan(cube.energy.sel(signal=["x0", "eps"]).isel(step=-1)).all()
    norm = (cube.signal_level.values[1] * data[0][0] + cube.noise_level.values[1] * unit_noise((2, 12, 16), 2)).square()
    found = float(cube.spectrum.sel(signal="latent").isel(step=1, run=0).sum())
    assert found == pytest.approx(float(norm.sum()), rel=1e-5)


def test_levels_are_those_that_training_knows() -> None:
    flow, table = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), diffusers.DDIMScheduler()
    by_count = forward_levels(flow, 4)
    assert by_count.noise == (1.0, 0.75, 0.5, 0.25, 0.0)
    assert by_count.timestep == (1000.0, 750.0, 500.0, 250.0, 0.0)
    assert forward_levels(flow, [0.9, 0.1, 0.0]).noise == (0.9, 0.1, 0.0)
    square = table.alphas_cumprod.double()
    by_table = forward_levels(table, 4)
    assert by_table.timestep == (999, 749, 499, 249, 0)
    np.testing.assert_allclose(np.square(by_table.signal[:-1]), square[[999, 749, 499, 249]], rtol=1e-6)
    nearest = forward_levels(table, [0.5])
    assert abs(nearest.noise[0] - 0.5) < 0.002
    assert nearest.noise[0] == pytest.approx(float((1 - square[int(nearest.timestep[0])]).sqrt()))


def test_timesteps_rise_where_the_scheduler_counts_the_signal() -> None:
    """As those that a sampling run of it records: the network is asked at the times that it knows."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True)
    levels = forward_levels(scheduler, 4)
    assert levels.timestep == (0, 250, 500, 750, 1000)
    assert levels.noise == (1, 0.75, 0.5, 0.25, 0)
    scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    schedule = schedule_of(scheduler, ("latent",))
    sampled = [*(schedule.at(t, i) for i, t in enumerate(scheduler.timesteps)), schedule.final]
    np.testing.assert_allclose(sampled, np.transpose([levels.timestep, levels.signal, levels.noise]), atol=1e-3)


def test_a_table_that_training_did_not_use_is_not_believed() -> None:
    """Stable Video Diffusion: levels up to 700, and a table that is left from pictures."""
    scheduler = diffusers.EulerDiscreteScheduler(timestep_type="continuous", prediction_type="v_prediction")
    with pytest.raises(UserError, match="no known forward process"):
        forward_levels(scheduler, 4)


def test_a_flow_solver_with_a_table_of_alphas_still_flows() -> None:
    solver = diffusers.UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction")
    assert forward_levels(solver, 2).space == "flow"


@pytest.mark.parametrize(("model", "space"), [("mini", "vp"), ("mini-flow", "flow")])
def test_pictures_of_the_bundled_models_become_runs(model: str, space: str, folder: Path, tmp_path: Path) -> None:
    pipe = load_pipeline(model)
    cube = probe_data(pipe, folder, tmp_path / "c.zarr", levels=3, seeds=(0, 1), batch=2)
    assert (cube.sizes["run"], cube.sizes["step"]) == (6, 4)
    assert sorted(set(cube.prompt.values)) == ["", (folder / "a.txt").read_text().strip()]
    assert cube.attrs["sampler"] == "forward"
    assert cube.attrs["state_space"] == space
    pixels = torch.tensor(np.asarray(Image.open(folder / "a.png"), np.float32) / 127.5 - 1).permute(2, 0, 1)
    with torch.no_grad():
        x0 = pipe.vae.encode(pixels[None]).latent_dist.mode() * pipe.vae.config.scaling_factor
        back = pipe.vae.decode(x0 / pipe.vae.config.scaling_factor).sample
    run = int(np.flatnonzero(cube.prompt.values != "")[0])
    found = cube.energy.sel(signal="latent").isel(run=run, step=-1).transpose("channel", "band")
    bank = spectra.FilterBank.octaves(4, tuple(x0.shape[-2:]))
    np.testing.assert_allclose(found, bank.energies(x0)[0], rtol=1e-4)
    assert float((back - pixels).square().mean()) < 0.02  # the latents are those of the picture


def test_a_probe_of_data_goes_on_where_it_stopped(tmp_path: Path) -> None:
    pipe, out = under(), tmp_path / "c.zarr"
    data, seen = pairs(pipe, 3), []
    probe_data(pipe, data, out, levels=2, bank=BANK)
    cube = probe_data(
        pipe, data, out, levels=2, seeds=(0, 1), progress=lambda done, total: seen.append((done, total))
    )  # fmt: skip
    assert seen == [(3, 6), (6, 6)]
    assert sorted(zip(cube.draw.values.tolist(), cube.seed.values.tolist(), strict=True)) == [
        (draw, seed) for draw in range(3) for seed in range(2)
    ]
    before = cube.energy.values
    assert np.array_equal(probe_data(pipe, data, out, levels=2, seeds=(0, 1)).energy.values, before, equal_nan=True)
    with pytest.raises(UserError, match="data was"):
        probe_data(pipe, data[:2], out, levels=2)
    with pytest.raises(UserError, match=r"scheduler\.class was"):
        spectra.probe(pipe, ["a"], [0], 2, out, bank=BANK, signals=("latent", "x0", "eps"))


def test_video_latents_keep_their_frames(tmp_path: Path) -> None:
    video = torch.randn(3, 5, 8, 8, generator=torch.Generator().manual_seed(0))
    cube = probe_data(under(), [(video, "a")], tmp_path / "c.zarr", levels=2, bank=BANK)
    found = cube.energy.sel(signal="latent").isel(run=0, step=-1).transpose("channel", "frame", "band")
    np.testing.assert_allclose(found, BANK.energies(video), rtol=1e-4)


@pytest.mark.parametrize(
    ("levels", "message"),
    [(0, "too few"), (1001, "too many"), ([0.5, 0.7], "fall"), ([1.5, 0.5], "at most 1"), ([], "fall"),
     ([-0.1], "fall"), ([float("nan")], "fall")],
)  # fmt: skip
def test_impossible_levels_are_refused_in_one_sentence(levels: Any, message: str, tmp_path: Path) -> None:
    pipe = under()
    with pytest.raises(UserError, match=message) as caught:
        probe_data(pipe, pairs(pipe, 1), tmp_path / "c.zarr", levels=levels)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "c.zarr").exists()


def test_bad_data_are_refused_in_one_sentence(tmp_path: Path, folder: Path) -> None:
    pipe, out, bad = tiny_sd(), tmp_path / "c.zarr", tmp_path / "bad"
    bad.mkdir()
    cases = [(tmp_path / "none", "does not exist"), (bad, "has no pictures"), (folder / "a.png", "is not a folder")]
    for place, message in cases:
        with pytest.raises(UserError, match=message):
            probe_data(pipe, place, out)
    (bad / "x.png").write_bytes(b"\x89PNG nothing")
    with pytest.raises(UserError, match=r"x\.png is damaged"):
        probe_data(pipe, bad, out)
    with pytest.raises(UserError, match="has no VAE"):
        probe_data(under(), folder, out)
    with pytest.raises(UserError, match="one shape"):
        probe_data(under(), [(torch.zeros(1, 4, 4), ""), (torch.zeros(1, 4, 5), "")], out)
    with pytest.raises(UserError, match="one shape"):
        probe_data(under(), [], out)
    with pytest.raises(UserError, match="at least one seed"):
        probe_data(pipe, folder, out, seeds=())
    assert not out.exists()


def test_the_facts_say_that_nothing_was_sampled(tmp_path: Path) -> None:
    pipe = under()
    cube = probe_data(pipe, pairs(pipe, 1), tmp_path / "c.zarr", levels=2)
    assert json.loads(cube.attrs["scheduler"]) == {"class": "forward"}
    assert cube.attrs["model"] == "gaussian:2x12x16:2.0:0.7"
    assert np.isnan(cube.coherence).all()
    assert cube.attrs["coherence_off"]
    assert np.isnan(cube.guidance_scale).all()


def test_a_network_that_is_asked_says_what_training_sees(tmp_path: Path) -> None:
    """The best velocity of each state, by the field's closed form."""
    pipe, asked = under(), []
    field = pipe.field("a")

    def best(x: torch.Tensor, timestep: float, captions: list[str]) -> torch.Tensor:
        asked.append((timestep, captions))
        return field.predict(x, "flow", 1 - timestep / 1000, timestep / 1000)

    data = pairs(pipe, 2)
    cube = probe_data(pipe, data, tmp_path / "c.zarr", levels=[0.9, 0.4], bank=BANK, predict=best)
    assert asked == [(900.0, ["a", "a"]), (400.0, ["a", "a"])]
    x0, eps = torch.stack([field for field, _ in data]).double(), unit_noise((2, 12, 16), 0).double()
    for i, s in enumerate((0.9, 0.4)):
        said = field.predict((1 - s) * x0 + s * eps, "flow", 1 - s, s)
        np.testing.assert_allclose(energies(cube, "prediction")[:, i], scipy_energies(said), rtol=1e-4)
    assert np.isnan(energies(cube, "prediction")[:, -1]).all()
    with pytest.raises(UserError, match="signals was"):
        probe_data(pipe, data, tmp_path / "c.zarr", levels=[0.9, 0.4], bank=BANK)
    with pytest.raises(UserError, match="both have to be alike"):
        probe_data(pipe, data, tmp_path / "d.zarr", levels=2, predict=lambda x, timestep, captions: x[:, :1])


def test_a_pipeline_is_asked_where_it_is(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a device is for models that are opened here; a pipeline has its own"):
        probe_data(tiny_sd(), folder, tmp_path / "c.zarr", device="cpu")
    assert not (tmp_path / "c.zarr").exists()


def test_a_damaged_picture_is_found_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    bad = Path(shutil.copytree(folder, tmp_path / "data"))
    (bad / "c.png").write_bytes((bad / "c.png").read_bytes()[:200])
    with pytest.raises(UserError, match=r"c\.png is damaged"):
        probe_data(tiny_sd(), bad, tmp_path / "c.zarr", batch=1)
    assert not (tmp_path / "c.zarr").exists()
