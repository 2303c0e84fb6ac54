"""The pages of docs/: their commands and Python run, their options and settings exist, their pictures are there."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest

from adapt.config import TrainConfig
from tests.conftest import Command

DOCS = Path(__file__).parents[2] / "docs"
SAID = {
    "probe.md": ("first step from which on",),
    "train.md": ("Memory on the device", "is trained.", "pytorch_lora_weights.safetensors"),
    "prior.md": ("Learned from 16 samples of mini", "emerge from the noise", "is trained."),
}
"""Page -> words that a run of it prints."""


def _runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_run", DOCS / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


runner = _runner()
LINES = [
    line
    for page in SAID
    for language, code in runner.blocks(DOCS / page)
    if language == "sh"
    for line in code.replace("\\\n", " ").splitlines()
    if line.startswith(("spectra ", "adapt "))
]


@pytest.mark.parametrize("line", LINES)
def test_every_option_of_a_page_exists(line: str, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    name, sub, *words = shlex.split(line)
    known = set(re.findall(r"--[a-z-]+", command(name, sub, "--help").out))
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("page", SAID)
def test_every_setting_that_a_page_names_exists(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    named = re.findall(r"--set (?!NAME)(\w+)=", text) + re.findall(r"^\| `(\w+) = ", text, re.MULTILINE)
    assert set(named) <= TrainConfig.model_fields.keys()
    if page != "probe.md":
        assert named


@pytest.mark.parametrize("page", SAID)
def test_pictures_of_a_page_are_there(page: str) -> None:
    assert runner.pictures(DOCS / page)
    assert all((DOCS / "images" / name).is_file() for name in runner.pictures(DOCS / page))


@pytest.mark.slow
@pytest.mark.parametrize("page", SAID)
def test_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECTRA_CACHE", str(tmp_path / "cache"))
    said = runner.run(DOCS / page, tmp_path)
    assert all(words in said for words in SAID[page])
    assert all((tmp_path / name).stat().st_size > 10_000 for name in runner.pictures(DOCS / page))
