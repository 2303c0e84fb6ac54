"""`adapt evaluate` as people and scripts see it: a verdict, a table, one JSON document, and sentences for bad input."""

from __future__ import annotations

import io
import json
import shutil
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest

import reports
from adapt import open_evaluation
from adapt.evaluation import evaluating
from reports.metrics import summarise
from tests.adapt.evaluation.kinds import denoiser_file, merged, strong_lora
from tests.adapt.small import data, model
from tests.conftest import Command

PROMPTS = ("a red circle", "a house", "<b>&'ü</b>")


@cache
def words() -> list[str]:
    """Options of all evaluations here; the prompts are in a file, with a comment."""
    file = Path(mkdtemp()) / "prompts.txt"
    file.write_text("# asked\n" + "\n".join(PROMPTS) + "\n", encoding="utf-8")
    options = ["--model", model("sd"), "--prompts", file, "--seeds", "0:2", "--steps", 2, "--data", data() / "heldout"]
    return list(map(str, options))


@cache
def first() -> tuple[Path, str]:
    """A store of two adapters that is only looked at, and what was printed."""
    from cli import adapt_app, common

    out, printed = Path(mkdtemp()) / "e.zarr", io.StringIO()
    with redirect_stdout(printed):
        asked = ["evaluate", str(strong_lora()), str(merged()), *words(), "--out", str(out)]
        assert common.run(adapt_app.app, "adapt", asked) == 0
    return out, printed.getvalue()


def copied(folder: Path) -> Path:
    return Path(shutil.copytree(first()[0], folder / "e.zarr"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_people_read_a_verdict_then_a_table_of_what_decides_then_what_to_do_next() -> None:
    out, printed = first()
    lines = printed.splitlines()
    assert lines[0].startswith("merged is worse than strong: validation error ")
    assert "Against the base model strong is " in printed
    head = next(line for line in lines if "base model" in line and "strong" in line and "merged" in line)
    assert lines.index(head) > 2
    assert "validation error ↓" in printed
    assert "↓ lower is better" in " ".join(printed.split())
    assert "energy of band 0" not in printed
    assert "- no drift: no unrelated prompts were given (--unrelated)" in printed
    assert f"{out} holds the base and 2 adapters; `adapt report {out}`" in " ".join(printed.split())
    assert len(lines) < 50


def test_the_table_shows_the_measures_of_the_store_with_their_intervals() -> None:
    out, printed = first()
    row = next(line for line in printed.splitlines() if "validation error ↓" in line)
    measures = [one for one in summarise(open_evaluation(out)) if one.name == "validation_error"]
    for one in measures:
        assert f"{one.value.value:.3g} ({one.value.low:.3g} to {one.value.high:.3g})" in row.replace("−", "-")
    assert len(measures) == 3


def test_the_same_again_as_json_changes_nothing_and_says_what_the_report_says(command: Command) -> None:
    out, _ = first()
    before = files(out)
    done = command("adapt", "evaluate", strong_lora(), merged(), *words(), "--out", out, "--json")
    found = json.loads(done.out)
    assert (done.code, done.err) == (0, f"Nothing to do: all 2 adapters are in {out} already.\n")
    assert files(out) == before
    expected = [(one.name, one.adapter, one.value.value) for one in summarise(open_evaluation(out))]
    assert [(one["name"], one["adapter"], one["value"]["value"]) for one in found["measures"]] == expected
    assert {"band_ratio_0", "validation_error"} <= {one["name"] for one in found["measures"]}
    pairs = {(one["a"], one["b"]) for one in found["comparisons"]}
    assert pairs == {("merged", "strong"), ("strong", "base"), ("merged", "base")}
    assert found["missing"]
    assert found["sentences"][0] == reports.build([out]).sentences[0]


def test_an_adapter_is_added_under_its_name_whatever_that_is_and_the_others_stay(
    command: Command, tmp_path: Path
) -> None:
    out, name = copied(tmp_path), "[bold]ü[/bold]\x1b[31m"
    before = open_evaluation(out).load()
    done = command("adapt", "evaluate", denoiser_file(), "--name", name, *words(), "--out", out)
    assert (done.code, done.err) == (0, f"Taken from {out}: guidance 3, 64 x 64 pixels, batches of 8.\n")
    found = open_evaluation(out)
    assert found.adapter.values.tolist() == ["base", "strong", "merged", name]
    for variable in ("image", "validation_error", "energy"):
        np.testing.assert_array_equal(found[variable][:3], before[variable])
    assert "\x1b" not in done.out
    assert "[bold]ü[/bold] [31m" in done.out
    assert "holds the base and 3 adapters" in " ".join(done.out.split())


def test_the_base_alone_has_numbers_and_no_verdict(command: Command, tmp_path: Path) -> None:
    done = command("adapt", "evaluate", "base", *words()[:6], "--steps", 1, "--out", tmp_path / "e.zarr")
    assert done.code == 0
    assert "better than" not in done.out
    assert " ".join(done.out.split()).endswith("e.zarr holds the base")


def test_a_model_and_prompts_are_enough_for_the_base_alone(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "e.zarr"
    asked = ("adapt", "evaluate", *words()[:6], "--steps", 1, "--out", out)
    done, again = command(*asked), command(*asked)
    assert (done.code, again.code) == (0, 0)
    assert "begun without held-out pictures (--data) and unrelated prompts (--unrelated), which cannot be" in done.err
    assert "--unrelated" not in again.err
    assert again.err.endswith(f"Nothing to do: the base is in {out} already.\n")
    assert open_evaluation(out).adapter.values.tolist() == ["base"]
    said = command("adapt", "evaluate", "--out", out).refused()
    assert f"nothing was given to evaluate, and {out} holds the base alone; give runs of" in said
    assert "adapt report" not in said


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ((), ""),
        (("--model", "mini"), "; prompts are missing"),
        (("--prompt", "a dot"), "; --model is missing"),
        (("--model", "mini", "--seeds", "0"), "; prompts are missing"),
    ],
)
def test_with_nothing_to_evaluate_it_says_what_may_be_given(
    given: tuple[str, ...], missing: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = command("adapt", "evaluate", *given).refused()
    assert "nothing was given to evaluate, and there is no evaluation at evaluation.zarr; give runs of" in said
    assert said.endswith(f"or only --model and --prompt TEXT (or --prompts FILE) to measure the base alone{missing}.")
    assert not list(tmp_path.iterdir())


def test_ctrl_c_says_what_is_kept(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    out = copied(tmp_path)
    monkeypatch.setattr(evaluating, "draw", stopped)
    done = command("adapt", "evaluate", denoiser_file(), *words(), "--out", out)
    assert done.code == 130
    assert f"stopped by the keyboard; {out} keeps 3 whole models, and the same command goes on from there" in done.err
    assert open_evaluation(out).sizes["adapter"] == 3
    nothing = command("adapt", "evaluate", "base", *words()[:6], "--out", tmp_path / "new.zarr")
    assert nothing.code == 130


BAD: dict[str, tuple[list[Any], str]] = {
    "an adapter that is not there": (["gone.safetensors"], "there is no adapter at gone.safetensors"),
    "pickled weights": (["PICKLE"], "pickled weights are not read"),
    "seeds that are no seeds": (["base", "--seeds", "x"], "--seeds 'x' is not understood"),
    "no such file of prompts": (["base", "--prompts", "gone.txt"], "cannot read the prompts in gone.txt"),
    "no such file of unrelated prompts": (["base", "--unrelated", "gone.txt"], "cannot read the prompts in gone.txt"),
    "too many names": (["base", "LORA", "--name", "a", "--name", "b"], "2 names were given for 1 adapter"),
    "no steps": (["base", "--steps", "0"], "--steps"),
    "other steps": (["base", "--steps", "3"], "steps was 2, is 3"),
    "other prompts": (["base", "--prompt", "one more"], "prompts was"),
    "no such network": (["base", "--network", "clap"], "did you mean"),
    "no such data": (["base", "--data", "gone"], "gone"),
}
"""What is wrong -> (arguments, a piece of the sentence)."""


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_sentence_and_nothing_is_lost(
    what: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given, sentence = BAD[what]
    Path("PICKLE.pt").write_bytes(b"\x80")
    places = {"PICKLE": "PICKLE.pt", "LORA": strong_lora()}
    before = files(first()[0])
    asked = [*words(), *(places.get(word, word) for word in given), "--out", first()[0]]
    assert sentence in command("adapt", "evaluate", *asked).refused()
    assert files(first()[0]) == before
