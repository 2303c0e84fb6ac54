"""`adapt evaluate` on an evaluation that exists: an adapter is enough, and one line says what else it goes by."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapt import open_evaluation
from adapt.evaluation.protocol import Protocol
from adapt.evaluation.store import read_protocol
from cli import adding, watching
from spectra.errors import UserError
from tests.adapt.evaluation.kinds import denoiser_file, merged, strong_lora
from tests.cli.test_evaluate_command import copied, files, words
from tests.conftest import Command

PROTOCOL = Protocol(
    "mini", "0", 20, 2.5, {"height": 64, "width": 32}, {}, "cpu", 4, ["a", "b"], [0], ["c"], "held", "learned", {},
    {}, {}, [{"name": "world"}, {"name": "clip"}], ["auto"],
)  # fmt: skip


def test_an_adapter_is_added_without_saying_again_how_the_others_were_made(command: Command, tmp_path: Path) -> None:
    out = copied(tmp_path)
    before = read_protocol(out)
    done = command("adapt", "evaluate", denoiser_file(), "--out", out)
    assert done.code == 0
    assert done.err == (
        f"Taken from {out}: model {before.model}, 3 prompts, seeds 0:2, 2 steps, guidance 3, 64 x 64 pixels, "
        f"held-out pictures {before.data}, batches of 8.\n"
    )
    assert open_evaluation(out).adapter.values.tolist() == ["base", "strong", "merged", "weights"]
    again = command("adapt", "evaluate", denoiser_file(), *words(), "--out", out)
    assert (again.code, again.err) == (0, f"Nothing to do: {denoiser_file()} is in {out} already.\n")


def test_programs_that_read_lines_of_json_get_nothing_else(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECTRA_PROGRESS", "lines")
    out = copied(tmp_path)
    asked = ("adapt", "evaluate", denoiser_file(), merged(), "--out", out)
    said = [[json.loads(line) for line in command(*asked).err.splitlines()] for _ in range(2)]
    notes = [[line["note"] for line in lines if "note" in line] for lines in said]
    assert [len(one) for one in notes] == [1, 1]
    assert notes[0][0].startswith(f"Taken from {out}: model ")
    assert notes[1] == [f"Nothing to do: all 2 adapters are in {out} already."]
    assert {"phase", "done", "total"} == set().union(*(line for line in said[0] if "note" not in line))


def test_an_adapter_that_is_given_twice_is_said_in_one_line(command: Command, tmp_path: Path) -> None:
    done = command("adapt", "evaluate", strong_lora(), strong_lora(), *words(), "--out", copied(tmp_path))
    assert f"given more than once, counted once: {strong_lora()}." in done.err


def test_what_differs_is_refused_in_one_sentence_and_the_rest_is_left_out(command: Command, tmp_path: Path) -> None:
    out = copied(tmp_path)
    before = files(out)
    asked = ("adapt", "evaluate", denoiser_file(), "--out", out)
    assert "seeds was [0, 1], is [0, 1, 2]" in command(*asked, "--seeds", "0:3").refused()
    assert "--seeds '' is not understood" in command(*asked, "--seeds", "").refused()
    assert files(out) == before


def test_a_new_evaluation_is_asked_for_prompts(command: Command, tmp_path: Path) -> None:
    said = command("adapt", "evaluate", denoiser_file(), "--out", tmp_path / "new.zarr").refused()
    assert f"there is no evaluation at {tmp_path / 'new.zarr'}, and a new one needs prompts: give --prompt TEXT" in said


def test_a_place_with_something_else_is_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    assert "it holds no zarr group" in command("adapt", "evaluate", "base", "--out", tmp_path).refused()


def test_a_device_that_is_not_there_is_refused(command: Command, tmp_path: Path) -> None:
    asked = ("adapt", "evaluate", "base", *words(), "--device", "cuda:99", "--out", tmp_path / "e.zarr")
    assert "the device 'cuda:99' cannot be used; give one that is here: " in command(*asked).refused()


def test_a_log_gets_lines_and_json_stays_json(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "EVERY", 0.0)
    done = command("adapt", "evaluate", denoiser_file(), "--out", copied(tmp_path), "--json")
    lines = done.err.splitlines()
    assert done.code == 0
    assert lines[0].startswith("evaluating: reading the pictures, ")
    assert next(line for line in lines if "generating" in line).startswith("evaluating: generating pictures, 0 of 6, ")
    assert any(line.startswith("evaluating: generating pictures, 6 of 6, ") for line in lines)
    assert sum(line.startswith("Taken from ") for line in lines) == 1
    assert len(json.loads(done.out)["measures"]) > 3


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ([], "nothing whole yet"),
        (["base"], "the base alone"),
        (["base", "a"], "the base and 1 adapter (a)"),
        (["base", *"abcdefghij"], "the base and 10 adapters (a, b, c, d, e, f, g, h and 2 more)"),
    ],
)
def test_what_an_evaluation_holds_is_said_in_a_few_words(
    held: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adding, "labels_in", lambda _: held)
    with pytest.raises(UserError, match=f"and e s.zarr holds {re.escape(said)}; give runs of ") as refused:
        adding.named([], Path("e s.zarr"), prompts=True)
    assert ("`adapt report 'e s.zarr'`" in str(refused.value)) == (len(held) > 1)


def test_an_evaluation_of_the_base_alone_goes_on_where_it_was_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adding, "labels_in", lambda _: [])
    assert adding.named(None, Path("e.zarr"), model=True, prompts=True) == []
    assert adding.named(["a"], Path("e.zarr")) == ["a"]


def test_the_base_alone_is_there_already_where_adapters_were_added(command: Command, tmp_path: Path) -> None:
    out = copied(tmp_path)
    before = files(out)
    done = command("adapt", "evaluate", *words(), "--out", out)
    assert (done.code, done.err) == (0, f"Nothing to do: the base is in {out} already.\n")
    said = command("adapt", "evaluate", *words()[2:], "--out", out).refused()  # without --model, adapters are missing
    assert "holds the base and 2 adapters (strong, merged); give runs of `adapt train`, adapter folders, LoRA" in said
    assert files(out) == before


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (
            {"pictures": {}, "unrelated": []},
            "This evaluation was begun without held-out pictures (--data) and unrelated prompts (--unrelated), which",
        ),
        (
            {"pictures": {"heldout": {"count": 1}}, "unrelated": []},
            "This evaluation was begun without unrelated prompts (--unrelated), which cannot be added later",
        ),
        ({"pictures": {"heldout": {"count": 1}}, "unrelated": ["b"]}, ""),
    ],
)
def test_what_has_to_be_given_at_the_beginning_is_said_with_the_base(held: dict[str, Any], said: str) -> None:
    told = adding.begun_without(replace(PROTOCOL, **held))
    assert told.startswith(said)
    assert bool(told) == bool(said)


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ([7], "seed 7"), ([0, 1, 2], "seeds 0:3"), ([1, 4, 7], "seeds 1,4,7"), ([2, 1], "seeds 2,1"),
        (list(range(0, 40, 2)), "20 seeds"),
    ],
)  # fmt: skip
def test_seeds_are_said_as_the_option_takes_them(seeds: list[int], said: str) -> None:
    assert adding._seeds(seeds) == said


def test_everything_that_a_store_says_is_named_and_nothing_that_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapt.evaluation.store.exists", lambda _: True)
    monkeypatch.setattr("adapt.evaluation.store.read_protocol", lambda _: PROTOCOL)
    nothing = dict.fromkeys(adding._words(PROTOCOL))
    assert adding.taken(Path("e.zarr"), nothing) == (
        "Taken from e.zarr: model mini, 2 prompts, 1 unrelated prompt, seed 0, 20 steps, guidance 2.5, 32 x 64 "
        "pixels, held-out pictures held, training pictures learned, features by world and clip, batches of 4"
    )
    given: dict[str, object] = dict.fromkeys(nothing, 0)
    assert adding.taken(Path("e.zarr"), given) == ""
    assert adding.taken(Path("e.zarr"), given | {"networks": []}) == "Taken from e.zarr: features by world and clip"
