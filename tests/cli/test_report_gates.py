"""Gates of `adapt report`: those that fail are named and end with code 1, and passing is said, too, on stderr."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from tests.conftest import Command
from tests.reports.metrics.fixtures import evaluation, write_evaluation


@cache
def store() -> Path:
    found = evaluation(adapters=2, prompts=2, seeds=1, unrelated=0, heldout=4, train=0, attributes=False, networks=())
    return write_evaluation(Path(mkdtemp()) / "e.zarr", found)


def test_gates_that_pass_are_said_in_one_line_that_is_not_json(command: Command, tmp_path: Path) -> None:
    asked = ("adapt", "report", store(), "--out", tmp_path / "r.html", "--json")
    passed = command(*asked, "--fail-if", "error_ratio>99", "--fail-if", "error_ratio<0.001")
    assert (passed.code, passed.err) == (0, "2 gates, none true.\n")
    assert json.loads(passed.out)["failures"] == []
    assert command(*asked).err == ""


def test_a_gate_that_fails_is_named_and_the_others_are_not_said_to_pass(command: Command, tmp_path: Path) -> None:
    asked = ("adapt", "report", store(), "--out", tmp_path / "r.html")
    failed = command(*asked, "--fail-if", "error_ratio>0.001", "--fail-if", "error_ratio>99")
    assert failed.code == 1
    assert failed.err.startswith("gate 'error_ratio>0.001': ")
    assert len(failed.err.splitlines()) == 1
