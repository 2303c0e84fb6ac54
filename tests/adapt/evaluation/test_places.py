"""Paths in a store: those of this machine are found from any folder, names of other places are kept."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from adapt.evaluation import places
from adapt.evaluation.references import Sources, sources_of, taken_from
from adapt.evaluation.request import Request
from adapt.evaluation.store import read_protocol
from spectra.errors import UserError
from tests.adapt.evaluation.kinds import evaluated, protocol, strong_lora, two
from tests.adapt.small import data, model


def test_folders_and_files_become_whole_and_names_of_other_places_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mini", "clip", "pictures"):
        (tmp_path / name).mkdir()
    (tmp_path / "pictures" / "a.tar").write_bytes(b"")
    here = str(tmp_path)
    assert places.of_data("pictures") == places.of_data("./clip/../pictures") == f"{here}/pictures"
    assert places.of_data("pictures/*.tar") == f"{here}/pictures/*.tar"
    for elsewhere in ("owner/name", "https://example.org/a", "gone"):
        assert places.of_data(elsewhere) == places.of_model(elsewhere) == elsewhere
    assert (places.of_model("clip"), places.of_model("mini")) == (f"{here}/clip", "mini")  # the bundled one
    assert places.of_network("clip=clip") == f"clip={here}/clip"
    assert [places.of_network(name) for name in ("world", "dino=owner/name")] == ["world", "dino=owner/name"]


def test_an_evaluation_is_added_to_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "a")
    near = {one: os.path.relpath(place) for one, place in
            (("model", model("sd")), ("data", data() / "heldout"), ("train", data() / "train"))}  # fmt: skip
    first = evaluated(tmp_path / "e.zarr", [os.path.relpath(strong_lora())], prompts=["a"], seeds=[0], steps=1, **near)
    told = protocol(first)
    assert (told["model"], told["data"], told["train"]) == (
        str(model("sd")), str(data() / "heldout"), str(data() / "train")
    )  # fmt: skip
    assert first.path.values.tolist() == ["", str(strong_lora())]
    monkeypatch.chdir(tmp_path / "b")
    nothing = {"model": None, "prompts": None, "seeds": None, "steps": None}
    again = evaluated(tmp_path / "e.zarr", [strong_lora()], **nothing)
    assert again.adapter.values.tolist() == ["base", "strong"]


def test_what_an_older_store_says_is_found_where_it_was_given_and_named_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pictures" / "heldout").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    reading = {"data": "pictures", "heldout": "pictures/heldout"}
    old = replace(read_protocol(two()[0]), data="pictures/heldout", reading=reading)
    asked = Request(None, ["a"], [0], [], None, None, ["none"], None, None, None, None, 8)
    monkeypatch.chdir(tmp_path)
    place = str(tmp_path / "pictures")
    found = sources_of(asked, old, [])
    assert found == Sources(f"{place}/heldout", None, {"data": place, "heldout": f"{place}/heldout"})
    monkeypatch.chdir(tmp_path / "elsewhere")
    named = taken_from(old, sources_of(asked, old, []))
    said = r"^e\.zarr names the pictures pictures/heldout, .*: no hub; give the held-out"
    with pytest.raises(UserError, match=said), places.named_by(Path("e.zarr"), named):
        raise UserError("no hub")
    with pytest.raises(UserError, match=r"^torn$"), places.named_by(Path("e.zarr"), [place]):
        raise UserError("torn")
