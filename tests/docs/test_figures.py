"""The figures of the concept pages: each can be drawn, is shown on a page, and shows what that page says."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from matplotlib import pyplot

from tests.docs.pages import DOCS, PAGES, module, runner

figures = module("figures")
SLOW = {"coherence", "grid"}


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    pyplot.close("all")


def test_every_figure_is_shown_on_a_page_and_kept() -> None:
    shown = {name for page in PAGES for name in runner.pictures(page)}
    made = {f"concept-{name}.png" for name in figures.FIGURES}
    assert made == {name for name in shown if name.startswith("concept-")}
    assert all((DOCS / "images" / name).is_file() for name in made)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in figures.FIGURES]
)
def test_a_figure_has_something_in_every_panel(name: str) -> None:
    assert all(ax.has_data() for ax in figures.FIGURES[name]().axes)


def test_transfers_that_are_drawn_sum_to_one() -> None:
    lines = figures.bands().axes[-1].get_lines()
    drawn = np.array([line.get_ydata() for line in lines])
    np.testing.assert_allclose(drawn[:-1].sum(0), 1, atol=1e-12)
    np.testing.assert_allclose(drawn[-1], 1, atol=1e-12)


def test_low_bands_are_drawn_to_emerge_first() -> None:
    ax = figures.signals().axes[-1]
    middles = [line.get_xdata()[0] for line in ax.get_lines() if line.get_linestyle() == ":"]
    assert len(middles) == 4
    assert middles == sorted(middles)


def test_gates_that_are_drawn_have_mean_one() -> None:
    for ax in figures.experts().axes:
        gates = np.array([line.get_ydata() for line in ax.get_lines()[:3]])
        np.testing.assert_allclose(gates.mean(0), 1, atol=1e-9)
