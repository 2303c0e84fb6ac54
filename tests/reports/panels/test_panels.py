"""Every panel puts what it was given where a reader and a screen reader find it."""

from __future__ import annotations

import re
import warnings
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import panels
from reports.figures import PAPER, panel, to_svg
from reports.panels.panel import fitting
from reports.panels.predictions import prediction_energies
from reports.sections import Mark, Panel

NOISE = np.array([0.1, 10.0, 1.0])
HOSTILE = '<b>x</b> & $\\frac{1}{ #000201 id="y" 0.123456 日本'


def mark(value: float, width: float = 0.1, holds: bool = True) -> Mark:
    return Mark(value, value - width, value + width, holds)


def texts(found: Panel) -> list[str]:
    """All text in a figure, in order, as a browser would show it."""
    return ["".join(one.itertext()) for one in ET.fromstring(found.svg).iter() if one.tag.endswith("text")]


def described(found: Panel, kind: str) -> str:
    """The title or the description of a figure."""
    return next(str(one.text) for one in ET.fromstring(found.svg).iter() if one.tag.endswith(kind))


def test_words_and_numbers_in_a_figure_are_exactly_those_given() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = panels.forest("f", HOSTILE, [(HOSTILE, 0, mark(0.123456))], "neutral", axis=HOSTILE)
    shown = texts(found)
    assert " ".join(shown).count(HOSTILE) == 2  # the label and the axis, in lines
    assert "0.123" in shown
    assert described(found, "title") == HOSTILE
    assert "var(--arm-0)" in found.svg


def entitled(axes: Axes) -> None:
    """A title that looks like mark-up."""
    axes.set_title('href="#a" url(#a) id="a" 1.23456')


def test_text_is_never_taken_for_mark_up() -> None:
    svg = to_svg(panel(entitled), "n", "t", "x")
    assert 'href="#a" url(#a) id="a" 1.23456' in "".join(ET.fromstring(svg).itertext())


def test_points_are_hollow_where_no_difference_holds(drawn: list[Figure]) -> None:
    panels.forest("f", "t", [("a", 0, mark(1.0)), ("b", 1, mark(2.0, holds=False)), ("base", -1, Mark(3.0))])
    points = [line for line in drawn[0].axes[0].lines if line.get_marker() not in ("None", "", None)]
    assert [float(np.asarray(p.get_xdata())[0]) for p in points] == [1.0, 2.0, 3.0]
    assert [p.get_markerfacecolor() == PAPER for p in points] == [False, True, False]


def test_small_multiples_have_a_scale_per_band_and_the_highest_band_above(drawn: list[Figure]) -> None:
    cells = [[mark(1 + 0.1 * k + 0.01 * b) for b in range(2)] for k in range(3)]
    panels.level_bands("f", "t", NOISE, cells, 0, [(0.5, 2.0), (0.9, 1.4)])
    above, below = drawn[0].axes
    assert [above.get_ylim(), below.get_ylim()] == [(0.9, 1.4), (0.5, 2.0)]
    heights = [float(np.asarray(p.get_ydata())[0]) for p in above.lines if p.get_marker() == "s"]
    assert heights == [cells[k][1].value for k in (1, 2, 0)]  # the noisiest level on the left
    assert [tick.get_text() for tick in below.get_xticklabels()] == ["10", "1", "0.1"]


def test_the_cursor_of_the_energies_stands_at_the_steps() -> None:
    energies = np.array([[1.0, 2.0], [2.0, 3.0], [4.0, 5.0]])
    found, places = prediction_energies("e", [("a", 0, energies)], [0, 5, 9])
    assert np.diff(places) == pytest.approx([places[1] - places[0]] * 2, abs=0.02)
    line = re.findall(r'class="cursor" x1="([\d.]+)" x2="([\d.]+)"', found.svg)
    assert line == [(str(places[1]), str(places[1]))]
    ticks = {
        float(x) for x, _ in re.findall(r'<use xlink:href="#[\w-]+" x="([\d.]+)" y="([\d.]+)"', found.svg)
    }  # fmt: skip
    for place in places:
        assert min(abs(place - x) for x in ticks) < 0.05


def test_labels_of_any_length_fit() -> None:
    assert fitting("short") == ("short", 10.5)
    long, size = fitting("x" * 55)
    assert (long, size < 10.5) == ("x" * 55, True)
    cut, size = fitting("begin" + "x" * 200 + "end")
    assert cut.startswith("begin")
    assert cut.endswith("end")
    assert "…" in cut
    assert len(cut) * size <= 52 * 10.5 + 10.5


def test_an_overview_has_every_task_and_every_arm() -> None:
    tasks = [(task, [("LoRA", 0, mark(0.9)), ("DoRA", 1, mark(1.1))]) for task in ("first", "second")]
    found = panels.overview("o", "t", tasks, axis="change")
    assert [text for text in texts(found) if text in ("first", "second", "LoRA", "DoRA")] == [
        "first", "LoRA", "DoRA", "second", "LoRA", "DoRA",
    ]  # fmt: skip
    assert "−10 %" in " ".join(texts(found)).replace("−10.0 %", "−10 %")


def test_missing_numbers_leave_a_dash_and_no_point(drawn: list[Figure]) -> None:
    found = panels.forest("f", "t", [("a", 0, Mark(np.nan)), ("b", 1, mark(1.0))])
    assert "–" in texts(found)
    assert len([p for p in drawn[0].axes[0].lines if p.get_marker() not in ("None", "", None)]) == 1


def test_the_screen_reader_hears_every_value() -> None:
    found = panels.nearest("n", "t", [("held-out", -1, np.array([0.5, 0.7])), ("a", 0, np.array([0.25, 0.75]))], 0.3)
    said = described(found, "desc")
    assert said == "distance to the nearest training picture: held-out median 0.6, least 0.5; a median 0.5, least 0.25."
