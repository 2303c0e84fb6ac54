"""Runs and a cube that tests of reports share; no test writes into them."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

import reports
from reports import Report
from reports.panels import errors, experts, forests, levels, made, measures
from reports.sections import Panel
from tests.reports.fixtures import write_cube, write_three_arms


@pytest.fixture(scope="session")
def three_arms(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_three_arms(tmp_path_factory.mktemp("arms"), samples=12)


@pytest.fixture(scope="session")
def cube(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cube(tmp_path_factory.mktemp("cube") / "mini.zarr")


@pytest.fixture(scope="session")
def report(three_arms: list[Path], cube: Path) -> Report:
    return reports.build(three_arms, cube)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures on their way into panels, in the order in which they are drawn."""
    kept: list[Figure] = []

    def keep(name: str, title: str, text: str, figure: Figure, note: str = "") -> Panel:
        kept.append(figure)
        return made(name, title, text, figure, note)

    for module in (errors, experts, forests, levels, measures):
        monkeypatch.setattr(module, "made", keep)
    return kept
