"""Runs and a cube that tests of reports share; no test writes into them."""

from __future__ import annotations

from pathlib import Path

import pytest

import reports
from reports import Report
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
