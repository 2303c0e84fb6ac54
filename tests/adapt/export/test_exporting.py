"""What is asked wrongly is one sentence, and an export is there whole or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from adapt.export import FORMATS, export
from adapt.export import files as export_files
from adapt.export.exporting import _check_method
from adapt.methods import load_adapter
from spectra.errors import UserError
from spectra.models import model_hash
from tests.adapt.export.conftest import PIPES, exported, saved
from tests.adapt.methods.conftest import EVERY, answer
from tests.tiny import tiny_sd_folder


@pytest.mark.parametrize(
    "method", [pytest.param(method, marks=() if method in ("fera", "lora") else pytest.mark.slow) for method in EVERY]
)
def test_a_peft_export_is_the_adapter(tmp_path: Path, method: str) -> None:
    exported("sd", method, "peft", tmp_path / "out")
    copied, first = PIPES["sd"](), PIPES["sd"]()
    assert load_adapter(copied.unet, tmp_path / "out") == method
    load_adapter(first.unet, saved("sd", method))
    with torch.no_grad():
        assert torch.equal(answer(copied.unet.eval()), answer(first.unet.eval()))


@pytest.mark.parametrize("form", ["static-lora", "scheduled-loras"])
def test_pipelines_without_a_lora_loader_are_refused(form: str) -> None:
    class Bare:
        """A pipeline of a family that diffusers loads no LoRA into."""

    source: Any = SimpleNamespace(method="fera", pipe=Bare())
    with pytest.raises(UserError, match="diffusers loads no LoRA into a Bare, so export peft"):
        _check_method(source, form)
    _check_method(source, "peft")


@pytest.mark.parametrize(("method", "form"), [("fera", "static-lora"), ("full", "peft"), ("fera", "scheduled-loras")])
def test_the_pipeline_is_given_back_as_it_was(tmp_path: Path, method: str, form: str) -> None:
    pipe = PIPES["sd3"]()
    before = {name: value.clone() for name, value in pipe.transformer.state_dict().items()}
    export(saved("sd3", method), tmp_path / "out", form, pipe=pipe, prompts=["a"], steps=2, guidance=1.0)
    after = pipe.transformer.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_that_exists_is_left_alone(tmp_path: Path, form: str) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists; choose another name"):
        exported("sd", "fera", form, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_wrong_requests_are_sentences(tmp_path: Path) -> None:
    out, folder = tmp_path / "out", saved("sd", "lora")
    with pytest.raises(UserError, match=r"unknown export format 'kohja'; known formats: peft, .*did you mean 'kohya'"):
        export(folder, out, "kohja", pipe=PIPES["sd"]())
    with pytest.raises(UserError, match="does not say which model"):
        export(folder, out, "peft")
    with pytest.raises(UserError, match="does not exist"):
        export(tmp_path / "none", out, "peft")
    with pytest.raises(UserError, match="at least one prompt"):
        export(folder, out, "peft", pipe=PIPES["sd"](), prompts=[])
    with pytest.raises(UserError, match="at least 1, got 0"):
        export(folder, out, "peft", pipe=PIPES["sd"](), rank=0)
    with pytest.raises(UserError, match="those of method lora have none"):
        export(folder, out, "scheduled-loras", pipe=PIPES["sd"]())
    with pytest.raises(UserError, match="does not fit"):
        export(folder, out, "peft", pipe=PIPES["sd3"]())
    with pytest.raises(UserError, match="full training changes more"):
        export(saved("sd", "full"), out, "static-lora", pipe=PIPES["sd"]())
    assert not list(tmp_path.iterdir())


def test_scheduled_loras_of_other_experts_are_refused(tmp_path: Path) -> None:
    folder = saved("sd", "fera", expert="ia3")
    with pytest.raises(UserError, match="experts of kind 'lora'"):
        export(folder, tmp_path / "out", "scheduled-loras", pipe=PIPES["sd"](), prompts=["a"], steps=2)
    assert not list(tmp_path.iterdir())


def test_the_model_can_be_named(tmp_path: Path) -> None:
    made = export(saved("sd", "lora"), tmp_path / "out", "static-lora", str(tiny_sd_folder()), prompts=["a"], steps=2)
    assert "a model that was not recorded" not in (made / "README.md").read_text()
    facts = json.loads((made / "export.json").read_text())
    assert facts["samples"] == 1


def test_another_model_than_the_runs_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(saved("sd", "lora"), run / "adapter")
    record: dict[str, Any] = {"format": 1, "status": "complete", "name": "run", "model": "mini", "model_hash": "0" * 32}
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"was trained on 'mini' .* is another model"):
        export(run, tmp_path / "out", "peft", pipe=PIPES["sd"]())


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_files, "save_file", full)
    with pytest.raises(UserError, match="No space left on device"):
        exported("sd", "lora", "static-lora", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_file_that_diffusers_reads_in_part_only_is_never_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = export_files.write_lora

    def torn(path: Path, parts: Any) -> None:
        whole(path, {part: dict(list(factors.items())[1:]) for part, factors in parts.items()})

    monkeypatch.setattr("adapt.export.exporting.write_lora", torn)
    with pytest.raises(UserError, match=r"diffusers drops 1 of the \d+ layers of this file, conv_in"):
        exported("sd", "lora", "static-lora", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_run_is_measured_on_its_own_captions_and_settings(tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(saved("sd", "fera"), run / "adapter")
    record: dict[str, Any] = {
        "format": 1, "status": "complete", "name": "ink", "model": "tiny", "model_hash": model_hash(PIPES["sd"]()),
        "method": "fera", "config": {"sample_steps": 3, "guidance": 1.0, "rank": 6}, "steps": 9,
    }  # fmt: skip
    (run / "run.json").write_text(json.dumps(record))
    prompts = np.array(["a", "a", "b", "c", "d", "e"], dtype=np.dtypes.StringDType())
    xr.Dataset(coords={"prompt": ("sample", prompts)}).to_zarr(run / "evaluation.zarr", consolidated=False)
    made = export(run, tmp_path / "out", "static-lora", pipe=PIPES["sd"]())
    facts = json.loads((made / "export.json").read_text())
    assert (facts["name"], facts["steps"], facts["samples"]) == ("ink", 3, 4)
    assert "| steps | 9 |" in (made / "README.md").read_text()


def test_gates_are_measured_at_the_size_that_the_run_was_trained_at(tmp_path: Path) -> None:
    from adapt.export.source import call_of, open_source
    from adapt.loop import train
    from tests.adapt.small import config

    run = train(config(tmp_path / "run", method="lora", steps=1, resolution=32, guidance=2.0)).path
    call = call_of(open_source(run, None, None, 4), ["a"], [0], None, None, {})
    assert (call["height"], call["width"], call["guidance_scale"]) == (32, 32, 2.0)


def test_what_a_lora_cannot_hold_is_said(tmp_path: Path) -> None:
    assert "biases is lost" in exported("sd", "ia3", "static-lora", tmp_path / "ia3")["how"]
    assert "biases" not in exported("sd", "lokr", "static-lora", tmp_path / "lokr")["how"]
