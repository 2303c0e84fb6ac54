"""What an evaluation says first: nothing twice, identical adapters once, and which pairs are compared."""

from __future__ import annotations

from pathlib import Path

import pytest

import reports
from reports import Report
from reports.copies import copies_of
from reports.page import sections_of, verdict_section
from reports.sections import Section
from tests.reports.fixtures import text
from tests.reports.metrics.fixtures import evaluation, write_evaluation


def sections_by_id(found: Report) -> dict[str, Section]:
    return {section.id: section for section in sections_of(found)}


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Three adapters, of which the third is the first once more."""
    data = evaluation(strength=(0, 1, 0.7, 0.3), prompts=3, seeds=1, unrelated=2, heldout=16, train=0,
                      attributes=False)  # fmt: skip
    again = data.isel(adapter=[0, 1, 2, 1]).assign_coords(adapter=data.adapter)
    return reports.build(write_evaluation(tmp_path_factory.mktemp("twin") / "e.zarr", again))


def test_identical_adapters_are_called_identical_among_the_first_sentences(twin: Report) -> None:
    assert twin.said[0].claim.startswith("lora-1 is worse than fera-0")
    assert twin.said[1].claim == (
        "fera-0 and dora-2 are identical: every picture is the same, bit by bit, and every held-out error; "
        "fera-0 stands for both in comparisons and figures"
    )
    assert sum("dora-2" in said for said in twin.sentences) == 1
    assert not any("above 0 %" in said for said in twin.sentences)


def test_a_copy_takes_nothing_from_the_power_of_the_other_comparisons(twin: Report, tmp_path: Path) -> None:
    found = twin.evaluations[0]
    without = write_evaluation(tmp_path / "e.zarr", found.data.isel(adapter=slice(3)))
    alone = reports.build(without).evaluations[0]
    assert found.copies == {"dora-2": "fera-0"}
    assert [c.p_corrected for c in found.among] == [c.p_corrected for c in alone.among]
    assert [c.p_corrected for c in found.to_base] == [c.p_corrected for c in alone.to_base]
    assert [r.p_corrected for one in twin.cells[0] for r in one.levels] == [
        r.p_corrected for one in reports.build(without).cells[0] for r in one.levels
    ]


def test_a_gate_finds_the_numbers_of_a_copy(twin: Report) -> None:
    ratios = {q.arm: q.value for q in twin.quantities if q.name == "error_against_base"}
    assert ratios["dora-2"] == ratios["fera-0"] != ratios["lora-1"]
    assert {q.arm: q.value for q in twin.quantities if q.name == "error_ratio"}["dora-2"] == 1.0


def test_equal_weights_count_once_even_where_their_pictures_differ_a_little() -> None:
    data = evaluation(strength=(0, 1, 0.7), prompts=2, seeds=1, unrelated=0, heldout=4, train=0, networks=())
    assert copies_of(data, "base") == {}
    same = data.assign_coords(digest=("adapter", text("", "5d41", "5d41")))
    assert copies_of(same, "base") == {"lora-1": "fera-0"}


def test_where_pairs_tell_nothing_new_the_third_sentence_is_on_the_drift(tmp_path: Path) -> None:
    data = evaluation(strength=(0, 1, 0.7, 0.7, 0.7, 0.7), prompts=3, seeds=1, unrelated=2, heldout=16, train=0,
                      attributes=False, networks=())  # fmt: skip
    found = reports.build(write_evaluation(tmp_path / "e.zarr", data))
    assert [said.kind for said in found.said[:3]] == ["best", "base", "drift"]


def test_a_copy_is_neither_compared_nor_drawn(twin: Report) -> None:
    found = sections_by_id(twin)
    for name in ("verdict", "errors", "measures", "spectra", "pictures", "drift"):
        assert not any("dora-2" in panel.title + panel.svg for panel in found[name].panels)
        assert "dora-2" not in found[name].notes
    assert [table.heads[1:] for table in found["verdict"].tables] == [("base model", "fera-0", "lora-1")]
    assert "lora-1 against fera-0" in [panel.title for panel in found["errors"].panels]
    shown = [picture.label for picture in found["pictures"].extra["rows"][0].pictures]
    assert shown == ["base model", "fera-0", "lora-1"]


def test_copies_of_several_adapters_share_a_sentence(twin: Report, tmp_path: Path) -> None:
    again = twin.evaluations[0].data.isel(adapter=[0, 1, 2, 1, 2]).assign_coords(adapter=text("base", *"abcd"))
    found = reports.build(write_evaluation(tmp_path / "e.zarr", again))
    claim = "Identical adapters, of which the first stands for all in comparisons and figures: a and c; b and d"
    assert [said.claim for said in found.said if "dentical" in said.claim] == [claim]


def test_the_main_table_says_below_it_which_names_stand_for_which(twin: Report, tmp_path: Path) -> None:
    note = "Identical adapters are shown once: fera-0 stands for dora-2."
    main = verdict_section(twin).tables[-1]
    assert not any("dora-2" in cell for row in (main.heads, *main.rows) for cell in row)
    assert main.note == note
    page = twin.to_html()
    assert page.count(note) == 1
    assert page.index("</table>", page.index("The main measures")) < page.index(note)
    without = twin.evaluations[0].data.isel(adapter=slice(3))
    alone = reports.build(write_evaluation(tmp_path / "e.zarr", without))
    assert verdict_section(alone).tables[-1].note == ""


def test_two_names_of_one_adapter_are_compared_with_the_base_model_alone(tmp_path: Path) -> None:
    data = evaluation(strength=(0, 1), prompts=3, seeds=1, unrelated=0, heldout=8, train=0)
    again = data.isel(adapter=[0, 1, 1]).assign_coords(adapter=text("base", "fera-0", "again"))
    found = reports.build(write_evaluation(tmp_path / "e.zarr", again))
    assert found.said[0].claim.startswith("fera-0 and again are identical")
    assert found.said[1].claim.startswith("Against the base model fera-0 is better")
    assert not found.evaluations[0].among


def test_scripts_read_what_others_are_compared_with_and_who_is_a_copy(twin: Report) -> None:
    numbers = twin.to_dict()
    assert numbers["reference"] == "fera-0"
    named = {one["label"]: one["identical_to"] for one in numbers["evaluations"][0]["adapters"]}
    assert named == {"base": None, "fera-0": None, "lora-1": None, "dora-2": "fera-0"}


def test_an_adapter_that_changes_nothing_is_said_to_be_the_base_model(tmp_path: Path) -> None:
    data = evaluation(strength=(0, 1), prompts=3, seeds=1, unrelated=0, heldout=8, train=0)
    still = data.isel(adapter=[0, 0]).assign_coords(adapter=data.adapter)
    found = reports.build(write_evaluation(tmp_path / "e.zarr", still))
    assert found.said[0].claim.startswith("fera-0 and the base model are identical: every picture is the same")
    assert [panel.title for panel in sections_by_id(found)["errors"].panels] == ["Mean validation error"]


def test_the_first_three_sentences_say_nothing_twice(tmp_path: Path) -> None:
    data = evaluation(strength=(0, 1, 0.9, 0.8), prompts=6, seeds=2, unrelated=3, heldout=30, train=0)
    report = reports.build(write_evaluation(tmp_path / "e.zarr", data))
    top = [said.claim for said in report.said[:3]]
    assert top[0].startswith("fera-0 is the best of 3 adapters by validation error")
    assert top[1].startswith("Against the base model")
    assert top[2].startswith("dora-2 is worse than lora-1")
    assert not any("lora-1 is worse than fera-0: validation error" in said.claim for said in report.said)


def test_more_than_four_adapters_are_said_to_be_compared_with_the_first_alone(tmp_path: Path) -> None:
    data = evaluation(adapters=5, prompts=3, seeds=1, unrelated=0, heldout=8, train=0, attributes=False, networks=())
    report = reports.build(write_evaluation(tmp_path / "e.zarr", data))
    found, words = sections_by_id(report), "Of so many adapters each is compared with the first, fera-0, alone."
    assert found["verdict"].panels[0].note == words
    for name in ("errors", "measures", "spectra"):
        assert words in found[name].notes
