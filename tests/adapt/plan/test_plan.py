"""A plan says what the training will do, and does none of it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adapt.loop import train
from adapt.plan import Plan, make_plan, write_figure
from adapt.plan.plan import adapter_words
from adapt.task import prepare
from spectra.errors import UserError
from tests.adapt.small import config, finished, write_pictures


@pytest.mark.parametrize("family", ["sd", "sd3"])
@pytest.mark.parametrize("method", ["fera", "lora", "ia3", "full"])
def test_it_counts_what_the_run_will_train(method: str, family: str, tmp_path: Path) -> None:
    import torch

    settings = config(tmp_path / "run", family, method=method)
    task = prepare(settings, torch.device("cpu"))
    trained = sum(p.numel() for p in task.denoiser.parameters() if p.requires_grad)
    plan = make_plan(settings)
    assert plan.memory.gradients * 2**20 == pytest.approx(4 * trained)
    assert plan.targets == task.targets
    assert plan.data["pictures"] == len(task.train)
    assert plan.data["heldout"] == len(task.heldout)
    assert plan.memory.activations


def test_it_writes_nothing(tmp_path: Path) -> None:
    made = make_plan(config(tmp_path / "run", cache=tmp_path / "cache"))
    assert made.data["encoded"] == 0
    assert "the picture is new" in made.data["reason"]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_what_is_encoded_already_is_found(tmp_path: Path) -> None:
    train(config(tmp_path / "run", method="lora", steps=1))
    assert make_plan(config(tmp_path / "again")).data["missing"] == 0


def test_pictures_that_will_be_held_out_are_not_counted_as_training_pictures(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", 9)
    found = make_plan(config(tmp_path / "run", data=folder)).data
    assert (found["pictures"], found["heldout"]) == (8, 1)


def test_the_learning_rate_is_that_of_the_run(tmp_path: Path) -> None:
    assert make_plan(config(tmp_path / "run", method="lora")).rate == finished("lora").record["config"]["lr"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": "nowhere"}, "nowhere"),
        ({"targets": ["to_w"]}, "'to_w' matches no"),
        ({"timesteps": "prior"}, "needs a prior"),
        ({"shift": 3.0}, "leave it out"),
        ({"heldout": "damaged"}, "is not a picture"),
        ({"data": "one"}, "too few to hold one out"),
        ({"class_data": "nowhere"}, "nowhere does not exist"),
        ({"class_data": "damaged"}, "is not a picture"),
        ({"batch": 3, "accumulate": 2}, "cannot be split evenly"),
        ({"precision": "fp16"}, "needs a graphics card"),
        ({"method": "fera", "optimizer": "prodigy", "router_lr": 2.0}, "one learning rate for everything"),
        ({"start_from": "nowhere"}, "nowhere does not exist"),
        ({"method": "ia3", "rank": 5}, "ia3 has no rank"),
        ({"method": "oft", "targets": ["conv1"]}, "oft can adapt none of the layers"),
        ({"resolution": 36}, "multiples of 8"),
        ({"buckets": True, "bucket_step": 16, "data": "wide", "class_caption": "a dog"}, "no class picture"),
    ],
)
def test_it_refuses_what_the_run_would_refuse(
    changes: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (write_pictures(Path("damaged"), 1) / "0.png").write_bytes(b"no picture")
    write_pictures(Path("one"), 1)
    write_pictures(Path("wide"), 4, size=(32, 96))
    monkeypatch.setattr(
        "adapt.preservation._draw", lambda config, pipe, seeds: np.zeros((len(seeds), 64, 64, 3), np.uint8)
    )
    for work in (make_plan, train):
        with pytest.raises(UserError, match=said):
            work(config(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_layers_that_a_method_leaves_out_are_in_the_plan_and_in_the_run(tmp_path: Path) -> None:
    settings = config(tmp_path / "run", method="oft", steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = make_plan(settings)
    with pytest.warns(UserWarning, match="left out"):
        record = train(settings).record
    assert plan.reach is not None
    assert "20 of the layers asked for are left out" in record["left_out"]
    assert record["left_out"] in plan.warnings()
    assert record["left_out"] in dict(plan.sections())["Adapter"]
    assert plan.to_dict()["left_out"] == plan.reach.left_out
    assert finished("lora").record["left_out"] is None


@pytest.mark.parametrize("method", ["lora", "full"])
def test_text_encoders_that_learn_are_counted_in_the_plan_and_in_the_run(method: str, tmp_path: Path) -> None:
    settings = config(tmp_path / "run", method=method, text_encoder=True, steps=1)
    plan, record = make_plan(settings), train(settings).record
    assert plan.encoders.keys() == {"text_encoder"}
    assert plan.encoders["text_encoder"] > 0
    assert plan.memory.gradients * 2**20 == 4 * record["trainable_parameters"]
    assert "text_encoder: " in " ".join(dict(plan.sections())["Adapter"])


def test_the_rate_is_that_of_the_optimizer(tmp_path: Path) -> None:
    assert make_plan(config(tmp_path / "run", optimizer="prodigy")).rate == 1.0


def test_class_pictures_are_counted(tmp_path: Path) -> None:
    drawn = make_plan(config(tmp_path / "run", class_caption="a dog", class_count=5, cache=tmp_path / "cache"))
    assert "5 pictures of the class, 5 of which are still to be drawn" in dict(drawn.sections())["Data"]
    given = make_plan(config(tmp_path / "run", class_data=write_pictures(tmp_path / "class", 3)))
    assert given.data["class_pictures"] == 3
    assert drawn.memory.activations == given.memory.activations


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "oft", "rank": 4}, "oft, blocks of 4 (or the nearest divisor of a layer's width)"),
        ({"method": "ia3"}, "ia3: a factor for each output"),
        ({"method": "fera", "router": "clock", "fera_mode": "published"}, "router: clock, published mode"),
        ({"method": "fera", "rank": 8, "shared_rank": 2}, "rank 8 (3 experts of rank 2 and 2 always on)"),
        ({"method": "fera", "expert": "ia3"}, "fera, 3 experts of kind ia3, router: energy"),
    ],
)
def test_the_adapter_is_described_as_what_it_is(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    assert said in adapter_words(config(tmp_path / "run", **changes))


def test_what_stands_at_the_place_of_the_run_is_said_first(tmp_path: Path) -> None:
    run = finished("lora").path
    assert "is a finished run: training will refuse to replace it" in make_plan(config(run)).warnings()[0]
    assert "it will be replaced" in make_plan(config(run, overwrite=True)).warnings()[0]
    assert "unused" not in " ".join(make_plan(config(tmp_path / "run")).warnings())
    assert make_plan(config(tmp_path / "run", gamma=2.0)).warnings()[0].startswith("gamma is set and has no effect")


def test_few_pictures_many_epochs_and_neglected_levels_are_warned_of(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", 3)
    settings = config(
        tmp_path / "run", data=folder, steps=2000, timesteps="logit_normal", logit_std=0.1, targets=["to_q"]
    )
    warned = " ".join(make_plan(settings).warnings())
    for said in ("2 training pictures are few", "is seen 3000 times", "hardly visits", "the adapter reaches only"):
        assert said in warned


def test_its_figure_is_a_picture_of_every_part(tmp_path: Path) -> None:
    plan = make_plan(config(tmp_path / "run"), preview=True)
    assert [picture.shape for _, picture in plan.pictures] == [(64, 64, 3)] * 2
    with Image.open(write_figure(plan, tmp_path / "plan.png")) as picture:
        assert picture.size[0] > 1000


def test_memory_says_when_activations_are_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from adapt.plan.example import Example

    def shapeless(*_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(Example, "_call", shapeless)
    plan: Plan = make_plan(config(tmp_path / "run"))
    assert plan.memory.activations is None
    assert "activations: not known for this model" in dict(plan.sections())["Memory on the device, MiB"]
