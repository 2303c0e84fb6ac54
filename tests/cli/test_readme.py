"""What the README shows is what the commands and the library take."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.conftest import Command

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    ((?:spectra|adapt) .*)", README.replace("\\\n", " "), re.MULTILINE)
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_readme_shows_every_step_of_the_road() -> None:
    shown = {" ".join(line.split()[:2]) for line in COMMANDS}
    road = {"spectra probe", "spectra show", "spectra compare"}
    assert shown == road | {f"adapt {name}" for name in ("plan", "train", "sample", "export", "evaluate", "report")}


@pytest.mark.parametrize("line", COMMANDS)
def test_every_option_in_the_readme_exists(line: str, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    name, sub, *words = shlex.split(line)
    known = set(re.findall(r"--[a-z-]+", command(name, sub, "--help").out))
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.slow
def test_the_python_examples_run(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = "steps=1, batch=2, eval_samples=2, eval_draws=1, eval_levels=2, sample_prompts=1, sample_steps=1"
    assert README.count("steps=400") == 1
    shutil.copytree(pictures, tmp_path / "pictures")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in BLOCKS:
        exec(block.replace("steps=400", small), names)
    assert "energy" in capsys.readouterr().out
    assert (tmp_path / "runs" / "style" / "run.json").is_file()
