"""A plan says what the training will do, and does none of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from adapt.loop import train
from adapt.plan import Plan, make_plan, write_figure
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
    ],
)
def test_it_refuses_what_the_run_would_refuse(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        make_plan(config(tmp_path / "run", **changes))


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
