"""Cards say how an adapter was made, load it by the code that they show, and trust no name."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from adapt.card import card, hub_id, loading_code, plain, write_card
from spectra.errors import UserError
from tests.adapt.export.conftest import exported, saved
from tests.tiny import tiny_sd_folder

RECORD: dict[str, Any] = {
    "name": "ink", "method": "fera", "model": "sd15", "model_hash": "ab12", "steps": 400, "seed": 3,
    "training_pictures": 256, "trainable_parameters": 123456, "objective": "epsilon", "data": "pictures",
    "config": {"rank": 12, "alpha": 6.0, "lr": 1e-4, "experts": 3, "targets": ["to_q", "conv1"], "guidance": 5.0},
    "validation": {"before": 0.5, "after": 0.25, "cells": 256},
}  # fmt: skip


def test_a_card_says_how_the_adapter_was_made_and_measured() -> None:
    text = card(RECORD)
    for said in (
        "# ink", "FeRA", "| rank, alpha, scale of the update | 12, 6, 0.5 |", "| training pictures | 256 |",
        "| steps | 400 |", "| peak learning rate | 0.0001 |", "0.5 before training", "0.25 after it",
        "a mean of 256 numbers", "to\\_q, conv1", 'base_model: "stable-diffusion-v1-5/stable-diffusion-v1-5"',
        "library_name: peft", 'adapt.load_fera(pipe, ".")', "see its page", "guidance_scale=5.0",
    ):  # fmt: skip
        assert said in text, said


def test_the_front_matter_is_what_the_hub_reads() -> None:
    from huggingface_hub import ModelCard

    found: Any = ModelCard(card(RECORD)).data
    assert found.base_model == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert "fera" in found.tags
    assert found.library_name == "peft"


def test_names_from_outside_are_plain_text() -> None:
    evil = 'x"]\n---\n<script>alert(1)</script> [a](http://b) `c` | d\x00\u202e'
    text = card(RECORD | {"name": evil, "objective": evil, "model": evil})
    assert "<script>" not in text.replace("\\<script\\>", "").replace(_code(text), "")
    assert text.count("\n---\n") == 1
    assert "](http" not in text.replace("\\]\\(http", "").replace(_code(text), "")
    assert len(re.findall("^```", text, re.M)) == 2
    compile(_code(text), "card", "exec")
    assert plain("a\nb | *c*") == "a b \\| \\*c\\*"


@pytest.mark.parametrize("name", ["\U0001f58b ink", "tinte \u2028 \ufeff", 'it\'s "ink"', "a\\b\n```\n"])
def test_a_models_name_in_the_code_is_that_name(name: str) -> None:
    found: dict[str, Any] = {}
    line = next(
        line for line in loading_code({"method": "lora", "model": name}).split("\n") if "load_pipeline(" in line
    )
    exec(line.replace("load_pipeline", "str"), found)
    assert found["pipe"] == name


def test_numbers_of_the_published_mode_and_of_full_training_are_theirs() -> None:
    config = {"rank": 12, "alpha": None, "experts": 3, "fera_mode": "published", "router": "energy"}
    text = card(RECORD | {"config": config})
    assert "| rank, alpha, scale of the update | 12, 1, 0.0833333 |" in text
    assert "published: the semantics of the paper's code" in text
    text = card(RECORD | {"method": "full"})
    assert "base_model_relation: finetune" in text
    assert "| layers |" not in text


def test_captions_are_not_in_the_card() -> None:
    assert "secret caption" not in card(RECORD | {"captions": ["secret caption"], "sample_prompts": ["secret caption"]})


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("sdxl", "stabilityai/stable-diffusion-xl-base-1.0"),
        ("mini", None),
        ("some/model", "some/model"),
        ("/a/folder", None),
    ],
)
def test_models_of_the_hub_are_told_from_others(model: str, expected: str | None) -> None:
    assert hub_id(model) == expected


@pytest.mark.parametrize(
    "method", ["lora", "fera", *(pytest.param(m, marks=pytest.mark.slow) for m in ("loha", "full"))]
)
def test_the_code_of_the_card_loads_the_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    record = {"method": method, "model": str(_model()), "config": {"sample_steps": 2, "guidance": 1.0}}
    exported("sd", method, "peft", tmp_path / "out")
    path = write_card(tmp_path / "out", record)
    _run(path, monkeypatch)


@pytest.mark.parametrize(
    ("method", "form"),
    [
        ("fera", "static-lora"),
        ("fera", "scheduled-loras"),
        pytest.param("lora", "static-lora", marks=pytest.mark.slow),
        pytest.param("lora", "kohya", marks=pytest.mark.slow),
    ],
)
def test_the_code_of_an_exports_card_loads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, form: str
) -> None:
    from adapt.export import export

    made = export(saved("sd", method), tmp_path / "out", form, str(_model()), prompts=["a"], steps=2)
    _run(made / "README.md", monkeypatch)


def _run(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Execute the card's code in its folder: the adapter is in the pipeline and draws a picture."""
    monkeypatch.chdir(path.parent)
    (path.parent / _model().name).symlink_to(_model())
    names: dict[str, Any] = {}
    exec(_code(path.read_text()).replace("num_inference_steps=20", "num_inference_steps=2"), names)
    assert names["picture"].size == (64, 64)
    weights = torch.cat([p.flatten() for p in names["pipe"].unet.parameters()])
    base = sum(p.numel() for p in _tiny().unet.parameters())
    assert len(weights) > base or "load_adapters" in names


def test_private_paths_are_not_shown() -> None:
    text = card({"method": "lora", "model": "/home/someone/secret/my-model"})
    assert "someone" not in text
    assert 'load_pipeline("my-model")  # the folder of the base model' in text


@cache
def _model() -> Path:
    return tiny_sd_folder()


def _tiny() -> Any:
    from tests.tiny import tiny_sd

    return tiny_sd()


def _code(text: str) -> str:
    return text.split("```python\n")[1].split("\n```")[0]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write"):
        write_card(tmp_path / "missing", RECORD)
    assert "load_pipeline" in loading_code({"method": "lora", "model": "mini"})
