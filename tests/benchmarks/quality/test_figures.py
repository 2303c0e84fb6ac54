from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.quality import figures, numbers
from benchmarks.quality.summary import Compared
from reports.statistics import Ratio
from tests.benchmarks.quality.synthetic import experiment

CELL = ("mini", "style")
ENDS = {"fera-prior": (0.97, 1.01), "fera-random": (0.985, 1.005), "fera-clock": (0.99, 1.03), "ia3": (1.58, 1.62)}
"""Intervals as the experiment has them: per cents wide, and one arm far off."""


@cache
def data() -> xr.Dataset:
    return numbers.collect(experiment(Path(mkdtemp()), {"lora": 1.0, "fera-prior": 0.99}))


def compared() -> list[Compared]:
    ratios = {arm: Ratio((low + high) / 2, low, high, 5, 16, "") for arm, (low, high) in ENDS.items()}
    return [Compared(arm, "lora", ratio, {CELL: ratio}) for arm, ratio in ratios.items()]


def intervals(axis: Axes) -> dict[float, tuple[float, float]]:
    """Row -> both ends of the interval that is drawn in it."""
    lines = [np.asarray(line.get_xydata()) for line in axis.get_lines()[1:]]
    return {float(line[0, 1]): (line[0, 0], line[1, 0]) for line in lines if len(line) == 2}


def test_intervals_of_the_forest_are_longer_than_their_dots() -> None:
    figure = figures.forest(compared())
    figure.draw_without_rendering()
    axis = figure.axes[1]
    wide = axis.get_window_extent().width / np.ptp(axis.get_xlim())
    dot = max(line.get_markersize() for line in axis.get_lines() if len(line.get_xdata()) == 1) * figure.dpi / 72
    shown = intervals(axis)
    assert set(shown) == {0.0, 1.0, 2.0}
    assert all((high - low) * wide > 3 * dot for low, high in shown.values())


def test_a_ratio_far_off_does_not_widen_the_frame_and_is_written_at_its_end() -> None:
    figure = figures.forest(compared())
    for axis in figure.axes:
        assert axis.get_xlim()[1] < 1.1
        assert [text.get_text() for text in axis.texts] == ["1.60 →"]
        assert axis.get_xlim()[0] < 0.97
        assert axis.get_xlim()[1] > 1.03


def test_an_interval_that_the_frame_cuts_ends_in_a_head() -> None:
    figure = Figure()
    axis = figure.subplots()
    figures.forest_panel(axis, [Ratio(1.0, 0.9, 1.02, 3, 4, "")], "", 0.05)
    heads = {line.get_marker(): float(line.get_xdata()[0]) for line in axis.get_lines() if len(line.get_xdata()) == 1}
    assert heads == {"<": 0.95, "o": 1.0}


def test_learning_curves_are_ratios_to_lora_at_the_same_step() -> None:
    figure = figures.learning_curves(data())
    cell = numbers.cells(data())[0]
    lora, own = (
        numbers.curve_of(data(), numbers.rows_of(data(), cell, arm))[1].mean((0, 2)) for arm in ("lora", "fera-prior")
    )
    drawn = {line.get_label(): line for line in figure.axes[0].get_lines()}
    line = drawn["FeRA, start from the prior"]
    np.testing.assert_allclose(line.get_ydata(), own / lora)
    assert line.get_xdata().tolist() == [0, 60, 120]
    assert "LoRA" not in drawn


@pytest.mark.parametrize("draw", [figures.learning_curves, figures.levels])
def test_every_cell_with_runs_of_lora_and_another_arm_has_a_panel(draw: Callable[[xr.Dataset], Figure]) -> None:
    titles = {axis.get_title() for axis in draw(data()).axes}
    assert titles == {"mini-flow, style", "mini-flow, subject", "mini, style", "mini, subject"}


def test_arms_that_the_curves_do_not_show_leave_them_empty(tmp_path: Path) -> None:
    few = numbers.collect(experiment(tmp_path, {"lora": 1.0, "ia3": 1.2}, 2, ("mini",)))
    assert [axis.axison for axis in figures.learning_curves(few).axes] == [False]
