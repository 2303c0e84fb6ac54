"""Numbers in words: digits that mean something, intervals that have two ends, and arms that are identical."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import reports
from reports import Ratio
from reports.page import sections_of
from reports.tables import summary
from reports.words import change, interval, percent, signed, span
from tests.reports.fixtures import write_run


def test_the_ends_of_an_interval_are_not_written_as_one_number() -> None:
    tight = Ratio(0.7, 0.6981, 0.7024, 3, 16, "ratio")
    assert interval(tight) == "95 % interval 29.8 % to 30.2 % lower"
    assert span(tight) == "−30.2 % to −29.8 %"
    assert interval(replace(tight, low=0.65)) == "95 % interval 30 % to 35 % lower"


def test_what_is_left_of_little_is_not_rounded_to_nothing_and_large_factors_are_plain() -> None:
    assert span(Ratio(0.45, 0.003, 110.0, 1, 4, "x")) == "−99.7 % to × 110"
    assert change(1234.0) == "1230 times as high"
    assert percent(0.0) == "100 %"


def test_changes_are_worded_with_digits_that_mean_something() -> None:
    assert [percent(r) for r in (0.5, 0.953, 1.0004, 1.25)] == ["50 %", "4.7 %", "0.04 %", "25 %"]
    assert [signed(r) for r in (0.953, 1.25, 4.0)] == ["−4.7 %", "+25 %", "× 4"]
    assert change(0.953) == "4.7 % lower"
    wide = Ratio(1.5, 0.8, 5.0, 3, 8, "x")
    assert interval(wide) == "95 % interval 20 % lower to 5 times as high"
    assert interval(Ratio(0.9, 0.8, 0.95, 3, 8, "x")) == "95 % interval 5 % to 20 % lower"


def test_identical_arms_are_called_identical_and_have_no_panels(tmp_path: Path) -> None:
    made = [
        write_run(tmp_path / f"{every}{seed}", seed=seed, samples=8, config={"eval_every": every})
        for every in (20, 50)
        for seed in range(2)
    ]
    report = reports.build(
        [*made, *(write_run(tmp_path / f"d{i}", "dora", seed=i, samples=8, effect=0.45) for i in range(2))]
    )
    said = (
        "LoRA (eval_every 50) and LoRA (eval_every 20) are identical: every final error and every picture is the same"
    )
    assert report.sentences.count(f"{said}.") == 1
    assert not any("1.00 times the steps" in one for one in report.sentences)
    levels = next(section for section in sections_of(report) if section.id == "levels")
    assert [panel.title for panel in levels.panels] == ["Mean validation error", "DoRA against LoRA (eval_every 20)"]
    table = summary(report.arms, report.pairs, report.reference)
    assert [row[4] for row in table.rows] == ["–", "reference", "identical", table.rows[-1][4]]
    assert levels.notes[-1].endswith("are identical, so no panel compares them.")
