"""`spectra compare`: what differs, how surely, and a gate that fails when it should."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.conftest import Command


@pytest.fixture(scope="module")
def cubes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same prompts and seeds under two spectra of the analytic model: the second falls less with frequency."""
    from spectra.probe import probe

    folder = tmp_path_factory.mktemp("cubes")
    stores = folder / "steep.zarr", folder / "flat.zarr"
    for store, exponent in zip(stores, ("2.0", "1.9"), strict=True):
        probe(f"gaussian:2x8x8:{exponent}", ["one", "two", "three"], [0, 1], 4, store, signals=("latent", "x0"))
    return stores


def test_equal_cubes_pass_any_gate(cubes: tuple[Path, Path], command: Command) -> None:
    done = command("spectra", "compare", cubes[0], cubes[0], "--fail-above", "0", "--json")
    facts = json.loads(done.out)
    assert done.code == 0
    assert facts["failed"] == 0
    assert facts["paired"] == 6
    assert all(row["value"] == 0 for row in facts["largest"])


def test_a_change_fails_the_gate_and_junit_says_where(
    cubes: tuple[Path, Path], command: Command, tmp_path: Path
) -> None:
    junit = tmp_path / "ci" / "spectra.xml"
    done = command("spectra", "compare", cubes[1], cubes[0], "--fail-above", "0.01", "--junit", junit, "--json")
    facts = json.loads(done.out)
    assert done.code == 1
    failed = {(row["signal"], row["band"]) for row in facts["largest"] if row["failed"]}
    root = ET.parse(junit).getroot()
    cases = {(case.get("classname"), int(str(case.get("name")).split()[1])): case for case in root.iter("testcase")}
    assert len(cases) == len(facts["largest"]) == int(root.get("tests", "0"))
    assert {key for key, case in cases.items() if case.find("failure") is not None} == failed
    assert len(failed) == facts["failed"] == int(root.get("failures", "0"))
    top = max(facts["largest"], key=lambda row: row["value"])
    assert top["band"] == max(row["band"] for row in facts["largest"])  # less steep: more energy in the top band
    assert top["percent"] == pytest.approx(100 * math.expm1(top["value"]))


def test_the_gate_is_about_size_and_not_direction(cubes: tuple[Path, Path], command: Command) -> None:
    for pair in (cubes, cubes[::-1]):
        assert command("spectra", "compare", *pair, "--fail-above", "0.01").code == 1
        assert command("spectra", "compare", *pair, "--fail-above", "10").code == 0


def test_the_figure_and_the_table_are_for_people(cubes: tuple[Path, Path], command: Command, tmp_path: Path) -> None:
    figure = tmp_path / "heat.svg"
    done = command("spectra", "compare", *cubes, "--signal", "latent", "--figure", figure)
    assert done.code == 0
    assert "6 pairs of runs" in " ".join(done.out.split())
    assert "x0" not in done.out
    assert "hatched" in figure.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--junit", "x.xml"], "--fail-above"),
        (["--signal", "cond"], "has no signal 'cond'"),
        (["--figure", "x.doc"], "name it .png, .svg or .pdf"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    cubes: tuple[Path, Path], command: Command, words: list[str], reason: str
) -> None:
    assert reason in command("spectra", "compare", *cubes, *words).refused()


def test_cubes_of_different_steps_are_not_compared(cubes: tuple[Path, Path], command: Command, tmp_path: Path) -> None:
    from spectra.probe import probe

    probe("gaussian:2x8x8:2.0", ["one"], [0], 3, tmp_path / "short.zarr", signals=("latent", "x0"))
    said = command("spectra", "compare", cubes[0], tmp_path / "short.zarr").refused()
    assert "steps are 5 here and 4 there" in said
