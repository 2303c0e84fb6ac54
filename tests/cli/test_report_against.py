"""`adapt report --against NAME`: all are compared with that one, and a name that is not there is one sentence."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from tests.conftest import Command
from tests.reports.metrics.fixtures import evaluation, write_evaluation


@cache
def store() -> Path:
    found = evaluation(adapters=3, prompts=2, seeds=1, unrelated=0, heldout=4, train=0, attributes=False, networks=())
    return write_evaluation(Path(mkdtemp()) / "e.zarr", found)


def test_all_are_compared_with_the_one_that_is_named(command: Command, tmp_path: Path) -> None:
    done = command("adapt", "report", store(), "--against", "lora-1", "--out", tmp_path / "r.html", "--json")
    (found,) = json.loads(done.out)["evaluations"]
    assert done.code == 0
    assert {(one["a"], one["b"]) for one in found["comparisons"]} == {("fera-0", "lora-1"), ("dora-2", "lora-1")}


def test_people_read_what_is_not_tested(command: Command, tmp_path: Path) -> None:
    done = command("adapt", "report", store(), "--against", "base", "--out", tmp_path / "r.html")
    said = " ".join(done.out.split())
    assert "compared with the base model alone, which was chosen" in said
    assert f"`adapt report {store()}` compares each with each" in said


def test_a_name_that_is_not_there_is_refused_with_those_that_are(command: Command, tmp_path: Path) -> None:
    refused = command("adapt", "report", store(), "--against", "lora", "--out", tmp_path / "r.html").refused()
    assert "nothing here is called 'lora'" in refused
    assert "give --against one of base, fera-0, lora-1, dora-2" in refused
    assert not (tmp_path / "r.html").exists()


def test_an_empty_name_such_as_an_unset_variable_is_refused(command: Command, tmp_path: Path) -> None:
    refused = command("adapt", "report", store(), "--against", "", "--out", tmp_path / "r.html").refused()
    assert "--against is empty, perhaps from a variable that is not set" in refused
    assert not (tmp_path / "r.html").exists()
