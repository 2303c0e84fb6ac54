"""`adapt train`, `adapt sample` and `adapt report`."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from cli.train_options import parse_settings
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
    assert record["error_before"] > 0
    assert record["error_after"] > 0
    assert record["set_aside"] == 0
    assert (tmp_path / "fera" / "run.json").is_file()


def test_options_win_over_the_configuration_file(command: Command, model: Path, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(f'model = "{model}"\ndata = "{pictures}"\nmethod = "lora"\nsteps = 50\nrank = 6\n')
    words = ["--config", tmp_path / "c.toml", "--steps", "1", "--out", tmp_path / "run", "--batch", "2", *SMALL]
    record = json.loads(command("adapt", "train", *words, "--json").out)
    assert (record["steps"], record["config"]["rank"]) == (1, 6)


def test_a_finished_run_is_replaced_only_when_asked(command: Command, run: Path, model: Path, pictures: Path) -> None:
    assert "or give --overwrite" in command("adapt", *train_words(model, pictures, run, "--method", "lora")).refused()
    assert command("adapt", *train_words(model, pictures, run, "--method", "lora", "--overwrite")).code == 0


def test_sampling_writes_a_picture_per_prompt_and_seed(command: Command, run: Path, tmp_path: Path) -> None:
    words = ["--prompt", "a dot", "--prompt", "../dots", "--seeds", "0:2", "--steps", "1", "--out", tmp_path / "p"]
    found = json.loads(command("adapt", "sample", run, *words, "--json").out)["pictures"]
    assert len(found) == 4
    assert {Path(one["path"]) for one in found} == set((tmp_path / "p").iterdir())
    assert [(one["prompt"], one["seed"]) for one in found] == [(p, s) for p in ("a dot", "../dots") for s in (0, 1)]
    assert {(one["steps"], one["guidance"], one["adapter"]) for one in found} == {(1, 3.0, "lora")}
    assert "give --overwrite" in command("adapt", "sample", run, *words).refused()
    assert command("adapt", "sample", run, *words, "--overwrite").code == 0


def test_an_empty_prompt_is_refused(command: Command, run: Path, tmp_path: Path) -> None:
    assert "a prompt is empty" in command("adapt", "sample", run, "--prompt", "", "--out", tmp_path / "p").refused()


def test_a_finished_training_says_what_it_reached_and_what_comes_next(
    command: Command, model: Path, pictures: Path, tmp_path: Path
) -> None:
    alone = shutil.copytree(pictures / "train", tmp_path / "alone")
    out = tmp_path / "my run"
    done = command("adapt", *train_words(model, Path(alone), out, "--method", "lora"))
    assert done.code == 0
    record = json.loads((out / "run.json").read_text())
    assert re.search(r"Validation error: [\d.e-]+ -> [\d.e-]+ \([+-][\d.]+%\)", done.out)
    assert "Measured on: 1 of 4 pictures, set aside as there is no held-out folder" in done.out
    assert f"Trained parameters: {record['trainable_parameters']}" in done.out
    assert f"{record['seconds_total']:.0f} s in all" in done.out
    for name in ("sample", "report"):
        assert f"adapt {name} '{out}' " in done.out


def test_an_interrupted_training_says_what_was_kept_and_the_same_command_goes_on(
    command: Command, model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapt.trainer import Trainer

    words = train_words(model, pictures, tmp_path / "run", "--method", "lora")
    advance = Trainer.advance

    def pressed(trainer: Trainer) -> None:
        advance(trainer)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "advance", pressed)
        done = command("adapt", *words)
    assert (done.code, done.out) == (130, "")
    assert "training was stopped (SIGINT) after step 1 of 2; its state is kept in" in done.err
    assert not (tmp_path / "run" / "run.json").exists()
    again = command("adapt", *words)
    assert again.code == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["resumed"] == 1


def test_without_a_terminal_each_measurement_is_a_line(
    command: Command, model: Path, pictures: Path, tmp_path: Path
) -> None:
    done = command(
        "adapt", *train_words(model, pictures, tmp_path / "run", "--method", "lora", "--set", "eval_every=1")
    )
    lines = [line for line in done.err.splitlines() if line.startswith("step ")]
    assert [line.split(",")[0] for line in lines] == ["step 0 of 2", "step 1 of 2", "step 2 of 2"]
    assert re.search(r"held-out error [\d.]+, loss [\d.]+ \([\d. ]+ from clean to noisy\), \d+ s$", lines[-1])


def test_a_plan_says_what_a_training_would_do_and_writes_a_figure_alone(
    command: Command, model: Path, pictures: Path, probed: Path, tmp_path: Path
) -> None:
    words = [*train_words(model, pictures, tmp_path / "run", "--prior", probed, "--method", "fera")[1:]]
    done = command("adapt", "plan", *words, "--figure", tmp_path / "plan.png")
    assert done.code == 0, done.err
    for said in ("Model", "Adapter", "Data", "Training", "Memory on the device", "Prior", "adapted", "activations: "):
        assert said in done.out
    assert [path.name for path in tmp_path.iterdir()] == ["plan.png"]
    found = json.loads(command("adapt", "plan", *words, "--json").out)
    assert found["data"]["pictures"] == 4
    assert found["memory_mib"]["total"] > found["memory_mib"]["denoiser"] > 0
    assert found["epochs"] == pytest.approx(2 * 2 / 4)


def test_a_plan_refuses_what_training_would_refuse(
    command: Command, model: Path, pictures: Path, tmp_path: Path
) -> None:
    words = train_words(model, pictures, tmp_path / "run", "--method", "lora", "--target", "to_w")[1:]
    assert "'to_w' matches no" in command("adapt", "plan", *words).refused()


def test_a_prior_alone_is_explained(command: Command, probed: Path, tmp_path: Path) -> None:
    done = command("adapt", "plan", "--prior", probed, "--figure", tmp_path / "prior.png")
    assert done.code == 0, done.err
    assert done.out.startswith("- Learned from ")
    assert (tmp_path / "prior.png").stat().st_size > 10_000
    assert "does not exist" in command("adapt", "plan", "--prior", tmp_path / "no.json").refused()
    assert "into 3 bands" in command("adapt", "plan", "--prior", probed, "--set", "bands=3").out
    assert "reads the noise level" in command("adapt", "plan", "--prior", probed, "--set", "router=clock").out
    assert "did you mean 'gamma'" in command("adapt", "plan", "--prior", probed, "--set", "gamme=3").refused()


def test_the_cache_is_filled_described_and_cleared(
    command: Command, model: Path, pictures: Path, tmp_path: Path
) -> None:
    words = ["--model", model, "--data", pictures, "--set", f"cache='{tmp_path}/cache'"]
    first = command("adapt", "cache", *words)
    assert first.code == 0, first.err
    assert "0 found, " in first.out
    assert ", 0 encoded" in command("adapt", "cache", *words).out
    only = ["--set", f"cache='{tmp_path}/cache'"]
    assert "pictures of" in command("adapt", "cache", *only).out
    assert json.loads(command("adapt", "cache", *only, "--prune", "0", "--json").out)["holds"] == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--set", "cahce=/somewhere", "--prune", "0"), "--set cahce=... says nothing of a cache"),
        (("--set", "cache=5"), "cache=5 is no folder"),
        (("--model", "mini", "--prune", "0"), "--model says nothing without --data"),
    ],
)
def test_a_cache_that_is_not_understood_is_not_cleared(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    entry = tmp_path / "class" / ("a" * 64)
    entry.mkdir(parents=True)
    monkeypatch.setenv("SPECTRA_CACHE", str(tmp_path))
    assert said in command("adapt", "cache", *words).refused()
    assert entry.is_dir()
    assert "1 entry removed" in command("adapt", "cache", "--prune", "0").out


def test_an_export_says_what_it_costs(command: Command, run: Path, tmp_path: Path) -> None:
    done = command("adapt", "export", run, "--format", "static-lora", "--out", tmp_path / "e", "--steps", "2")
    assert done.code == 0, done.err
    assert "pytorch_lora_weights.safetensors" in done.out
    assert "less than 0.1% of what the adapter changes" in " ".join(done.out.split())
    assert (
        "did you mean 'kohya'" in command("adapt", "export", run, "--format", "koya", "--out", tmp_path / "f").refused()
    )


def test_the_help_of_training_shows_the_defaults_of_its_configuration(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapt.config import TrainConfig

    monkeypatch.setenv("COLUMNS", "250")
    lines = command("adapt", "train", "--help").out.splitlines()
    shown = {found[1]: line for line in lines if (found := re.match(r"\W*--([a-z-]+)", line))}
    for name in ("method", "steps", "batch", "rank", "experts", "fecl_weight", "seed"):
        assert f"default: {TrainConfig.model_fields[name].default}." in shown[name.replace("_", "-")]
    assert all("required" in shown[name] for name in ("model", "data", "out"))
    assert "adapt settings" in shown["set"]


def test_all_settings_are_listed(command: Command) -> None:
    from adapt.config import TrainConfig

    rows = json.loads(command("adapt", "settings", "--json").out)
    assert [row["name"] for row in rows] == list(TrainConfig.model_fields)
    assert {row["name"]: row["choices"] for row in rows}["lr_schedule"] == ["cosine", "linear", "constant"]
    assert "one of uniform, logit_normal," in " ".join(command("adapt", "settings").out.split())
    assert "largest norm of the gradient; default: 1.0" in command("adapt", "settings").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--steps", "3", "--set", "steps=4"), "--steps and --set steps=..."),
        (("--target", "to_q", "--set", "targets=['to_k']"), "--target and --set targets=..."),
        (("--set", "clip=1", "--set", "clip=2"), "--set clip=... is given twice"),
    ],
)
def test_a_setting_that_is_given_twice_is_refused(command: Command, words: tuple[str, ...], said: str) -> None:
    assert said in command("adapt", "train", "--model", "m", "--data", "d", "--out", "o", *words).refused()


def test_a_report_is_one_file_and_its_sentences_are_printed(command: Command, run: Path, tmp_path: Path) -> None:
    made = command("adapt", "report", run, "--out", tmp_path / "r.html")
    assert (made.code, made.err) == (0, "")
    assert str(tmp_path / "r.html") in made.out
    assert "<html" in (tmp_path / "r.html").read_text()
    found = json.loads(command("adapt", "report", run, "--out", tmp_path / "r.html", "--json").out)
    printed = " ".join(made.out.split())
    shown = [words for words in found["sentences"] if words in printed]
    assert shown == found["sentences"][:3]
    assert found["warnings"]  # one seed alone
    assert all(f"- {words}" in printed.partition("Read with care:")[2] for words in found["warnings"])


def test_a_report_is_printed_within_the_terminal(
    command: Command, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    *lines, place = command("adapt", "report", run, "--out", tmp_path / "r.html").out.splitlines()
    assert place.endswith("r.html")
    assert max(map(len, lines)) <= 60


def test_files_among_the_runs_are_named_and_left_out(command: Command, run: Path, tmp_path: Path) -> None:
    (tmp_path / "figure.png").write_bytes(b"")
    made = command("adapt", "report", run, tmp_path / "figure.png", "--out", tmp_path / "r.html")
    assert made.code == 0
    assert made.err == f"{tmp_path / 'figure.png'} was left out, as it is not a run directory.\n"
