"""What experts do: heights are energies on one scale however unequal experts are, and nothing is hidden or enlarged."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from reports import panels
from reports.figures import PAPER, band_colour, marker
from tests.reports.panels.geometry import covered, markers, words

NOISE = np.array([0.1, 10.0, 1.0])


def unequal() -> np.ndarray:
    """Energies (level, expert, band) over six powers of ten: expert 1 has next to nothing, expert 2 nothing."""
    effect = np.zeros((3, 3, 2))
    effect[:, 0] = [[8.0, 0.8], [4.0, 0.04], [2.0, 0.02]]
    effect[:, 1] = [[8e-3, 8e-4], [4e-3, 1e-7], [2e-3, 2e-4]]
    return effect


def points(figure: Figure, expert: int) -> dict[tuple[int, str], tuple[Any, bool]]:
    """Height in per cent, and whether it is hollow, by place along the axis and marker."""
    found = [line for line in figure.axes[expert].lines if line.get_marker() not in ("None", "", None)]
    return {
        (int(np.asarray(p.get_xdata())[0]), str(p.get_marker())): (
            float(np.asarray(p.get_ydata())[0]), p.get_markerfacecolor() == PAPER
        )
        for p in found
    }  # fmt: skip


def test_heights_are_energies_in_per_cent_of_the_largest_and_hollow_is_harm(drawn: list[Figure]) -> None:
    error = np.ones((3, 3, 2))
    error[1, 0, 1] = -1
    panels.specialisation("f", "t", NOISE, unequal(), error)
    first, second = points(drawn[0], 0), points(drawn[0], 1)
    assert first[2, marker(0)] == (pytest.approx(100), False)  # noise level 0.1 is the last on the axis
    assert first[0, marker(1)] == (pytest.approx(0.5), True)
    assert second[2, marker(0)] == (pytest.approx(0.1), False)
    assert [a.get_yscale() for a in drawn[0].axes] == ["log"] * 3
    assert len({a.get_ylim() for a in drawn[0].axes}) == 1


def test_the_scale_holds_all_that_is_not_negligible_and_says_what_it_is(drawn: list[Figure]) -> None:
    found = panels.specialisation("f", "t", NOISE, unequal())
    low, high = drawn[0].axes[0].get_ylim()
    assert 0.0003 < low < 0.001
    assert high > 100
    seen = [text for text, _ in words(found) if text.endswith(" %")][:6]
    assert seen == ["0.001 %", "0.01 %", "0.1 %", "1 %", "10 %", "100 %"]
    assert "Logarithmic" in found.note
    panels.specialisation("f", "t", NOISE, unequal()[:, :1])
    assert 0.05 < drawn[1].axes[0].get_ylim()[0] < 0.1  # the least is 0.25 %


def test_no_mark_is_cut_through_and_what_is_below_the_scale_stands_at_its_foot(drawn: list[Figure]) -> None:
    energies = unequal()
    energies[0, 1, 1] = 8e-9
    found = panels.specialisation("f", "t", NOISE, energies, np.ones((3, 3, 2)))
    marks = [line for axes in drawn[0].axes for line in axes.lines if line.get_marker() not in ("None", "", None)]
    lowest = drawn[0].axes[0].get_ylim()[0]
    assert len(marks) == 18
    assert not any(one.get_clip_on() for one in marks)
    assert min(float(np.asarray(one.get_ydata())[0]) for one in marks) == 0.001 > lowest
    assert "at 0.001 % or below" in found.note
    assert "foot" not in panels.specialisation("f", "t", NOISE, np.ones((3, 2, 2))).note
    assert len(markers(found)) >= 18


def test_what_cannot_be_said_is_a_small_dot(drawn: list[Figure]) -> None:
    sign = np.ones((3, 3, 2))
    sign[1, 0] = 0
    panels.specialisation("f", "t", NOISE, unequal(), sign)
    at_first = [line for line in drawn[0].axes[0].lines if len(np.asarray(line.get_xdata())) == 1]
    shapes = {int(np.asarray(p.get_xdata())[0]): (p.get_marker(), p.get_markersize()) for p in at_first}
    assert shapes[0][0] == "."
    assert shapes[1][0] == shapes[2][0] == marker(1)


def test_an_expert_that_does_nothing_is_said_to(drawn: list[Figure]) -> None:
    found = panels.specialisation("f", "t", NOISE, unequal())
    assert [text for text, _ in words(found) if text.startswith("expert")] == [
        "expert 0", "expert 1", "expert 2: below 0.001 % everywhere",
    ]  # fmt: skip
    assert np.isfinite([value for value, _ in points(drawn[0], 2).values()]).all()
    nothing = panels.specialisation("f", "t", NOISE, np.zeros((3, 2, 2)))
    assert sum(text.endswith("everywhere") for text, _ in words(nothing)) == 2


def test_the_key_has_a_mark_of_its_own_for_each_band() -> None:
    found = panels.specialisation("f", "t", NOISE, np.ones((3, 2, 8)))
    assert len({key.marker for key in found.keys}) == len({key.colour for key in found.keys}) == 8
    assert [key.label for key in found.keys][::7] == ["band 0, lowest", "band 7, highest"]
    assert set(re.findall(r"var\(--band-\d\)", found.svg)) == {key.colour for key in found.keys}
    assert len({band_colour(k, 8) for k in range(8)}) == 8


def test_words_and_marks_keep_apart() -> None:
    titles = [text for text in covered(panels.specialisation("f", "t", NOISE, unequal())) if "expert" in text]
    assert titles == []


def test_the_screen_reader_hears_where_each_expert_is_strongest() -> None:
    found = panels.specialisation("f", "t", NOISE, unequal(), np.ones((3, 3, 2)))
    said = re.findall(r"<desc[^>]*>(.*?)</desc>", found.svg)[0]
    assert "expert 0 most in band 0 at noise level 0.1, 100 % of the largest" in said
    assert "expert 1 most in band 0 at noise level 0.1, 0.1 % of the largest" in said
    assert said.endswith("Experts help in 18 and harm in 0 of 18 cells.")
