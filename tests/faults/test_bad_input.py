"""Bad input ends with one sentence and exit code 2, and leaves nothing that a later command takes for whole."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import Command
from tests.tiny import tiny_sd

ROOT = Path(__file__).parents[2]
SMALL = [
    word
    for name in ("eval_samples=1", "eval_draws=1", "eval_levels=2", "sample_prompts=1", "sample_steps=1", "threads=1")
    for word in ("--set", name)
]


def empty(folder: Path) -> None:
    folder.mkdir()


def no_index(folder: Path) -> None:
    folder.mkdir()
    (folder / "config.json").write_text("{}")


def truncated(model: Path) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        shutil.copytree(model, folder)
        file = folder / "unet" / "diffusion_pytorch_model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])

    return make


def without_vae(model: Path) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        shutil.copytree(model, folder)
        shutil.rmtree(folder / "vae")

    return make


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["missing", "empty", "no index", "truncated", "without vae", "misspelt", "offline"])
@pytest.mark.parametrize("name", ["probe", "train"])
def test_a_bad_model_is_refused(
    command: Command, model: Path, pictures: Path, tmp_path: Path, kind: str, name: str
) -> None:
    folder = tmp_path / "model"
    makers = {"empty": empty, "no index": no_index, "truncated": truncated(model), "without vae": without_vae(model)}
    if kind in makers:
        makers[kind](folder)
    given = {"misspelt": "mini-flwo", "offline": "sd15"}.get(kind, str(folder))
    out = tmp_path / "out" / "x.zarr"
    what = ["--prompt", "a dot"] if name == "probe" else ["--data", pictures, "--method", "lora", *SMALL]
    said = command({"probe": "spectra", "train": "adapt"}[name], name, "--model", given, "--out", out, *what).refused()
    expected = {
        "missing": "no model folder", "empty": "not a diffusers pipeline", "no index": "not a diffusers pipeline",
        "truncated": "damaged or incomplete", "without vae": "vae (AutoencoderKL) is missing",
        "misspelt": "did you mean mini-flow", "offline": "cannot be reached",
    }  # fmt: skip
    assert expected[kind] in said
    assert not out.exists()
    assert not out.parent.exists() or left_behind(out.parent) == []


# --- options ----------------------------------------------------------------------------------------------------------

BAD_OPTIONS = {
    "unknown command": ("spectra", "prob"),
    "unknown flag": ("spectra", "probe", "--modle", "mini", "--out", "x.zarr"),
    "no model": ("spectra", "probe", "--out", "x.zarr", "--prompt", "a"),
    "no prompt": ("spectra", "probe", "--model", "mini", "--out", "x.zarr"),
    "no such prompt file": ("spectra", "probe", "--model", "mini", "--out", "x.zarr", "--prompts", "nowhere.txt"),
    "no steps": ("spectra", "probe", "--model", "mini", "--out", "x.zarr", "--prompt", "a", "--steps", "0"),
    "steps not a number": ("spectra", "probe", "--model", "mini", "--out", "x.zarr", "--prompt", "a", "--steps", "ten"),
    "no batch": ("spectra", "probe", "--model", "mini", "--out", "x.zarr", "--prompt", "a", "--batch", "0"),
    "bad seeds": ("spectra", "probe", "--model", "mini", "--out", "x.zarr", "--prompt", "a", "--seeds", "8:0"),
    "bad resume": ("spectra", "probe", "--model", "mini", "--out", "x.zarr", "--prompt", "a", "--resume", "perhaps"),
    "no cube": ("spectra", "show", "nowhere.zarr"),
    "no cube named": ("spectra", "show"),
    "unknown training flag": ("adapt", "train", "--epochs", "3"),
    "no training steps": ("adapt", "train", "--model", "mini", "--data", "d", "--out", "o", "--steps", "0"),
    "no data": ("adapt", "train", "--model", "mini", "--out", "o"),
    "unknown method": ("adapt", "train", "--model", "mini", "--data", "d", "--out", "o", "--method", "magic"),
    "unknown setting": ("adapt", "train", "--model", "mini", "--data", "d", "--out", "o", "--set", "clipp=1"),
    "rank does not split": ("adapt", "train", "--model", "mini", "--data", "d", "--out", "o", "--rank", "7"),
    "prior for lora": (
        "adapt", "train", "--model", "mini", "--data", "d", "--out", "o", "--method", "lora", "--prior", "x.zarr",
    ),
    "no configuration": ("adapt", "train", "--config", "nowhere.toml"),
    "no run to sample": ("adapt", "sample", "nowhere", "--prompt", "a", "--out", "p"),
    "no run to report": ("adapt", "report", "nowhere"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_a_bad_option_is_refused(command: Command, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command(*BAD_OPTIONS[case]).refused()
    assert left_behind(tmp_path) == []


def test_a_refusal_names_the_nearest_known_name(command: Command) -> None:
    assert "--model" in command(*BAD_OPTIONS["unknown flag"]).refused()
    assert "'probe'" in command(*BAD_OPTIONS["unknown command"]).refused()
    assert "'clip'" in command(*BAD_OPTIONS["unknown setting"]).refused()


@pytest.mark.parametrize("name", ["probe", "train", "sample"])
def test_more_sampler_steps_than_noise_levels_are_refused_before_any_work(
    command: Command, model: Path, pictures: Path, tmp_path: Path, name: str
) -> None:
    train = ("adapt", "train", "--model", model, "--data", pictures, "--method", "lora", "--steps", "1", *SMALL)
    if name == "sample":
        assert command(*train, "--batch", "2", "--out", tmp_path / "run").code == 0
    words = {
        "probe": (
            "spectra",
            "probe",
            "--model",
            model,
            "--prompt",
            "a",
            "--steps",
            "1001",
            "--out",
            tmp_path / "x.zarr",
        ),
        "train": (
            *(word.replace("steps=1", "steps=1001") if isinstance(word, str) else word for word in train),
            "--out",
            tmp_path / "run",
        ),
        "sample": ("adapt", "sample", tmp_path / "run", "--prompt", "a", "--steps", "1001", "--out", tmp_path / "made"),
    }[name]
    before = left_behind(tmp_path)
    assert "1001 sampler steps are too many" in command(*words).refused()
    assert left_behind(tmp_path) == before


# --- data -------------------------------------------------------------------------------------------------------------


def no_pictures(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def corrupt_picture(folder: Path) -> None:
    data = (folder / "0.png").read_bytes()
    (folder / "0.png").write_bytes(data[: len(data) // 2])


def caption_without_picture(folder: Path) -> None:
    (folder / "stray.txt").write_text("nothing")


def picture_without_caption(folder: Path) -> None:
    Image.new("RGB", (64, 64)).save(folder / "bare.png")


DATA = {
    "missing": (shutil.rmtree, "does not exist"),
    "empty": (no_pictures, "no pictures"),
    "corrupt picture": (corrupt_picture, "0.png"),
    "caption without picture": (caption_without_picture, "stray.txt"),
    "picture without caption": (picture_without_caption, "bare.png"),
}


@pytest.mark.parametrize("case", DATA)
def test_bad_data_are_refused(command: Command, model: Path, pictures: Path, tmp_path: Path, case: str) -> None:
    spoil, expected = DATA[case]
    shutil.copytree(pictures, tmp_path / "data")
    spoil(tmp_path / "data" / "train")
    (tmp_path / "runs").mkdir()
    words = ["--model", model, "--data", tmp_path / "data" / "train", "--method", "lora", "--steps", "1", *SMALL]
    said = command("adapt", "train", *words, "--out", tmp_path / "runs" / "x").refused()
    assert expected in said
    assert left_behind(tmp_path / "runs") == []


# --- priors, cubes, places --------------------------------------------------------------------------------------------


def test_a_cube_from_another_model_is_no_prior(command: Command, probed: Path, pictures: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    tiny_sd(seed=1).save_pretrained(other)
    (tmp_path / "runs").mkdir()
    words = ["--model", other, "--data", pictures, "--method", "fera", "--prior", probed, "--steps", "1", *SMALL]
    said = command("adapt", "train", *words, "--out", tmp_path / "runs" / "x").refused()
    assert "model" in said
    assert left_behind(tmp_path / "runs") == []


def test_a_cube_is_not_mixed_with_another_models_runs(command: Command, probed: Path, tmp_path: Path) -> None:
    cube, other = tmp_path / "c.zarr", tmp_path / "other"
    shutil.copytree(probed, cube)
    tiny_sd(seed=1).save_pretrained(other)
    words = ["--model", other, "--prompt", "a dot", "--seeds", "0:2", "--steps", "3", "--out", cube]
    command("spectra", "probe", *words).refused()
    shown = json.loads(command("spectra", "show", cube, "--figure", tmp_path / "f.png", "--json").out)
    assert shown["runs"] == 2


def test_a_torn_cube_is_refused(command: Command, probed: Path, tmp_path: Path) -> None:
    cube = tmp_path / "c.zarr"
    shutil.copytree(probed, cube)
    (cube / "zarr.json").write_text("{")
    command("spectra", "show", cube).refused()
    assert left_behind(tmp_path) == ["c.zarr"]


def test_a_place_that_cannot_be_written_is_refused(
    command: Command, model: Path, pictures: Path, probed: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    inside = tmp_path / "file" / "x"
    probe = ["probe", "--model", model, "--prompt", "a dot", "--seeds", "0", "--steps", "1"]
    assert str(inside) in command("spectra", *probe, "--out", inside.with_suffix(".zarr")).refused()
    command("spectra", "show", probed, "--figure", inside.with_suffix(".png")).refused()
    train = ["train", "--model", model, "--data", pictures, "--method", "lora", "--steps", "1", *SMALL]
    command("adapt", *train, "--out", inside).refused()


def test_a_figure_of_an_unknown_kind_is_refused(command: Command, probed: Path, tmp_path: Path) -> None:
    said = command("spectra", "show", probed, "--figure", tmp_path / "figure.docx").refused()
    assert ".png" in said
    assert left_behind(tmp_path) == []


def test_a_loss_that_is_no_number_leaves_no_run(command: Command, model: Path, pictures: Path, tmp_path: Path) -> None:
    words = ["--model", model, "--data", pictures, "--method", "lora", "--steps", "12", "--lr", "1e30", *SMALL]
    done = command("adapt", "train", *words, "--batch", "2", "--out", tmp_path / "run")
    assert (done.code, done.out) == (2, "")
    assert done.err.splitlines()[-1].startswith(
        "adapt: the validation error is not a number at step 1 of training; use a"
    )
    assert left_behind(tmp_path) == []


def test_an_unfinished_run_is_not_reported(command: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"format": 1, "status": "running"}))
    assert "incomplete" in command("adapt", "report", run, "--out", tmp_path / "r.html").refused()
    assert left_behind(tmp_path) == ["run"]


# --- interruption -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_keyboard_stops_a_command_with_one_sentence(model: Path, pictures: Path, tmp_path: Path) -> None:
    words = ["--model", model, "--data", pictures, "--method", "lora", "--steps", "100000", "--out", tmp_path / "run"]
    child = subprocess.Popen(
        [sys.executable, "-m", "cli", "adapt", "train", *map(str, words), *SMALL],
        cwd=ROOT, env=os.environ | {"SPECTRA_PROGRESS": "lines"}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stderr is not None
    for line in child.stderr:
        if '"train"' in line:
            break
    child.send_signal(signal.SIGINT)
    said = [line for line in child.stderr.read().splitlines() if not line.startswith("{")]
    assert child.wait(timeout=30) == 130
    assert len(said) == 1
    assert re.match(r"adapt: training was stopped \(SIGINT\) after step \d+ of 100000; its state is kept in ", said[0])
    assert (tmp_path / "run" / "state").is_dir()
