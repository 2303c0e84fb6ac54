"""What long commands tell a log file: a line now and then, and JSON for programs."""

from __future__ import annotations

import json

import pytest

from cli import watching
from cli.watching import logged_bar, training_bar


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_a_log_gets_a_line_when_the_last_one_is_old(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    monkeypatch.setattr(watching, "time", clock)
    with logged_bar("evaluating") as progress:
        for done in range(1, 9):
            clock.now += 12
            progress("sample", done, 8)
        clock.now += 1
        progress("validate", 1, 2)
        clock.now += 40
        progress("features", 4, 8)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "evaluating: generating pictures, 3 of 8, 36 s",
        "evaluating: generating pictures, 6 of 8, 72 s",
        "evaluating: looking at the pictures, 4 of 8, 137 s",
    ]


def test_programs_get_json_lines_of_both(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SPECTRA_PROGRESS", "lines")
    with logged_bar("x") as progress, training_bar("y") as (trained, _):
        progress("sample", 1, 2)
        trained("train", 3, 4)
    told = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert told == [{"phase": "sample", "done": 1, "total": 2}, {"phase": "train", "done": 3, "total": 4}]
