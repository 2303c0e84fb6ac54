import csv
import io
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import xarray as xr

from benchmarks.quality import numbers, summary
from benchmarks.quality.extra import ARMS
from spectra.analysis.statistics import holm
from tests.benchmarks.quality.synthetic import experiment

SCALES = {"lora": 1.0, "fera-prior": 0.9, "fera-random": 1.0, "dora": 1.1}
COST = {"mini": {"fera-prior": 1.25}, "mini-flow": {"fera-prior": 1.25}}


@cache
def data() -> xr.Dataset:
    return numbers.collect(experiment(Path(mkdtemp()), SCALES))


def test_every_arm_is_compared_with_lora_and_the_column_is_one_family() -> None:
    found = summary.against_lora(data())
    assert [one.a for one in found] == ["fera-prior", "fera-random", "dora"]
    raw = np.array([one.all.p for one in found if one.all])
    np.testing.assert_allclose([one.all.p_corrected for one in found if one.all], holm(raw))
    assert [one.all.holds for one in found if one.all] == [True, False, True]


def test_only_questions_that_runs_can_answer_are_answered() -> None:
    found = summary.answers(data())
    assert [(q.a, q.b) for q, _ in found] == [("fera-prior", "fera-random")]
    assert found[0][1].all is not None
    assert found[0][1].all.value == pytest.approx(0.9, rel=5e-3)


def test_every_question_is_about_arms_that_differ_in_one_planned_thing() -> None:
    for question in summary.QUESTIONS:
        a, b = ARMS[question.a], ARMS[question.b]
        changed = {k for k in a.settings.keys() | b.settings.keys() if a.settings.get(k) != b.settings.get(k)}
        changed |= {"prior"} if a.prior != b.prior else set()
        allowed = {"fera_mode", "fecl_weight", "fecl_form"} if "published" in question.b else changed
        assert changed <= allowed
        assert len(changed) == 1 or "published" in question.b or question.b == "fera-uniform", question


def test_speed_counts_steps_and_the_time_of_a_step() -> None:
    found = {one.arm: one for one in summary.speeds(data(), COST)}
    steps = found["fera-prior"].steps["mini", "style"]
    # The curve falls from 2 to 1 times 0.9 between half of the steps and the end, and crosses 1 at 8/9 of the way.
    assert steps.value == pytest.approx(0.5 + 0.5 * (1.8 - 1) / 0.9, abs=0.01)
    budget = found["fera-prior"].budget
    assert budget is not None
    assert budget.value == pytest.approx(0.9 * (1 + 2 * (1 - 1 / 1.25)), rel=5e-3)
    assert found["dora"].budget is None
    assert found["dora"].steps["mini", "style"].value == np.inf


def test_arms_beyond_the_plan_stand_beside_lora_in_tables_of_their_own() -> None:
    found = numbers.collect(experiment(Path(mkdtemp()), {"lora": 1.0, "fera-prior": 0.99, "fera-shared": 0.9}))
    ((one, fast),) = summary.beside_lora(found, COST)
    assert one.a == fast.arm == "fera-shared"
    assert one.all is not None
    assert one.all.value == pytest.approx(0.9, rel=5e-3)
    assert fast.steps["mini", "style"].value == pytest.approx(0.5 + 0.5 * (1.8 - 1) / 0.9, abs=0.01)
    assert "fera-shared" not in {one.a for one in summary.against_lora(found)} | {
        s.arm for s in summary.speeds(found, COST)
    }
    rows = [line for line in summary.lines(found, COST) if line.arm == "fera-shared"]
    assert {line.table for line in rows} >= {"ideas_against_lora", "speed"}


def test_a_sweep_knows_its_best_rate_and_whether_it_lies_inside() -> None:
    one = summary.Swept(("mini", "style"), "lora", {0.004: 1.2, 0.008: 1.0, 0.016: np.inf})
    assert (one.best, one.inside) == (0.008, True)
    assert not summary.Swept(("mini", "style"), "lora", {0.004: 1.2, 0.008: 1.0}).inside
    assert len(summary.sweeps(data())) == 4 * len(SCALES)


def test_the_tidy_table_holds_what_the_tables_show() -> None:
    rows = list(csv.DictReader(io.StringIO(summary.csv(summary.lines(data(), COST)))))
    pooled = [r for r in rows if (r["table"], r["model"], r["arm"]) == ("against_lora", "all", "fera-prior")]
    expected = summary.against_lora(data())[0].all
    assert expected is not None
    assert len(pooled) == 1
    assert float(pooled[0]["value"]) == pytest.approx(expected.value, rel=1e-5)
    assert float(pooled[0]["p_holm"]) == pytest.approx(expected.p_corrected, rel=1e-5)
    assert {row["table"] for row in rows} == {"sweep", "error", "against_lora", "questions", "speed"}
    assert sum(row["table"] == "sweep" for row in rows) == 4 * 3 * len(SCALES)


def test_parameters_are_those_that_the_runs_recorded() -> None:
    assert summary.parameters(data(), "lora") == {"mini-flow": 100, "mini": 100}
