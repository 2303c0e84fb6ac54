import subprocess
import sys
import xml.etree.ElementTree as ET
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest

from benchmarks.quality import control, results
from spectra.errors import UserError
from tests.benchmarks.quality.synthetic import experiment


@cache
def runs() -> Path:
    """A folder of runs that tests only read."""
    return experiment(Path(mkdtemp()), SCALES, 2)


SCALES = {"lora": 1.0, "fera-prior": 0.98, "fera-random": 1.0, "fera-shared": 0.97}


def write(tmp_path: Path, *more: str) -> int:
    sys.argv = ["results", "--out", str(tmp_path / "docs" / "results.md"), "--numbers", str(tmp_path / "q.csv"), *more]
    return results.main()


@pytest.fixture
def argv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", sys.argv)


def test_one_command_makes_page_figures_and_numbers(tmp_path: Path, argv: None) -> None:
    assert write(tmp_path, "--runs", str(runs()), "--cost", "none.json") == 0
    page = (tmp_path / "docs" / "results.md").read_text()
    assert "# Does routing by band energies help?\n\n**FeRA " in page
    assert "24 of 300 planned final runs are there" in page
    assert "0.98" in page
    ideas = page.split("## Beyond the plan")
    assert "half of the rank is always on | `fera-shared` / `fera-prior`" in ideas[1]
    assert "fera-shared" not in ideas[0]  # neither in the planned tables nor in the table of their sweeps
    assert "| mini, style | `fera-shared` |" in ideas[1]
    assert any(line.startswith("| `fera-shared` | **0.") for line in ideas[1].splitlines())
    assert "- **Is a start from the prior better than a random one?** The prior" in page
    assert not any(word in page for word in ("nan", "None", "{{", "{%"))
    for name in ("forest", "levels", "curves"):
        figure = tmp_path / "docs" / "images" / f"quality-{name}.svg"
        assert f"images/{figure.name}" in page
        assert "start from the prior" in "".join(ET.parse(figure).getroot().itertext())


def test_the_page_is_made_again_from_its_numbers_alone_to_the_byte(tmp_path: Path, argv: None) -> None:
    places = [
        tmp_path / "docs" / "results.md",
        *(tmp_path / "docs" / "images" / f"quality-{n}.svg" for n in ("forest", "levels")),
    ]
    assert write(tmp_path, "--runs", str(runs()), "--cost", "none.json") == 0
    first = [place.read_bytes() for place in places]
    assert write(tmp_path, "--cost", "none.json") == 0
    assert [place.read_bytes() for place in places] == first


def test_nothing_to_read_is_said_in_a_sentence(tmp_path: Path, argv: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert write(tmp_path) == 2
    assert "give --runs" in capsys.readouterr().err
    assert write(tmp_path, "--runs", str(tmp_path)) == 2
    assert "no finished final run" in capsys.readouterr().err


def test_new_prompts_have_backgrounds_that_no_training_caption_has(tmp_path: Path) -> None:
    for i, texture in enumerate(("plain", "striped", "dotted")):
        (tmp_path / f"{i}.txt").write_text(f"a zog on a {texture} red background\n")
    asked = control.unseen_subjects(tmp_path)
    assert len(asked) == len(set(asked)) == control.SUBJECTS
    assert not set(asked) & control.captions(tmp_path)
    assert control.unseen_subjects(tmp_path) == asked
    with pytest.raises(UserError, match="leaves 37 backgrounds"):
        control.unseen_subjects(tmp_path, count=38)
    ordinary = control.ordinary()
    assert len(set(ordinary)) == control.ORDINARY
    assert not any("zog" in prompt for prompt in ordinary)


def test_new_prompts_are_drawn_by_the_finals_of_the_best_rate() -> None:
    found = control.best_finals(runs(), "mini", ("lora", "fera-prior"), (0, 1))
    assert [control.label(place) for place in found] == [
        "lora seed 0", "lora seed 1", "fera-prior seed 0", "fera-prior seed 1"
    ]  # fmt: skip
    assert {place.task for place in found} == {"subject"}


@pytest.mark.slow
def test_the_quick_experiment_runs_and_becomes_a_page(tmp_path: Path, argv: None) -> None:
    command = [sys.executable, "-m", "benchmarks.quality.run", "--quick", "--out", str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "fera-prior" in done.stdout
    assert write(tmp_path, "--runs", str(tmp_path / "runs"), "--cost", "none.json") == 0
    page = (tmp_path / "docs" / "results.md").read_text()
    assert "these are runs of `--quick`" in page
    assert "(`fera-prior`)" in page
    kept = np.genfromtxt(tmp_path / "q.csv", delimiter=",", names=True, dtype=None, encoding=None)
    assert {"sweep", "error", "against_lora"} <= set(kept["table"])
    again = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert again.returncode == 0
    assert again.stdout == ""  # nothing is left to train
