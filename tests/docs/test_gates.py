"""The tables of gates name every measure of a report, by long and short name, and nothing that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import reports
from tests.docs.pages import DOCS
from tests.reports.fixtures import write_run
from tests.reports.metrics.fixtures import evaluation, write_evaluation

NETWORK, DETAIL = "_world", re.compile(r"(?<=band_ratio_)\d+$|(?<=^attribute_)(size|colour|shape|texture|background)$")


def named(heading: str) -> set[str]:
    """Names in the first column of the table below these words."""
    page = (DOCS / "howto" / "ci.md").read_text(encoding="utf-8")
    rows = page.partition(f"| name, of {heading} |")[2].partition("\n\n")[0].splitlines()[2:]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}


def plain(name: str) -> str:
    """A name as the table has it: without its network, and with K or NAME for a band or an attribute."""
    return DETAIL.sub(lambda found: "K" if found[0].isdigit() else "NAME", name.removesuffix(NETWORK))


@pytest.fixture(scope="module")
def of_evaluations(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    data = evaluation(strength=(0, 1, 0.4), prompts=4, seeds=2, unrelated=2, heldout=6, train=4)
    report = reports.build([write_evaluation(tmp_path_factory.mktemp("gates") / "e.zarr", data)])
    return {quantity.name for quantity in report.quantities}


def test_the_names_of_evaluations_are_those_of_a_report(of_evaluations: set[str]) -> None:
    assert named("evaluations") == {plain(name) for name in of_evaluations}
    assert {"drift", "drift_world", "band_distance", "spectral_distance"} <= of_evaluations


def test_the_names_of_training_runs_are_those_of_a_report(tmp_path: Path) -> None:
    report = reports.build([write_run(tmp_path / "a", "lora"), write_run(tmp_path / "b", "fera")])
    assert named("training runs") == {quantity.name for quantity in report.quantities}


def test_gates_that_the_page_shows_ask_for_names_that_it_lists() -> None:
    page = (DOCS / "howto" / "ci.md").read_text(encoding="utf-8")
    gates = re.findall(r"[`\"](\w+)(?:\.low|\.high)?(?:@\w+)?[<>]=?[\d$]", page)
    assert len(gates) > 5
    assert set(gates) - {"x"} <= named("evaluations")
