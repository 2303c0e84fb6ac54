"""How to reproduce: the versions by a command that works in a clone, and every call that an evaluation was made by."""

from __future__ import annotations

import json
from pathlib import Path

from reports.closing_sections import commands_of, pinned
from reports.evaluated import read_evaluation
from tests.reports.fixtures import text
from tests.reports.metrics.fixtures import evaluation, write_evaluation


def written(folder: Path, called: list[str] | None) -> Path:
    """A small evaluation, with the commands of its rows where it keeps them; its protocol says `first`."""
    data = evaluation(
        adapters=2, prompts=2, seeds=1, unrelated=0, heldout=4, train=0, attributes=False, networks=()
    )  # fmt: skip
    protocol = json.loads(data.attrs["protocol"]) | {"command": "first"}
    data = data.assign_attrs(protocol=json.dumps(protocol))
    if called is not None:
        data = data.assign_coords(command=("adapter", text(*called)))
    return write_evaluation(folder / "e.zarr", data)


def test_versions_are_installed_in_a_clone_and_a_build_of_pytorch_from_its_own_index() -> None:
    made = {"spectra-adapt": "0.1.0", "torch": "2.13.0+cpu", "numpy": "2.4.0", "diffusers": "0.42.1"}
    words, command = pinned([made, made | {"numpy": "2.3.0"}])
    assert words == "Install the versions that made these numbers, in a clone of spectra-adapt 0.1.0."
    assert command == (
        "pip install . torch==2.13.0+cpu diffusers==0.42.1 --extra-index-url https://download.pytorch.org/whl/cpu"
    )
    assert pinned([made | {"torch": "2.13.0+cu130"}])[1].endswith(
        " --extra-index-url https://download.pytorch.org/whl/cu130"
    )
    assert "torch==2.13.0 " in pinned([made | {"torch": "2.13.0+git1234"}])[1]
    assert pinned([{}]) == ("", "")


def test_every_call_that_added_adapters_is_there_once(tmp_path: Path) -> None:
    found = read_evaluation(written(tmp_path, ["first", "first", "second --name 'a b'"]))
    assert commands_of(found) == "first\nsecond --name 'a b'"


def test_a_store_of_before_names_its_first_call_and_what_was_added_since(tmp_path: Path) -> None:
    for name in ("old", "both"):
        (tmp_path / name).mkdir()
    assert commands_of(read_evaluation(written(tmp_path / "old", None))) == "first"
    assert commands_of(read_evaluation(written(tmp_path / "both", ["", "", "third"]))) == "first\nthird"
