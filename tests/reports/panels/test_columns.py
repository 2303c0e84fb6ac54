"""Words of a row stand in columns of their own, whatever they are: no line or mark runs through them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from reports import panels
from reports.panels.columns import MOST, ROOM, broken, in_lines, width, wrapped
from reports.sections import Mark, Panel
from tests.reports.panels.geometry import covered, font, lines, words

SHORT = ("base model", "LoRA", "DoRA", "FeRA")
LONG = (
    "watercolour-landscapes-lora-rank16-lr1e-4-seed0",
    "a-remarkably-long-name-that-somebody-typed-late-at-night-" * 3,
    "w" * 120,
    "水彩の風景" * 9,
)
VALUES = {
    "all left": (0.2, 0.5, 0.7, 0.8),
    "both": (0.7, 0.99, 1.3, 1.6),
    "tiny": (0.9995, 0.9999, 1.0002, 1.0004),
    "factors": (0.01, 1.0, 4.0, 30.0),
}


def marks(values: tuple[float, ...]) -> list[Mark]:
    return [Mark(value, 0.8 * value, 1.25 * value, True) for value in values]


def pairs(names: tuple[str, ...]) -> list[str]:
    return [f"{a} against {b}" for a, b in zip(names, names[1:] + names[:1], strict=True)]


def a_forest(labels: list[str], values: tuple[float, ...]) -> Panel:
    rows = [(label, i, one) for i, (label, one) in enumerate(zip(labels, marks(values), strict=True))]
    return panels.forest("f", "t", rows, "lower", 1.0, "change of held-out error", percent=True)


def an_overview(labels: list[str], values: tuple[float, ...]) -> Panel:
    rows = [(label, i, one) for i, (label, one) in enumerate(zip(labels, marks(values), strict=True))]
    return panels.overview("o", "t", [(labels[1], rows), ("style", rows[:2])], "change (left is better)")


def nearest(labels: list[str], values: tuple[float, ...]) -> Panel:
    rows = [
        (label, i, np.array([one.low, one.value, one.high]))
        for i, (label, one) in enumerate(zip(labels, marks(values), strict=True))
    ]
    return panels.nearest("n", "t", rows, threshold=1.0)


@pytest.mark.parametrize("names", [SHORT, LONG], ids=["short", "long"])
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("drawn", [a_forest, an_overview, nearest])
def test_labels_and_numbers_never_meet_the_line_of_no_difference_or_any_other_mark(
    drawn: Callable[[list[str], tuple[float, ...]], Panel], values: tuple[float, ...], names: tuple[str, ...]
) -> None:
    found = drawn(pairs(names), values)
    assert [colour for colour, box in lines(found) if colour == "var(--muted)" and box[0] == box[2]]
    assert covered(found) == []


@pytest.mark.parametrize("names", [SHORT, LONG], ids=["short", "long"])
def test_the_line_of_no_difference_is_one_and_stands_where_it_should(names: tuple[str, ...]) -> None:
    found = a_forest(pairs(names), VALUES["both"])
    ticks = {text: (box[0] + box[2]) / 2 for text, box in words(found)}
    upright = [box[0] for colour, box in lines(found) if colour == "var(--muted)" and box[0] == box[2]]
    assert upright == [pytest.approx(ticks["0 %"], abs=0.02)]


def test_words_stay_within_the_figure() -> None:
    found = a_forest(pairs(LONG), VALUES["both"])
    assert min(box[0] for _, box in words(found)) >= 0
    assert max(box[2] for _, box in words(found)) <= 353


def test_both_names_of_a_pair_can_be_read() -> None:
    assert in_lines("LoRA against DoRA") == ["LoRA against DoRA"]
    one, other = LONG[0], LONG[0].replace("lora", "fera")
    said = in_lines(f"{one} against {other}")
    assert "".join(said) == f"{one}against {other}"
    assert [line for line in said if line.startswith("against ")]


def test_widths_are_those_of_the_font_and_of_full_squares() -> None:
    for text in ("style-lora", "WWW iii", "−4.7 %"):
        assert width(text, 10.0) == pytest.approx(font(10.0).getlength(text) / 10, rel=0.01)
    assert width("水", 10.0) > 10


@pytest.mark.parametrize("text", [*LONG, "x y" * 5000, "LoRA (steps 30, rank 12)", "", "a  b\tc"])
def test_lines_fit_and_lose_nothing(text: str) -> None:
    said = broken(text, ROOM)
    assert max(map(width, said)) <= ROOM
    assert "".join("".join(said).split()) == "".join(text.split())
    short = wrapped(text, ROOM)
    assert len(short) <= MOST
    assert max(map(width, short)) <= ROOM
    assert (short == said) or "…" in "".join(short)


def test_a_number_stays_with_what_it_is_a_number_of() -> None:
    assert broken("LoRA (steps 30, rank 12)", width("LoRA (steps 30, rank ")) == ["LoRA (steps 30,", "rank 12)"]
    assert broken("lora-lr1e-4", width("lora-lr1e-")) == ["lora-", "lr1e-4"]
