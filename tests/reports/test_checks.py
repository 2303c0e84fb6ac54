"""Gates fail where they should, never for the base unless it is named, and say what they could have asked for."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reports
from reports import Report
from reports.checks import check, parsed
from reports.quantities import Quantity
from spectra.errors import UserError
from tests.reports.fixtures import write_run
from tests.reports.metrics.fixtures import evaluation, write_evaluation

KNOWN = [
    Quantity("drift", "base", 9.0, 9.0, 9.0), Quantity("drift", "a", 0.2, 0.1, 0.3),
    Quantity("drift", "b", 0.05, 0, 0.1), Quantity("drift", "a > 1 and <b>", 0.5, -np.inf, np.inf),
    Quantity("lost", "a", np.nan, np.nan, np.nan),
]  # fmt: skip


@pytest.mark.parametrize(
    ("gate", "arms"),
    [
        ("drift>0.1", ["a", "a > 1 and <b>"]),
        ("drift >= 0.2", ["a", "a > 1 and <b>"]),
        ("drift>0.2", ["a > 1 and <b>"]),
        ("drift<0.06", ["b"]),
        ("drift<=5e-2", ["b"]),
        ("drift.low>0", ["a"]),
        ("drift.high>0.2", ["a", "a > 1 and <b>"]),
        ("drift@a>0.1", ["a"]),
        ("drift@b>0.1", []),
        ("drift@base>1", ["base"]),
        ("drift @ a > 1 and <b> > .4", ["a > 1 and <b>"]),
        ("lost>0", ["a"]),
    ],
)
def test_a_gate_fails_for_the_arms_that_meet_it(gate: str, arms: list[str]) -> None:
    assert [failure.arm for failure in check(gate, KNOWN)] == arms


@pytest.mark.parametrize(
    "gate", ["", "drift", "drift>", "drift=1", "drift>x", ">1", "drift.mid>1", "drift>1 or 2", "1>drift"]
)
def test_what_is_no_gate_is_refused(gate: str) -> None:
    with pytest.raises(UserError, match="is no gate"):
        parsed(gate)


def test_unknown_metrics_and_arms_are_refused_with_those_that_are_there() -> None:
    with pytest.raises(UserError, match="no metric 'quality' in this report; it has drift, lost"):
        check("quality>1", KNOWN)
    with pytest.raises(UserError, match="'c' has no drift; these have: base, a, b"):
        check("drift@c>1", KNOWN)


@given(
    st.sampled_from(["", ".low", ".high"]), st.text(min_size=1, max_size=12), st.sampled_from([">", ">=", "<", "<="]),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
)  # fmt: skip
def test_gates_are_read_back_as_they_were_written(end: str, arm: str, sign: str, number: float) -> None:
    if not arm.strip() or arm != arm.strip():
        return
    gate = parsed(f"drift{end}@{arm}{sign}{number!r}")
    if gate.arm == arm:  # an arm that ends in a sign of its own, such as "a>", reads as another gate
        assert (gate.name, gate.end, gate.sign, gate.threshold) == ("drift", end[1:], sign, number)
    else:
        assert arm.endswith((">", "<"))


def test_failures_say_what_was_found() -> None:
    (failure,) = check("drift.high@a>0.1", KNOWN)
    assert failure.words == "the upper end of drift of a is 0.3, which is > 0.1"
    assert failure.to_dict()["value"] == 0.3
    (missing,) = check("lost>0", KNOWN)
    assert "is not a number" in missing.words
    assert missing.to_dict()["value"] is None


def test_gates_on_runs_look_at_the_numbers_of_the_report(report: Report) -> None:
    ratios = {pair.arm.label: pair.error.value for pair in report.pairs if pair.other is report.reference}
    for arm, ratio in ratios.items():
        assert report.check(f"error_ratio@{arm}>{ratio - 1e-6}")
        assert not report.check(f"error_ratio@{arm}>{ratio + 1e-6}")
    assert {f.arm for f in report.check("error>0")} == {"LoRA", "FeRA without prior", "FeRA with prior"}
    assert report.check("error@base>0")[0].value == pytest.approx(report.arms[0].errors(at=0).mean())
    assert report.check("spectral_distance.high@LoRA>0.2")
    assert not report.check("seconds_train>1e6")


def test_steps_that_never_reach_the_target_fail_every_gate_on_slowness(tmp_path: Path) -> None:
    made = [write_run(tmp_path / m, m, samples=8, effect=e) for m, e in (("lora", 0.4), ("fera", 0.6))]
    (failure,) = reports.build(made).check("steps_ratio>10")
    assert failure.arm == "FeRA without prior"
    assert "no bound" in failure.words


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Report:
    data = evaluation(strength=(0, 1, 0.4), prompts=6, seeds=1, unrelated=3, heldout=10, train=5, copies=2)
    return reports.build([write_evaluation(tmp_path_factory.mktemp("e") / "e.zarr", data)])


def test_gates_on_evaluations_know_measures_by_long_and_short_names(evaluated: Report) -> None:
    measure = evaluated.evaluations[0].measured("drift_world", "fera-0")
    assert measure is not None
    for name in ("drift", "drift_world"):
        assert evaluated.check(f"{name}@fera-0>=0")[0].value == measure.value.value
    assert {f.arm for f in evaluated.check("memorised>0")} >= {"lora-1"}
    assert evaluated.check("error_ratio>1")[0].arm == "lora-1"
    assert not evaluated.check("error_against_base>1")


def test_the_xml_has_a_case_per_gate(evaluated: Report) -> None:
    suites = ElementTree.fromstring(evaluated.to_junit(["drift<0", "error_ratio>1"]))
    (suite,) = suites
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert set(suites.attrib) <= {"name", "time", "tests", "failures", "errors"}  # all that junit-10.xsd has there
    good, bad = suite
    assert (good.get("name"), len(good)) == ("drift<0", 0)
    failure = bad.find("failure")
    assert failure is not None
    assert "lora-1" in str(failure.get("message"))


def test_without_gates_the_xml_has_a_case_per_comparison(evaluated: Report, report: Report) -> None:
    cases = list(ElementTree.fromstring(evaluated.to_junit()).iter("testcase"))
    assert len(cases) == len(evaluated.evaluations[0].among)
    assert not list(ElementTree.fromstring(evaluated.to_junit()).iter("failure"))
    names = [case.get("name") for case in ElementTree.fromstring(report.to_junit()).iter("testcase")]
    assert names == [f"{p.arm.label} against {p.other.label}" for p in report.pairs]


def test_hostile_names_make_valid_xml(tmp_path: Path) -> None:
    name = "</testcase><x a='\"\x07\ud7ff\ufffe&]]>"
    runs = [
        write_run(tmp_path / "a", samples=4, record={"model": name}),
        write_run(tmp_path / "b", name, samples=4, record={"model": name}),
    ]
    suites = ElementTree.fromstring(reports.build(runs).to_junit())
    assert len(list(suites.iter("testcase"))) == 1
    assert not list(suites.iter("x"))
