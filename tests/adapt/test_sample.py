"""Pictures from a finished run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from adapt.sample import _write, file_name, read_facts, sample
from spectra.errors import UserError
from tests.adapt.small import finished, model
from tests.tiny import tiny_sd


@pytest.mark.parametrize(("method", "family"), [("lora", "sd"), ("fera", "sd"), ("fera", "sd3")])
def test_a_run_draws_its_own_pictures_again(tmp_path: Path, method: str, family: str) -> None:
    run = finished(method, family).path
    found = xr.open_zarr(run / "evaluation.zarr", consolidated=False).load().sel(source="adapter")
    written = sample(run, found.prompt.values.tolist(), [0], tmp_path / "new" / "pictures")
    assert [path.name for path in written] == ["0000-ramp-1-0-seed0.png", "0001-ramp-1-1-seed0.png"]
    for path, expected in zip(written, found.image.values, strict=True):
        with Image.open(path) as picture:
            assert np.abs(np.asarray(picture).astype(int) - expected.astype(int)).max() <= 1
    assert sorted(path.name for path in (tmp_path / "new" / "pictures").iterdir()) == [path.name for path in written]


def test_the_adapter_folder_of_a_run_and_one_on_its_own_draw_the_same(tmp_path: Path) -> None:
    inside = finished("lora").path / "adapter"
    alone = shutil.copytree(inside, tmp_path / "mine")
    settings: dict[str, Any] = {"prompts": ["x"], "seeds": [0, 1], "steps": 2, "guidance": 1.0}
    first = sample(inside, out=tmp_path / "a", **settings)
    second = sample(alone, out=tmp_path / "b", model=str(model("sd")), **settings)
    for one, other in zip(first, second, strict=True):
        with Image.open(one) as mine, Image.open(other) as theirs:
            assert mine.tobytes() == theirs.tobytes()
    assert [read_facts(path)["adapter"] for path in (first[0], second[0])] == [finished("lora").path.name, "mine"]
    with pytest.raises(UserError, match="does not say which model"):
        sample(alone, out=tmp_path / "c", **settings)


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other"
    tiny_sd(seed=1).save_pretrained(other)
    with pytest.raises(UserError, match="is another model"):
        sample(finished("lora").path, ["x"], [0], tmp_path / "out", model=str(other))
    with pytest.raises(UserError, match="is another model"):
        sample(finished("fera").path, ["x"], [0], tmp_path / "out", model=str(model("sd3")))
    assert not (tmp_path / "out").exists()


def test_a_model_that_changed_under_its_name_is_noticed(tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished("lora").path, tmp_path / "run"))
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"model_hash": "0" * 32}))
    with pytest.raises(UserError, match="trained on"):
        sample(run, ["x"], [0], tmp_path / "out")


def test_an_adapter_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    for method in ("lora", "fera"):
        alone = shutil.copytree(finished(method).path / "adapter", tmp_path / method)
        weights = alone / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:200])
        with pytest.raises(UserError, match="cannot be read"):
            sample(alone, ["x"], [0], tmp_path / "out", model=str(model("sd")))


@pytest.mark.parametrize("method", ["lora", "fera"])
def test_an_adapter_with_missing_tensors_is_refused(tmp_path: Path, method: str) -> None:
    from safetensors.torch import load_file, save_file

    alone = shutil.copytree(finished(method).path / "adapter", tmp_path / method)
    weights = load_file(alone / "adapter_model.safetensors")
    weights.pop(sorted(weights)[0])
    save_file(weights, alone / "adapter_model.safetensors")
    with pytest.raises(UserError, match="does not fit"):
        sample(alone, ["x"], [0], tmp_path / "out", model=str(model("sd")))


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("a red circle", "0003-a-red-circle-seed7.png"),
        ("../../etc/passwd", "0003-etc-passwd-seed7.png"),
        ("Ünïcode / <b>bold</b>\n\x00", "0003-unicode-b-bold-b-seed7.png"),
        ("赤い円", "0003-picture-seed7.png"),
        ("", "0003-picture-seed7.png"),
        ("w" * 500, f"0003-{'w' * 40}-seed7.png"),
    ],
)
def test_names_of_pictures_are_safe_whatever_the_prompt_says(prompt: str, name: str) -> None:
    assert file_name(3, prompt, 7) == name


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"prompts": []}, "at least one prompt"),
        ({"seeds": []}, "one seed"),
        ({"seeds": [-1]}, "a seed is"),
        ({"steps": 0}, "at least 1, got 0"),
        ({"guidance": float("nan")}, "guidance scale"),
        ({"run_or_adapter": "/no/such/run"}, "does not exist"),
    ],
)
def test_bad_requests_are_sentences(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    request = {"run_or_adapter": tmp_path, "prompts": ["x"], "seeds": [0], "out": tmp_path / "out"}
    with pytest.raises(UserError, match=sentence):
        sample(**(request | change))


def test_a_folder_that_is_no_run_and_an_output_that_is_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a finished run"):
        sample(tmp_path, ["x"], [0], tmp_path / "out")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot write pictures"):
        sample(finished("lora").path, ["x"], [0], tmp_path / "file")


@pytest.mark.parametrize("prompt", ["a red circle", "Ünï \x00 赤い円\n", "\udcff"])
def test_a_picture_says_how_it_was_made(tmp_path: Path, prompt: str) -> None:
    facts: dict[str, Any] = {"prompt": prompt, "seed": 2**63 - 1, "steps": 3, "guidance": 1.5, "adapter": "mine"}
    path = _write(np.zeros((4, 4, 3), np.uint8), tmp_path / "x.png", facts)
    assert read_facts(path) == facts | {"prompt": prompt.replace("\udcff", "?")}


def test_pictures_of_an_earlier_call_are_replaced_only_when_asked(tmp_path: Path) -> None:
    run, out = finished("lora").path, tmp_path / "out"
    settings: dict[str, Any] = {"steps": 1, "guidance": 1.0}
    sample(run, ["x"], [0, 1], out, **settings)
    with pytest.raises(UserError, match=r"0000-x-seed0\.png; choose another or give --overwrite"):
        sample(run, ["y"], [0], out, **settings)
    (out / "notes.txt").write_text("mine")
    sample(run, ["y"], [0], out, overwrite=True, **settings)
    assert sorted(path.name for path in out.iterdir()) == ["0000-y-seed0.png", "notes.txt"]


def test_pictures_of_someone_else_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="left alone"):
        sample(finished("lora").path, ["x"], [0], tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]
