"""What all commands share: seeds, prompts, sentences, JSON, exit codes."""

from __future__ import annotations

import json
import math
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from cli import common
from cli.common import StoppedError, application, collect_prompts, emit, kept, parse_seeds, run, sentence
from spectra.errors import UserError
from tests.conftest import Command


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("0:4", [0, 1, 2, 3]), ("7", [7]), ("1,4,7", [1, 4, 7]), ("0:2, 10", [0, 1, 10]), ("3:5,0", [3, 4, 0])],
)
def test_seeds_are_read_as_ranges_and_lists(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "-1", "4:4", "5:2", "0:", ":3", "1,,2", "0:3,1", "1.5", "0:99999999999"])
def test_seeds_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--seeds"):
        parse_seeds(text)


@given(st.integers(0, 50), st.integers(1, 50))
def test_a_range_of_seeds_is_pythons(start: int, count: int) -> None:
    assert parse_seeds(f"{start}:{start + count}") == list(range(start, start + count))


def test_prompts_come_from_options_and_a_file_in_order(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("two\n\n  three, with # and spaces \n", encoding="utf-8")
    assert collect_prompts(["one"], tmp_path / "p.txt") == ["one", "two", "three, with # and spaces"]


@pytest.mark.parametrize("empty", ["", "  \t"])
def test_an_empty_prompt_is_refused(empty: str) -> None:
    with pytest.raises(UserError, match="a prompt is empty"):
        collect_prompts(["one", empty], None)


def test_a_prompt_file_without_prompts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("\n \n")
    with pytest.raises(UserError, match="holds no prompt"):
        collect_prompts(None, tmp_path / "p.txt")


def test_a_prompt_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        collect_prompts(None, tmp_path / "p.txt")


@given(st.text())
def test_a_sentence_is_one_printable_line_that_ends(text: str) -> None:
    line = sentence(text)
    assert len(line.splitlines()) == 1
    assert line[-1] in ".?!"
    assert all(char.isprintable() or char == " " or ord(char) > 0x9F for char in line)


def test_terminal_escapes_in_names_are_not_passed_on() -> None:
    assert "\x1b" not in sentence("there is no model \x1b[31mred\x1b[0m")


def test_json_has_null_where_a_number_is_not_finite(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"a": math.inf, "b": [np.float32(0.5), math.nan], "path": Path("x"), "n": np.int64(3)})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [0.5, None], "path": "x", "n": 3}


def raising(error: BaseException) -> typer.Typer:
    app = application("An application that fails.")

    @app.command()
    def fail() -> None:
        raise error

    return app


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UserError("the folder x is empty"), 2, "tool: the folder x is empty."),
        (PermissionError(13, "Permission denied", "/x"), 2, "tool: cannot use /x: Permission denied."),
        (KeyboardInterrupt(), 130, "tool: stopped by the keyboard."),
        (StoppedError("nothing was kept"), 130, "tool: nothing was kept."),
        (StoppedError("stopped by SIGTERM", 143), 143, "tool: stopped by SIGTERM."),
    ],
)
def test_a_failure_has_its_code_and_one_sentence(
    error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(raising(error), "tool", ["fail"]) == code
    assert capsys.readouterr().err == words + "\n"


def test_a_fault_of_the_program_is_called_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(raising(RuntimeError("odd\nthing")), "tool", ["fail"]) == 1
    err = capsys.readouterr().err
    assert "fault of this program" in err
    assert "SPECTRA_DEBUG=1" in err
    assert len(err.splitlines()) == 1


def test_debugging_shows_where_an_error_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECTRA_DEBUG", "1")
    with pytest.raises(UserError, match="empty"):
        run(raising(UserError("empty")), "tool", ["fail"])


def test_progress_can_be_had_as_json_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SPECTRA_PROGRESS", "lines")
    with common.progress_bar("x") as progress:
        progress("train", 1, 2)
    assert json.loads(capsys.readouterr().err) == {"phase": "train", "done": 1, "total": 2}


def test_progress_is_silent_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with common.progress_bar("x") as progress:
        progress("train", 1, 2)
    out, err = capsys.readouterr()
    assert out + err == ""


def test_the_keyboard_is_answered_with_what_was_kept() -> None:
    with pytest.raises(StoppedError, match="stopped by the keyboard; two runs"), kept(lambda: "two runs"):
        raise KeyboardInterrupt


def test_a_bar_says_what_is_done_before_anything_is_counted() -> None:
    from rich.console import Console
    from rich.progress import Progress

    console = Console(force_terminal=True, width=80)
    bars = Progress(*common.bar_columns(), console=console)
    task = bars.add_task("x", total=None, now="loading the model")
    with console.capture() as shown:
        console.print(bars.get_renderable())
    assert "loading the model" in shown.get()
    assert "?" not in shown.get()
    bars.update(task, completed=1, total=2)
    with console.capture() as shown:
        console.print(bars.get_renderable())
    assert "1/2" in shown.get()


@pytest.mark.parametrize(("name", "words"), [("spectra", ("--version",)), ("adapt", ("--version",))])
def test_both_commands_say_their_version(command: Command, name: str, words: tuple[str, ...]) -> None:
    assert command(name, *words).out == f"{name} {version('spectra-adapt')}\n"


def test_the_best_match_of_a_misspelt_option_comes_first(command: Command) -> None:
    assert "(perhaps --steps, " in command("adapt", "train", "--stpes", "3").refused()


def test_steps_below_one_are_refused_alike(command: Command) -> None:
    said = {
        command(name, *words, "--steps", "0").refused().partition(": ")[2].partition(";")[0]
        for name, *words in (("spectra", "probe"), ("adapt", "train"), ("adapt", "sample", "x"))
    }
    assert said == {"--steps should be greater than or equal to 1"}
