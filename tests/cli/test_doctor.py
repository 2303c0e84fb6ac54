"""`spectra doctor`: says what is in order, and what to do where something is not."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest

from spectra import doctor
from tests.conftest import Command


def test_a_good_installation_has_no_fault(command: Command) -> None:
    done = command("spectra", "doctor", "--json")
    found = {row["what"]: row for row in json.loads(done.out)}
    assert done.code == 0
    assert not [row for row in found.values() if row["state"] == "fault"]
    assert {"Python", "torch", "filter bank", "disk", "model mini", "model mini-flow"} <= found.keys()
    assert found["torch"]["words"] == importlib.metadata.version("torch")


def test_it_says_what_can_be_recorded_of_a_model(command: Command, model: Path) -> None:
    rows = json.loads(command("spectra", "doctor", "--model", model, "--json").out)
    assert any(row["what"] == "family" and "recorded as sd" in row["words"] for row in rows)
    assert any(row["what"] == "signals" and "x0 and eps can be recorded" in row["words"] for row in rows)


def test_a_missing_model_and_a_broken_cube_are_faults(command: Command, tmp_path: Path) -> None:
    done = command("spectra", "doctor", "--model", tmp_path / "none", "--cube", tmp_path / "none.zarr", "--json")
    faults = [row for row in json.loads(done.out) if row["state"] == "fault"]
    assert done.code == 1
    assert len(faults) == 2
    assert "Traceback" not in done.err


def test_a_library_that_is_too_old_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        importlib.metadata, "requires", lambda name: ["numpy>=99", "nothing-of-this-name", "x; extra == 'dev'"]
    )
    old, missing = doctor.libraries()[1:]
    assert (old.state, missing.state) == ("fault", "fault")
    assert "pip install 'numpy>=99'" in old.words
    assert "not installed" in missing.words


def test_a_filter_bank_that_is_wrong_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    from spectra.bands import FilterBank

    right = FilterBank.energies
    monkeypatch.setattr(FilterBank, "energies", lambda self, x: right(self, x) * 1.001)
    assert doctor.bank()[0].state == "fault"


def test_what_a_model_can_do_comes_first_and_in_words(command: Command, model: Path) -> None:
    rows = json.loads(command("spectra", "doctor", "--model", model, "--json").out)
    assert [row["what"] for row in rows[:5]] == [f"model {model}", "family", "signals", "guidance", "blocks"]
    guidance, blocks = (row["words"] for row in rows[3:5])
    assert "can be told apart where --guidance-scale is above 1" in guidance
    assert "down_blocks (" in blocks


def test_a_model_without_cond_and_uncond_is_said_to_have_none() -> None:
    from spectra.families import Family
    from tests.tiny import tiny_sd

    assert "input of the network" in doctor._guidance(tiny_sd(), Family("f", embedded=True)).words
    assert doctor._guidance(tiny_sd(), Family("unknown")).state == "note"
