"""Every method on every family: a step of training on a tiny whole pipeline, saved, opened again, and drawn with."""

from __future__ import annotations

import copy
import itertools
import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image
from torch import Tensor

from adapt.config import TrainConfig
from adapt.generating import animates, generate
from adapt.loop import RunResult, train
from adapt.methods import METHODS, load_adapters
from adapt.objectives import objective_of
from adapt.sample import read_facts, sample
from spectra.bands import FilterBank
from spectra.errors import UserError
from spectra.models import load_pipeline
from tests.matrix import train_data
from tests.matrix.train_models import MODELS, folder, opened

FAMILIES = {
    name: model for name, model in MODELS.items() if name not in ("flux-schnell", "pixart-alpha")
} | {"mini": None, "mini-flow": None}  # fmt: skip
QUICK = ("fera", "lora")
CASES = [
    pytest.param(name, method, marks=() if method in QUICK else pytest.mark.slow)
    for method, name in itertools.product(METHODS, FAMILIES)
]
STEPS, GUIDANCE = 2, 2.0


def config(name: str, method: str, **changes: Any) -> TrainConfig:
    """One step on two samples of one side of the model's tiny pictures."""
    case = MODELS.get(name)
    frames = case.frames if case else 0
    settings: dict[str, Any] = {
        "model": str(folder(name)) if case else name,
        "data": train_data.clips(frames) if frames else train_data.pictures(),
        "resolution": min(case.size) if case else 64, "frames": max(1, frames),
        "out": Path(mkdtemp()) / f"{name}-{method}", "method": method, "cache": encodings(),
        "steps": 1, "batch": 2, "lr": 0.01, "eval_samples": 1, "eval_levels": 2, "eval_draws": 1,
        "sample_prompts": 1, "sample_steps": STEPS, "guidance": GUIDANCE, "threads": 1, "caption_dropout": 0.5,
    }  # fmt: skip
    rank = {} if "rank" in METHODS[method].lacks else {"rank": 3}
    return TrainConfig(**(settings | rank | changes))


@cache
def encodings() -> Path:
    return Path(mkdtemp()) / "cache"


@cache
def trained(name: str, method: str) -> RunResult:
    return train(config(name, method))


def evaluated(run: RunResult) -> xr.Dataset:
    found: xr.Dataset = xr.open_zarr(run.path / "evaluation.zarr", consolidated=False).load()
    return found


def drawn_again(run: RunResult, found: xr.Dataset) -> Tensor:
    """The latents of the run's evaluation, by the pipeline and the adapter opened anew."""
    pipe = load_pipeline(run.record["config"]["model"])
    load_adapters(pipe, run.path / "adapter")
    clip = found.get("video")
    sizes = {"height": found.sizes["y"], "width": found.sizes["x"]}
    sizes |= {"num_frames": found.sizes["frame"]} if clip is not None else {}
    begins = None
    if animates(pipe):
        begins = [Image.fromarray(one[0]) for one in found.video.sel(source="reference").values]
    return generate(
        pipe, list(found.prompt.values), found.seed.values.tolist(), steps=STEPS, guidance=GUIDANCE, sizes=sizes,
        images=begins,
    )  # fmt: skip


def energies(found: xr.Dataset, source: str) -> Tensor:
    """(sample, channel, band)"""
    return torch.from_numpy(found.energy.sel(source=source).values)


@pytest.mark.parametrize(("name", "method"), CASES)
def test_a_method_trains_on_a_family_and_its_adapter_draws(name: str, method: str) -> None:
    run = trained(name, method)
    found = evaluated(run)
    assert np.isfinite([run.error_before, run.error_after]).all()
    assert run.error_after != run.error_before
    assert run.record["method"] == method

    latents = drawn_again(run, found)
    bank = FilterBank(json.loads(found.attrs["bank"])["scales"])
    again = bank.energies(latents if latents.ndim == 4 else latents.transpose(1, 2)).reshape(
        len(latents), -1, *energies(found, "base").shape[-2:]
    )
    base, adapted = energies(found, "base"), energies(found, "adapter")
    assert (base - adapted).norm() > 20 * (again.mean(1) - adapted).norm(), "it is the adapter that was opened again"


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_foreseen_last_is_the_finished_sample(name: str) -> None:
    """So x0 is read off every family's scheduler as it is meant: these samplers end at no noise."""
    found = evaluated(trained(name, "lora"))
    assert found.x0_step.values.tolist() == list(range(STEPS))
    for source in ("base", "adapter"):
        finished, last = found.sel(source=source).isel(sample=0), found.sel(x0_source=source).isel(x0_step=-1)
        np.testing.assert_allclose(last.x0_energy, finished.energy.sum("channel"), rtol=1e-2)
        assert np.abs(last.x0_image.values.astype(int) - finished.image.values.astype(int)).max() <= 1


@pytest.mark.parametrize("name", MODELS)
def test_a_network_that_answers_its_target_leads_the_sampler_to_the_picture(name: str) -> None:
    """The target of training is what the family's own scheduler takes an answer for; any other ends elsewhere."""
    pipe = opened(name)
    scheduler, objective = copy.deepcopy(pipe.scheduler), objective_of(pipe.scheduler)
    scheduler.set_timesteps(5, **({"mu": 0.6} if scheduler.config.get("use_dynamic_shifting") else {}))
    x0, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    exploding = type(scheduler).__name__ == "EulerDiscreteScheduler"
    rows = [t[None].to(objective.timestep(torch.tensor([0.5])).dtype) for t in scheduler.timesteps]
    x = objective.add_noise(x0, noise, rows[0])
    if exploding:  # its states are x0 + sigma e
        x = x * (1 + objective.noise_level(rows[0]).square()).sqrt().float()
    for t, row in zip(scheduler.timesteps, rows, strict=True):
        if exploding:
            scheduler.scale_model_input(x, t)
        x = scheduler.step(objective.target(x0, noise, row), t, x, return_dict=False)[0]
    torch.testing.assert_close(x, x0, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("name", ["flux", "wan", "ltx", "svd"])
def test_pictures_and_clips_are_sampled_from_a_run(name: str, tmp_path: Path) -> None:
    run, prompts = trained(name, "lora"), ["a dot"]
    if name == "svd":
        prompts = [str(train_data.pictures() / "heldout" / "0.png")]
    (path,) = sample(run.path, prompts, [3], tmp_path / "drawn")
    with Image.open(path) as picture:
        assert picture.size == (min(MODELS[name].size),) * 2
        assert getattr(picture, "n_frames", 1) == max(1, MODELS[name].frames)
    assert read_facts(path)["prompt"] == prompts[0]


def test_a_model_that_animates_pictures_is_given_pictures(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'a dot' is not a picture; this model animates pictures, so give their paths"):
        sample(trained("svd", "lora").path, ["a dot"], [0], tmp_path)


def test_previews_of_every_kind_are_drawn(tmp_path: Path) -> None:
    for name in ("qwen-image", "wan", "svd"):
        run = train(config(name, "lora", out=tmp_path / name, steps=2, preview_every=1))
        first, *_ = sorted((run.path / "previews").glob("*/0.png"))
        with Image.open(first) as picture:
            assert getattr(picture, "n_frames", 1) == max(1, MODELS[name].frames)
