"""`docs/probe.md`: its commands and its Python run, its options exist, its pictures are there."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import Command

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "probe.md"


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
    for language, code in runner.blocks(PAGE)
    if language == "sh"
    for line in code.replace("\\\n", " ").splitlines()
    if line.startswith("spectra ")
]


@pytest.mark.parametrize("line", LINES)
def test_every_option_of_the_page_exists(line: str, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    name, sub, *words = shlex.split(line)
    known = set(re.findall(r"--[a-z-]+", command(name, sub, "--help").out))
    assert {word for word in words if word.startswith("--")} <= known


def test_its_pictures_are_there() -> None:
    assert len(runner.pictures(PAGE)) >= 4
    assert all((DOCS / "images" / name).is_file() for name in runner.pictures(PAGE))


@pytest.mark.slow
def test_the_page_runs(tmp_path: Path) -> None:
    said = runner.run(PAGE, tmp_path)
    assert "first step from which on" in said
    assert all((tmp_path / name).stat().st_size > 10_000 for name in runner.pictures(PAGE))
