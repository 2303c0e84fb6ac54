"""`against` chooses whom all are compared with: nothing else is tested, and the report says so and what would."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest

import reports
from reports import Report
from reports.chosen import one_reference
from reports.evaluated import matched
from reports.evaluation_tables import comparison_table
from reports.evidence import one_alone
from reports.tasks import entries
from spectra.errors import UserError
from tests.reports.fixtures import text
from tests.reports.metrics.fixtures import evaluation, write_evaluation

STRENGTH = (0, 1, 0.7, 0.9, 0.5, 0.3, 0.1)
FERA, BARE = "FeRA with prior", "FeRA without prior"


@cache
def store(adapters: int) -> Path:
    """A small evaluation of so many adapters, the first of which is the best."""
    data = evaluation(strength=STRENGTH[: adapters + 1], prompts=4, seeds=1, unrelated=0, heldout=12, train=0,
                      attributes=False, networks=())  # fmt: skip
    return write_evaluation(Path(mkdtemp()) / "e.zarr", data)


@cache
def built(adapters: int, against: str | None = None) -> Report:
    return reports.build(store(adapters), against=against)


def warned(report: Report, words: str) -> str:
    (said,) = [said for said in report.warnings if words in said]
    return said


@pytest.mark.parametrize("adapters", [3, 6])
def test_all_are_compared_with_the_chosen_one_and_with_nothing_else(adapters: int) -> None:
    (found,) = built(adapters, "lora-1").evaluations
    assert {c.b for c in found.among} == {"lora-1"}
    assert {c.a for c in found.among} == set(found.adapters) - {"lora-1"}
    assert {(one.a, one.b) for one in built(adapters, "lora-1").cells[0]} == set(found.pairs)
    assert built(adapters, "lora-1").sentences[0].startswith("Against lora-1, by validation error: fera-0")


def test_fewer_tests_leave_each_more_power_and_the_report_says_over_how_many() -> None:
    (all_pairs,), (chosen,) = built(3).evaluations, built(3, "lora-1").evaluations
    assert len(chosen.among) * 3 == len(all_pairs.among) * 2
    known = {(c.name, c.a, c.b): c for c in all_pairs.among}
    both = [(c, known[c.name, c.a, c.b]) for c in chosen.among if (c.name, c.a, c.b) in known]
    assert both
    for one, other in both:
        assert one.p == pytest.approx(other.p)
        assert one.resolution < other.resolution or not np.isfinite(other.resolution)
    assert f"corrected over these {len(chosen.among)} comparisons, fewer than of all pairs" in warned(
        built(3, "lora-1"), "compared with lora-1 alone, which was chosen"
    )


def test_without_a_choice_few_adapters_are_all_compared_and_nothing_is_said() -> None:
    assert built(3).evaluations[0].untested == 0
    assert not any("not tested" in said or "--against" in said for said in built(3).warnings)
    assert not any("not tested" in said for said in built(2, "lora-1").warnings)


@pytest.mark.parametrize(("adapters", "against", "left"), [(6, None, 10), (6, "dora-2", 10), (3, "lora-1", 1)])
def test_what_is_not_tested_is_counted_and_the_command_that_is_named_tests_it(
    adapters: int, against: str | None, left: int
) -> None:
    report = built(adapters, against)
    said = warned(report, "not tested")
    assert f"{left} pair{'s' * (left > 1)} of other adapters {'are' if left > 1 else 'is'} not tested" in said
    assert report.evaluations[0].untested == left
    (command,) = re.findall("`(.*)`", said)
    words = shlex.split(command)
    assert words[:3] == ["adapt", "report", str(store(adapters))]
    other = reports.build(words[2], against=words[4] if len(words) > 3 else None)
    assert not set(other.evaluations[0].pairs) <= set(report.evaluations[0].pairs)


def test_the_base_model_may_be_chosen() -> None:
    report = built(3, "base")
    (found,) = report.evaluations
    assert not found.among
    assert [c.p_corrected for c in found.to_base] == [c.p_corrected for c in built(3).evaluations[0].to_base]
    assert report.sentences[0].startswith("Against the base model, by validation error: fera-0, lora-1 and dora-2")
    assert "3 pairs of other adapters are not tested" in warned(report, "compared with the base model alone")
    table = comparison_table(found)
    assert table is not None
    assert table.caption.startswith("Adapters against the base model; ")
    assert "Each adapter is compared with the base model alone, which was chosen." in report.to_html()
    assert report.to_dict()["reference"] == "base"


def test_gates_and_scripts_ask_for_ratios_over_the_chosen_one() -> None:
    report = built(6, "dora-2")
    ratios = {q.arm: q.against for q in report.quantities if q.name == "error_ratio"}
    assert ratios == dict.fromkeys(["fera-0", "lora-1", "ia3-3", "loha-4", "lokr-5"], "dora-2")
    assert report.to_dict()["reference"] == "dora-2"
    assert "--against dora-2" in report.to_html()


def test_a_copy_that_is_chosen_is_the_adapter_that_it_copies(tmp_path: Path) -> None:
    again = built(3).evaluations[0].data.isel(adapter=[0, 1, 2, 3, 2]).assign_coords(adapter=text("base", *"abcd"))
    (found,) = reports.build(write_evaluation(tmp_path / "e.zarr", again), against="d").evaluations
    assert (found.reference, found.pairs) == ("b", (("a", "b"), ("c", "b")))
    assert one_alone(found) == "Each adapter is compared with d alone, which was chosen and is identical to b."
    assert "compared with d alone, which was chosen and is identical to b:" in one_reference(found)[0]


def test_a_name_that_nothing_has_is_one_sentence_with_the_names_there_are() -> None:
    with pytest.raises(UserError) as caught:
        built(3, "dora")
    assert str(caught.value) == (
        "nothing here is called 'dora', so nothing can be compared with it; give --against one of "
        "base, fera-0, lora-1, dora-2."
    )


def test_a_store_without_the_name_is_compared_as_usual_and_named(tmp_path: Path) -> None:
    data = built(3).evaluations[0].data
    small = write_evaluation(tmp_path / "small.zarr", data.isel(adapter=[0, 1, 2]))
    report = reports.build([store(3), small], against="dora-2")
    assert {one.title: one.against for one in report.evaluations} == {"e": "dora-2", "small": ""}
    assert "small has nothing called dora-2: what is compared there is as without --against." in report.warnings


def test_tasks_are_told_over_the_chosen_adapter(tmp_path: Path) -> None:
    other = built(3).evaluations[0].data
    protocol = str(other.attrs["protocol"]).replace("sha256:5d", "sha256:6e")
    stored = write_evaluation(tmp_path / "o.zarr", other.assign_attrs(protocol=protocol))
    report = reports.build([store(3), stored], against="lora-1")
    assert len(report.tasks) == 2
    assert {entry.other for entry in entries(report.tasks)} == {"lora-1"}


def test_arms_of_runs_are_compared_with_the_chosen_one_alone(three_arms: list[Path]) -> None:
    usual, report = reports.build(three_arms), reports.build(three_arms, against=BARE)
    assert (FERA, BARE) in [(p.arm.label, p.other.label) for p in usual.pairs]
    assert [(p.arm.label, p.other.label) for p in report.pairs] == [(FERA, BARE), ("LoRA", BARE)]
    assert f"All arms are compared with {BARE} alone, which was chosen: p is not corrected for that choice." in (
        report.warnings
    )
    with pytest.raises(UserError, match=f"'dora'.*LoRA, {BARE}, {FERA}"):
        reports.build(three_arms, against="dora")


def test_the_base_model_is_no_arm_of_runs_and_the_refusal_says_so(three_arms: list[Path]) -> None:
    with pytest.raises(UserError, match=f"only evaluations can be .* runs alone; give --against one of LoRA, {BARE}"):
        reports.build(three_arms, against="base")


@pytest.mark.parametrize(("name", "label"), [("LORA-1", "lora-1"), ("Base model", "base"), ("BASE", "base")])
def test_names_are_matched_whatever_their_case(name: str, label: str) -> None:
    assert built(3, name).evaluations[0].against == label


def test_an_equal_name_comes_before_one_of_another_case_and_of_two_others_none_is_meant() -> None:
    assert matched("lora", ["LoRA", "lora"]) == "lora"
    assert matched("LORA", ["LoRA", "lora"]) == ""


def test_one_name_serves_an_arm_and_an_adapter_of_different_case(three_arms: list[Path], tmp_path: Path) -> None:
    data = built(3).evaluations[0].data.assign_coords(adapter=text("base", "fera-0", "lora", "dora-2"))
    report = reports.build([*three_arms, write_evaluation(tmp_path / "e.zarr", data)], against="lora")
    parts = report.tasks or (report,)
    assert "LoRA" in [part.reference.label for part in parts if part.reference]
    assert [one.against for part in parts for one in part.evaluations] == ["lora"]
    assert not any("nothing called" in said for said in report.warnings)


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_name_is_refused_and_no_default(empty: str) -> None:
    with pytest.raises(UserError, match=r"--against is empty.*leave --against out"):
        reports.build(store(3), against=empty)


def test_what_has_the_name_comes_first_and_what_has_not_is_the_first_warning(tmp_path: Path) -> None:
    data = built(3).evaluations[0].data
    small = write_evaluation(tmp_path / "a.zarr", data.isel(adapter=[0, 1, 2]))
    report = reports.build([store(3), small], against="dora-2")
    assert [one.title for one in report.evaluations] == ["e", "a"]
    assert report.sentences[0].startswith("e: Against dora-2")
    assert report.warnings[0].startswith("a has nothing called dora-2")


def test_runs_without_the_name_come_after_an_evaluation_that_has_it(three_arms: list[Path], tmp_path: Path) -> None:
    data = built(3).evaluations[0].data
    report = reports.build([*three_arms, write_evaluation(tmp_path / "e.zarr", data)], against="dora-2")
    assert "Against dora-2" in (report.tasks[0] if report.tasks else report).sentences[0]
    assert "nothing called dora-2" in report.warnings[0]


def test_a_task_without_the_name_comes_after_one_that_has_it(tmp_path: Path) -> None:
    data = built(3).evaluations[0].data
    protocol = str(data.attrs["protocol"]).replace("sha256:5d", "sha256:6e")
    small = write_evaluation(tmp_path / "a.zarr", data.isel(adapter=[0, 1, 2]).assign_attrs(protocol=protocol))
    report = reports.build([small, store(3)], against="dora-2")
    assert [bool(task.against) for task in report.tasks] == [True, False]
    assert "a has nothing called dora-2" in report.warnings[0]


def test_a_store_of_the_base_alone_is_left_out_where_anything_else_is_there(tmp_path: Path) -> None:
    base = write_evaluation(tmp_path / "b.zarr", built(3).evaluations[0].data.isel(adapter=[0]))
    report = reports.build([store(3), base])
    assert [one.path for one in report.evaluations] == [store(3)]
    assert f"Left out: {base} holds the base alone" in report.warnings[-1]
    with pytest.raises(UserError, match="holds the base alone"):
        reports.build(base)


def test_a_gate_on_two_adapters_says_what_serves_where_all_are_compared_with_the_base_model() -> None:
    with pytest.raises(
        UserError,
        match=r"--against base no two adapters are compared: .* has 'error_against_base' and no 'error_ratio'",
    ):
        built(3, "base").check("error_ratio.low>1")
    assert built(3, "base").check("error_against_base.low>99") == []
    with pytest.raises(UserError, match="there is no metric 'eror_ratio'"):
        built(3, "base").check("eror_ratio>1")
