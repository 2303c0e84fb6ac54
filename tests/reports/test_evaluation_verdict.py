"""What an evaluation says first: nothing twice, identical adapters once, and which pairs are compared."""

from __future__ import annotations

from pathlib import Path

import pytest

import reports
from reports import Report
from reports.page import sections_of
from reports.sections import Section
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


def test_identical_adapters_are_called_identical_and_the_others_are_named(twin: Report) -> None:
    found, main = twin, twin.said[0]
    size = next(c.difference.value for c in twin.evaluations[0].among if (c.a, c.b) == ("lora-1", "fera-0"))
    assert main.claim == (
        f"Against fera-0, by validation error: lora-1 is worse ({100 * size - 100:.1f} % higher); dora-2 is identical"
    )
    assert "lora-1 " in main.support
    assert "held-out pictures" in main.support
    assert sum("are identical: every picture is the same" in said for said in found.sentences) == 1
    assert any(said.startswith("fera-0 and dora-2 are identical: every picture is") for said in found.sentences)
    assert not any("above 0 %" in said for said in found.sentences)


def test_where_pairs_tell_nothing_new_the_third_sentence_is_on_the_drift(twin: Report) -> None:
    assert [said.kind for said in twin.said[:3]] == ["best", "base", "drift"]


def test_identical_adapters_have_no_panels_of_their_difference(twin: Report) -> None:
    found = sections_by_id(twin)
    note = "fera-0 and dora-2 are identical, so no panel compares them."
    for name in ("errors", "spectra"):
        assert note in found[name].notes
    assert found["verdict"].panels[0].note == note
    titles = [panel.title for panel in found["errors"].panels]
    assert "lora-1 against fera-0" in titles
    assert "dora-2 against lora-1, by band" in titles
    for section in found.values():
        assert not any("dora-2 against fera-0" in panel.title + panel.svg for panel in section.panels)
        assert not any("difference was found between" in said.claim for said in section.said)


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
    rest = [said.claim for said in report.said[3:]]
    assert any(claim.startswith("lora-1 is worse than fera-0: validation error") for claim in rest)


def test_more_than_four_adapters_are_said_to_be_compared_with_the_first_alone(tmp_path: Path) -> None:
    data = evaluation(adapters=5, prompts=3, seeds=1, unrelated=0, heldout=8, train=0, attributes=False, networks=())
    report = reports.build(write_evaluation(tmp_path / "e.zarr", data))
    found, words = sections_by_id(report), "Of so many adapters each is compared with the first, fera-0, alone."
    assert found["verdict"].panels[0].note == words
    for name in ("errors", "measures", "spectra"):
        assert words in found[name].notes
