"""What is asked for: bad input is refused in a sentence, and what is left open is as in the runs."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from adapt.evaluation.adapters import base, find
from adapt.evaluation.references import Sources, sources_of, warn_learned
from adapt.evaluation.request import Request, guidance_of, model_of, settings_of, steps_of
from adapt.evaluation.store import open_evaluation
from spectra.errors import UserError
from tests.adapt.evaluation.kinds import PROMPTS, evaluated, protocol, run, strong_lora
from tests.adapt.small import data, model


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompts": []}, "at least one prompt and one seed"),
        ({"seeds": []}, "at least one prompt and one seed"),
        ({"prompts": "a circle"}, "prompts is a list of texts"),
        ({"seeds": [-1]}, "a seed is a whole number"),
        ({"steps": 0}, "steps is at least 1"),
        pytest.param({"steps": 2000}, "2000 sampler steps are too many", marks=pytest.mark.slow),
        ({"batch": 0}, "batch is at least 1"),
        ({"guidance": -1.0}, "guidance is a number of at least 0"),
        ({"unrelated": PROMPTS[:1]}, "given as asked and as unrelated"),
        ({"model": "no-such-model"}, "no model folder"),
        ({"model": None}, "give the model"),
        pytest.param({"networks": ["no-such-network"]}, "no-such-network", marks=pytest.mark.slow),
        ({"data": "no-such-folder"}, "no-such-folder"),
        pytest.param({"device": "cuda:7"}, "the device 'cuda:7' cannot be used", marks=pytest.mark.slow),
        ({"names": ["a", "b"]}, "2 names were given for 1 adapter;"),
        ({"names": ["base"]}, "the name 'base' is taken"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words) as refused:
        evaluated(tmp_path / "a.zarr", [strong_lora()], **changes)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "a.zarr").exists()


def test_an_adapter_that_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not fit this StableDiffusionPipeline"):
        evaluated(tmp_path / "a.zarr", [strong_lora(), model("sd3")])
    with pytest.raises(UserError, match=r"was trained on .* and .* is another model"):
        evaluated(tmp_path / "a.zarr", [run("lora")], model=model("sd3"))
    assert not (tmp_path / "a.zarr").exists()


def test_a_place_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("a")
    xr.Dataset({"a": ("x", [1.0])}).to_zarr(tmp_path / "other.zarr", zarr_format=3, consolidated=False)
    for name, words in (("notes", "it holds no zarr group"), ("other.zarr", "no evaluation")):
        for attempt in (lambda out: evaluated(out, []), open_evaluation):
            with pytest.raises(UserError, match=words):
                attempt(tmp_path / name)
    with pytest.raises(UserError, match="there is no evaluation at"):
        open_evaluation(tmp_path / "gone.zarr")


def test_what_is_left_open_is_as_in_the_runs() -> None:
    """Model, steps, guidance and pictures, where all adapters are runs and agree."""
    mine, open_ = find(run("lora")), Request(None, ["a"], [0], [], None, None, ["none"], None, None, None, None, 8)
    assert mine.record is not None
    settings = settings_of([mine])
    assert (model_of(open_, None, [mine]), steps_of(open_, None, settings)) == (str(model("sd")), 2)
    other = replace(mine, record=mine.record | {"config": mine.record["config"] | {"sample_steps": 9, "guidance": 1.0}})
    assert guidance_of(open_, None, settings_of([other])) == 1.0
    assert (steps_of(open_, None, settings_of([mine, other])), guidance_of(open_, None, settings)) == (20, 3.0)
    found = sources_of(open_, None, [mine])
    assert (found.data, found.train) == (str(data() / "heldout"), str(data() / "train"))
    assert sources_of(open_, None, [mine, find(strong_lora())]) == Sources()


def test_runs_of_several_models_are_told_apart_and_only_several_names_of_one_are_asked_about() -> None:
    mine, open_ = find(run("lora")), Request(None, ["a"], [0], [], None, None, ["none"], None, None, None, None, 8)
    assert mine.record is not None
    other = replace(mine, record=mine.record | {"model": "other"})
    with pytest.raises(UserError, match=r"name their model in 2 ways \(.*other.*\); give the model$"):
        model_of(open_, None, [mine, other])
    apart = replace(mine, record=mine.record | {"model": "other", "model_hash": "0"})
    with pytest.raises(
        UserError, match=r"belong to 2 models .* evaluate the runs of each model into a place of its own"
    ):
        model_of(open_, None, [mine, apart])


@pytest.mark.slow
def test_evaluations_of_runs_are_as_the_runs_were_and_stay_so(tmp_path: Path) -> None:
    found = evaluated(tmp_path / "a.zarr", [run("lora")], model=None, steps=None, seeds=[0], prompts=["a"])
    told = protocol(found)
    assert (told["model"], told["steps"], told["guidance"]) == (str(model("sd")), 2, 3.0)
    assert (told["data"], told["train"]) == (str(data() / "heldout"), str(data() / "train"))
    assert found.reference_part.values.tolist() == ["heldout"] * 4 + ["train"] * 6
    mixed = evaluated(tmp_path / "b.zarr", [run("lora"), strong_lora()], model=None, seeds=[0], prompts=["a"])
    assert protocol(mixed)["data"] is None
    assert "validation_error" not in mixed
    added = evaluated(tmp_path / "a.zarr", [strong_lora()], model=None, seeds=[0], prompts=["a"])
    assert added.validation_error.notnull().all()


def test_held_out_pictures_that_a_run_learned_from_are_named(tmp_path: Path) -> None:
    learned = replace(base(), path="runs/mine", record={"config": {"data": str(tmp_path)}})
    with pytest.warns(UserWarning, match="runs/mine was trained on pictures of .*: its errors there say too little"):
        warn_learned(Sources(str(tmp_path)), [learned])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_learned(Sources(str(tmp_path / "others")), [learned, base()])
        warn_learned(Sources(str(tmp_path), str(tmp_path)), [learned])  # which holds some of its own out
