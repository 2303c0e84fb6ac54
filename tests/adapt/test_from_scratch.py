"""Training from nothing: a blank pipeline, the bundled recipes as configurations of the one loop, a whole pipeline."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from adapt.calling import call_of
from adapt.config import TrainConfig
from adapt.draws import draw
from adapt.from_scratch import blank, main, whole
from adapt.loop import RunResult, train
from adapt.methods import METHODS
from adapt.objectives import objective_of, tokens_of
from adapt.step import step_loss
from adapt.task import Task
from datasets_cache import open_dataset
from spectra.errors import UserError
from spectra.families import family_of
from spectra.models import load_pipeline
from spectra.zoo import world
from spectra.zoo.recipes import denoiser as recipe
from spectra.zoo.recipes import pictures, text
from spectra.zoo.recipes.latents import SEED
from tests.adapt.small import config, model

RECIPES = Path(recipe.__file__).parent
CAPTIONS = ("a red circle", "a small white star on a plain blue background", "a big green ring")


class Latents:
    """A cached data set of three made-up pictures."""

    shapes = ((4, 16, 16),) * 3
    caption_lists = tuple((caption,) for caption in CAPTIONS)
    empty: ClassVar[dict[str, torch.Tensor]] = {}

    def __len__(self) -> int:
        return 3

    def latents(self, rows: Any) -> torch.Tensor:
        every = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
        return every[list(rows)]

    def conditioning(self, rows: Any, pick: Any = None) -> dict[str, torch.Tensor]:
        return {}


def networks(pipe: Any) -> nn.ModuleDict:
    """A pipeline's networks as the recipe names them."""
    parts = {name: getattr(pipe, name) for name in ("text_encoder", "text_encoder_2") if hasattr(pipe, name)}
    return nn.ModuleDict({"denoiser": family_of(pipe).denoiser(pipe), **parts})


@pytest.mark.parametrize("name", ["mini", "mini-flow"])
def test_the_loss_of_a_recipe_is_that_of_its_configuration(name: str) -> None:
    """Equal pictures, captions, noise and uniform draws: the script and the loop ask for the same thing."""
    pipe: Any = load_pipeline(name)
    settings = TrainConfig.from_toml(RECIPES / f"{name}.toml", batch=6)
    data: Any = Latents()
    objective = objective_of(pipe.scheduler, settings.weighting, settings.gamma, tokens=tokens_of(pipe, data.shapes[0]))
    task = Task(
        config=settings, pipe=pipe, denoiser=family_of(pipe).denoiser(pipe), call=call_of(pipe), model_hash="",
        objective=objective, method=METHODS["full"], targets=[], prior=None, train=data, heldout=data,
    )  # fmt: skip
    draws = draw(0, 0, 6, 3, (4, 16, 16), 0.5)
    assert bool(draws.dropped.any())
    found = step_loss(task, task.denoiser, draws)

    captions = ["" if lost else CAPTIONS[row] for row, lost in zip(draws.rows, draws.dropped.tolist(), strict=True)]
    nets = networks(pipe)
    expected = recipe.RECIPES[name].loss(
        nets, data.latents(draws.rows), text.token_ids(captions), draws.noise, draws.quantiles
    )
    torch.testing.assert_close(found.loss, expected, rtol=2e-3, atol=1e-5)
    ours, theirs = (
        torch.autograd.grad(loss, [*nets["text_encoder"].parameters()], allow_unused=True)
        for loss in (found.loss, expected)
    )
    for one, other in zip(ours, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=2e-2, atol=1e-5)


@pytest.mark.parametrize("name", ["mini", "mini-flow"])
def test_a_recipes_configuration_trains_every_weight_and_the_text_encoders(name: str) -> None:
    settings = TrainConfig.from_toml(RECIPES / f"{name}.toml")
    assert (settings.method, settings.text_encoder, settings.model) == ("full", True, f"blank-{name}")
    assert settings.batch * settings.steps == {"mini": 176_000, "mini-flow": 384_000}[name]


@cache
def empty_model() -> Path:
    return blank(str(model("sd")), Path(mkdtemp()) / "blank", seed=3)


def weights(module: Any) -> torch.Tensor:
    return torch.cat([value.detach().flatten().float() for value in module.parameters()])


def test_a_blank_pipeline_knows_nothing_but_the_autoencoder(tmp_path: Path) -> None:
    before, after = (load_pipeline(str(path)) for path in (model("sd"), empty_model()))
    one, other = (SimpleNamespace(**pipe.components) for pipe in (before, after))
    assert torch.equal(weights(one.vae), weights(other.vae))
    assert one.scheduler.config == other.scheduler.config
    for name in ("unet", "text_encoder"):
        assert not torch.allclose(weights(getattr(one, name)), weights(getattr(other, name)))
    same = load_pipeline(str(blank(str(model("sd")), tmp_path / "same", seed=3)))
    another = load_pipeline(str(blank(str(model("sd")), tmp_path / "another", seed=1)))
    assert torch.equal(weights(other.unet), weights(same.components["unet"]))
    assert not torch.allclose(weights(other.unet), weights(another.components["unet"]))


def test_making_a_blank_leaves_the_callers_random_numbers_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    blank(str(model("sd")), tmp_path / "blank")
    assert torch.equal(torch.rand(3), expected)


@cache
def trained() -> RunResult:
    """A short training from nothing, encoders included."""
    changes: dict[str, Any] = {
        "method": "full",
        "text_encoder": True,
        "model": str(empty_model()),
        "lr": 3e-3,
        "steps": 12,
    }
    return train(config(Path(mkdtemp()) / "run", **changes))


def test_training_from_nothing_lowers_the_error_and_moves_denoiser_and_encoder(tmp_path: Path) -> None:
    result = trained()
    assert result.error_after < 0.97 * result.error_before
    made = load_pipeline(str(whole(result.path, tmp_path / "whole"))).components
    begun = load_pipeline(str(empty_model())).components
    for name in ("unet", "text_encoder"):
        assert (weights(made[name]) - weights(begun[name])).abs().max() > 1e-3
    assert torch.equal(weights(made["vae"]), weights(begun["vae"]))


def test_the_whole_pipeline_draws_what_the_run_drew(tmp_path: Path) -> None:
    from adapt.closing_pictures import generate
    from adapt.methods import load_adapters

    result = trained()
    made = load_pipeline(str(whole(result.path, tmp_path / "whole")))
    other = load_pipeline(str(empty_model()))
    load_adapters(other, result.path / "adapter")
    drawn = [generate(pipe, ["a ramp"], [3], steps=2, guidance=2.0) for pipe in (made, other)]
    torch.testing.assert_close(drawn[0], drawn[1], rtol=1e-4, atol=1e-5)


def test_folders_that_exist_and_runs_of_adapters_are_refused(tmp_path: Path) -> None:
    from tests.adapt.small import finished

    with pytest.raises(UserError, match="exists; choose another folder"):
        blank("mini", tmp_path)
    with pytest.raises(UserError, match="exists; choose another folder"):
        whole(trained().path, tmp_path)
    with pytest.raises(UserError, match="is no run with method = 'full'"):
        whole(finished("lora").path, tmp_path / "new")


def test_the_worlds_parquet_file_is_the_stream_that_the_recipes_learn(tmp_path: Path) -> None:
    path = pictures.write(tmp_path / "train.parquet", SEED, 5, held_out=False)
    items = open_dataset(str(path))
    assert len(items) == 5
    for index, item in enumerate(items):
        scene, picture = world.scene_at(SEED, index)
        assert item.caption == world.loose_caption(scene, np.random.default_rng([SEED, index, 1]))
        (data,) = item.read()
        stored = np.asarray(Image.open(io.BytesIO(data))).astype(float) / 255
        assert abs(stored - picture).max() <= 0.5 / 255 + 1e-6


def test_heldout_pictures_of_the_world_are_those_never_trained(tmp_path: Path) -> None:
    for _, caption in pictures.rows(pictures.HELDOUT_SEED, 5, held_out=True):
        assert caption
    scenes = [world.scene_at(pictures.HELDOUT_SEED, index, True)[0] for index in range(5)]
    assert all(scene.held_out for scene in scenes)


def test_a_bad_request_is_a_sentence_and_the_exit_code_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["from_scratch", "blank", "--model", "mini", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {tmp_path} exists; choose another folder or remove it\n"
