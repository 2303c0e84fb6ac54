"""`adapt train`, `adapt sample` and `adapt report`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.adapt_app import parse_settings
from spectra.errors import UserError
from tests.conftest import Command

SMALL = [
    word
    for name in ("eval_samples=2", "eval_draws=1", "eval_levels=2", "sample_prompts=1", "sample_steps=1", "threads=1")
    for word in ("--set", name)
]


def train_words(model: Path, pictures: Path, out: Path, *more: object) -> list[object]:
    return ["train", "--model", model, "--data", pictures, "--out", out, "--steps", "2", "--batch", "2", *SMALL, *more]


@pytest.fixture(scope="module")
def run(model: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished LoRA run."""
    from cli import adapt_app, common

    out = tmp_path_factory.mktemp("runs") / "lora"
    words = train_words(model, pictures, out, "--method", "lora")
    assert common.run(adapt_app.app, "adapt", [str(word) for word in words]) == 0
    return out


def test_settings_are_read_as_toml() -> None:
    found = parse_settings(["clip=0.5", "precision=bf16", "sample_seeds=[0, 1]", "overwrite = true", "model='a=b'"])
    assert found == {"clip": 0.5, "precision": "bf16", "sample_seeds": [0, 1], "overwrite": True, "model": "a=b"}


@pytest.mark.parametrize("text", ["clip", "=1", "a b=1"])
def test_a_setting_without_name_or_value_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="NAME=VALUE"):
        parse_settings([text])


def test_training_fera_with_a_prior_prints_its_record(
    command: Command, model: Path, pictures: Path, probed: Path, tmp_path: Path
) -> None:
    words = train_words(model, pictures, tmp_path / "fera", "--prior", probed, "--method", "fera", "--json")
    done = command("adapt", *words)
    record = json.loads(done.out)
    assert done.code == 0
    assert record["run"] == str(tmp_path / "fera")
    assert record["prior"]["path"] == str(probed)
    assert (tmp_path / "fera" / "run.json").is_file()


def test_options_win_over_the_configuration_file(command: Command, model: Path, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(f'model = "{model}"\ndata = "{pictures}"\nmethod = "lora"\nsteps = 50\nrank = 6\n')
    words = ["--config", tmp_path / "c.toml", "--steps", "1", "--out", tmp_path / "run", "--batch", "2", *SMALL]
    record = json.loads(command("adapt", "train", *words, "--json").out)
    assert (record["steps"], record["config"]["rank"]) == (1, 6)


def test_a_finished_run_is_replaced_only_when_asked(command: Command, run: Path, model: Path, pictures: Path) -> None:
    assert "exists" in command("adapt", *train_words(model, pictures, run, "--method", "lora")).refused()
    assert command("adapt", *train_words(model, pictures, run, "--method", "lora", "--overwrite")).code == 0


def test_sampling_writes_a_picture_per_prompt_and_seed(command: Command, run: Path, tmp_path: Path) -> None:
    words = ["--prompt", "a dot", "--prompt", "../dots", "--seeds", "0:2", "--steps", "1", "--out", tmp_path / "p"]
    found = json.loads(command("adapt", "sample", run, *words, "--json").out)["pictures"]
    assert len(found) == 4
    assert {Path(path) for path in found} == set((tmp_path / "p").iterdir())


def test_a_report_is_one_file_and_its_sentences_are_printed(command: Command, run: Path, tmp_path: Path) -> None:
    made = command("adapt", "report", run, "--out", tmp_path / "r.html")
    assert (made.code, made.err) == (0, "")
    assert str(tmp_path / "r.html") in made.out
    assert "<html" in (tmp_path / "r.html").read_text()
    found = json.loads(command("adapt", "report", run, "--out", tmp_path / "r.html", "--json").out)
    assert found["sentences"][0] in made.out


def test_files_among_the_runs_are_named_and_left_out(command: Command, run: Path, tmp_path: Path) -> None:
    (tmp_path / "figure.png").write_bytes(b"")
    made = command("adapt", "report", run, tmp_path / "figure.png", "--out", tmp_path / "r.html")
    assert made.code == 0
    assert made.err == f"{tmp_path / 'figure.png'} was left out, as it is not a run directory.\n"
