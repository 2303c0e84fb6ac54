"""`spectra compare`: what differs, how surely, and a gate that fails when it should."""

from __future__ import annotations

import errno
import json
import math
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from cli.compare import Worst, failures, telling, worst, write_junit
from spectra.errors import UserError
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
    *bands, pairing = root.iter("testcase")
    assert pairing.get("name") == "pairing"
    assert pairing.find("failure") is None
    cases = {(case.get("classname"), int(str(case.get("name")).split()[1])): case for case in bands}
    assert len(cases) == len(facts["largest"]) == int(root.get("tests", "0")) - 1
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


def test_a_signal_named_twice_is_compared_once(cubes: tuple[Path, Path], command: Command) -> None:
    a, b = cubes
    once, twice = (command("spectra", "compare", a, b, *["--signal", "latent"] * n, "--json") for n in (1, 2))
    assert twice.code == 0
    assert json.loads(once.out) == json.loads(twice.out)


def test_junit_is_valid_whatever_a_foreign_cube_calls_its_signals(tmp_path: Path) -> None:
    rows = [Worst("\x1b[31m<b>&", 0, 1, 0.5, 0.4, 0.6)]
    write_junit(tmp_path / "j.xml", rows, 0.1, 1.0)
    case = ET.parse(tmp_path / "j.xml").find(".//testcase")
    assert case is not None
    assert case.get("classname") == " [31m<b>&"


def test_a_junit_file_that_cannot_be_written_is_not_there_in_part(tmp_path: Path, monkeypatch: Any) -> None:
    def full(self: Any, place: Path, **options: Any) -> None:
        place.write_text("<testsui")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ET.ElementTree, "write", full)
    with pytest.raises(UserError, match=r"cannot write .*j\.xml: No space left on device; choose another"):
        write_junit(tmp_path / "j.xml", [], 0.1, 1.0)
    assert not list(tmp_path.iterdir())


def cells(*values: float) -> xr.Dataset:
    """A comparison of one band, one value a step."""
    column = ("step", "band"), np.array(values)[:, None]
    return xr.Dataset(dict.fromkeys(("value", "low_all", "high_all"), column), {"signal": "latent"})


def test_a_band_that_vanished_fails_the_gate_and_cells_without_a_value_do_not_hide_it() -> None:
    for values, step in (((-math.inf,) * 3, 0), ((math.nan, -math.inf, 0.0), 1), ((math.nan, 0.0, 0.2), 2)):
        rows = worst(cells(*values))
        assert [row.step for row in rows] == [step]
        assert failures(rows, 0.1) == rows


def test_a_gate_that_compared_nothing_does_not_pass() -> None:
    with pytest.raises(UserError, match="nothing was compared"):
        worst(cells(math.nan, math.nan))


def test_runs_without_a_partner_fail_the_gate(cubes: tuple[Path, Path], command: Command, tmp_path: Path) -> None:
    junit, words = tmp_path / "j.xml", ["compare", cubes[0], cubes[0], "--only-b", "seed=1"]
    done = command("spectra", *words, "--fail-above", "10", "--junit", junit)
    assert done.code == 1
    assert "The gate fails, for there are runs without a partner in the other cube: 3 of A, 0 of B" in done.out
    (failure,) = ET.parse(junit).getroot().iter("failure")
    assert "3 of A" in str(failure.get("message"))
    assert json.loads(command("spectra", *words, "--fail-above", "10", "--json").out)["pairing_failed"]
    assert command("spectra", *words).code == 0


def test_the_table_shows_a_sure_difference_rather_than_a_larger_one_that_is_not() -> None:
    values = {"value": [0.1, 0.5], "low_all": [0.05, -0.2], "high_all": [0.15, 1.2]}
    parts = {name: (("step", "signal", "band"), np.reshape(column, (2, 1, 1))) for name, column in values.items()}
    compared = xr.Dataset(parts, {"signal": ["latent"]})
    assert [row.step for row in worst(compared)] == [1]
    assert [row.step for row in telling(compared)] == [0]
    unsure = compared.isel(step=[1])
    assert [row.value for row in telling(unsure)] == [0.5]
    assert not telling(unsure)[0].sure


def test_runs_of_several_settings_are_chosen_from_on_both_sides(command: Command, mixed: Path) -> None:
    said = command("spectra", "compare", mixed, mixed).refused()
    assert "holds runs of 2 settings" in said
    assert "--only-a" in said
    done = command("spectra", "compare", mixed, mixed, "--only-a", "adapter=one", "--only-b", "adapter=two", "--json")
    assert json.loads(done.out)["paired"] == 2


def test_the_table_says_one_thing_a_line_and_large_changes_as_factors() -> None:
    from cli.compare import percent, table
    from spectra.analysis import compare
    from tests.spectra.synthetic import synthetic_cube

    cube = synthetic_cube(3, 1, 4)
    compared = compare(cube, cube)
    shown = table(compared, telling(compared), "a against b")
    assert shown.title_justify == shown.caption_justify == "left"
    assert all(line.endswith(".") and ". " not in line for line in str(shown.caption).splitlines())
    assert [percent(math.log(factor)) for factor in (1.05, 0.2, 152)] == ["+5.00 %", "-80.00 %", "×150"]
