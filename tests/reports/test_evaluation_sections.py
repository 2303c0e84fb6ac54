"""What the sections of an evaluation show: little first, the rest folded away, each figure with what it is read by."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.spatial.distance import cdist

import reports
from reports import Report, panels
from reports.building import title_of
from reports.cells import Cells
from reports.closing_sections import reproduce_section
from reports.evaluated import BASE, Evaluation
from reports.evaluation_pictures import HELDOUT, gain_panel, memory_section
from reports.evaluation_sections import details, measure_section
from reports.evaluation_tables import attribute_table
from reports.evaluation_words import about_drift, about_memory, decisive, where
from reports.figures import plain
from reports.page import of_evaluation
from reports.panels.marks import ratio_scale
from reports.sections import Section
from reports.statistics import Ratio
from tests.reports.metrics.fixtures import evaluation, write_evaluation


@cache
def built(adapters: int = 2, rich: bool = True) -> Report:
    """A report on a small evaluation, once for all tests here."""
    more = {} if rich else {"train": 0, "unrelated": 0, "attributes": False, "networks": ()}
    strength = (0, 1, 0.7, 0.9, 0.5, 0.3)[: adapters + 1]
    how = {"prompts": 4, "seeds": 1, "unrelated": 2, "heldout": 10, "train": 5, "strength": strength} | more
    with TemporaryDirectory() as folder:
        return reports.build([write_evaluation(Path(folder) / "e.zarr", evaluation(**how))])  # type: ignore[arg-type]


def found(adapters: int = 2, rich: bool = True) -> Evaluation:
    return built(adapters, rich).evaluations[0]


def test_what_holds_is_said_and_the_rest_is_folded() -> None:
    said, rest = details(found())
    judged = [c for c in decisive(found().among) if c.name != "validation_error"]
    assert len(said) == max(sum(c.holds for c in judged), 1)
    assert len(said) + len(rest) == len(judged)
    assert all("no difference found" in one.claim for one in rest)


def test_where_nothing_holds_the_weightiest_is_said_with_what_would_have_shown() -> None:
    quiet = replace(found(), among=tuple(replace(c, holds=False) for c in found().among))
    (said,), rest = details(quiet)
    assert said.claim.startswith("Fréchet distance on the bundled features: no difference found")
    assert "you could see differences above" in said.support
    assert rest


def test_long_tables_are_folded_and_stand_once_on_the_page() -> None:
    section = measure_section(found(), "")
    assert section is not None
    folded = section.extra["folded"]
    assert [len(table.rows) for table in folded[:2]] == [len(measures()), len(found().among)]
    assert all(len(table.rows) <= 3 for table in section.tables)
    assert any(panel.title.startswith("diversity") for panel in section.panels) or not has("diversity")
    assert all(note[0].isupper() and note.endswith(".") for note in section.extra["footnotes"])


def measures() -> set[str]:
    return {m.name for m in found().measures}


def has(start: str) -> bool:
    return any(name.startswith(start) for name in measures())


def test_copies_are_judged_by_how_near_held_out_pictures_come(drawn: list[Figure]) -> None:
    section = memory_section(found(), "")
    assert section is not None
    data = found().data
    features = data.reference_feature_world.values
    held, train = (features[data.reference_part.values == part] for part in ("heldout", "train"))
    near = cdist(held, train, "cosine").min(axis=1)
    (axes,) = drawn[-1].axes
    ticks = [np.asarray(line.get_xdata()) for line in axes.lines if line.get_marker() == "|"]
    assert len(ticks) == 3
    np.testing.assert_allclose(ticks[0], near, atol=1e-6)
    dashed = next(line for line in axes.lines if line.get_linestyle() == "--")
    np.testing.assert_allclose(np.asarray(dashed.get_xdata()), np.quantile(near, 0.05), atol=1e-6)
    assert [key.label for key in section.keys] == [HELDOUT, "fera-0", "lora-1"]


def test_what_is_gained_stands_against_what_is_moved(drawn: list[Figure]) -> None:
    (panel,) = gain_panel(found(), "")
    points = [line for line in drawn[-1].axes[0].lines if line.get_linestyle() == "None"]
    places = [(float(np.asarray(p.get_xdata())[0]), float(np.asarray(p.get_ydata())[0])) for p in points]
    wanted = [(0.0, value("validation_error", BASE))]
    wanted += [(value("drift_world", x), value("validation_error", x)) for x in found().adapters]
    np.testing.assert_allclose(places, wanted)
    assert "validation error (lower is better)" in panel.svg
    assert gain_panel(found(rich=False), "") == []


def value(name: str, label: str) -> float:
    measure = found().measured(name, label)
    assert measure is not None
    return measure.value.value


def test_of_many_adapters_the_page_says_that_each_meets_the_first_alone() -> None:
    many = built(5, rich=False)
    (one,) = many.evaluations
    assert {c.b for c in one.among} == {"fera-0"}
    assert any("compared with the first, fera-0, alone" in said for said in many.warnings)
    assert many.sentences[0].startswith(
        "Against fera-0, by validation error: lora-1, dora-2, ia3-3 and loha-4 are worse"
    )
    assert not any("alone" in said for said in built(2).warnings)


def test_ratios_of_errors_are_over_the_first_adapter_as_those_of_runs_are_over_their_reference() -> None:
    three = built(3, rich=False)
    ratios = [q for q in three.quantities if q.name == "error_ratio"]
    assert [(q.arm, q.against) for q in ratios] == [("lora-1", "fera-0"), ("dora-2", "fera-0")]
    (failure,) = three.check("error_ratio@lora-1>1")
    assert failure.words.startswith("error_ratio of lora-1 against fera-0 is ")


def cell(value: float, p: float) -> Ratio:
    return Ratio(value, value * 0.99, value * 1.01, 1, 12, "ratio", p=p, p_corrected=p)


@pytest.mark.parametrize(
    ("levels", "bands", "claim"),
    [
        ([cell(1.2, 0)] * 2, [[cell(1.2, 0)] * 3] * 2,
         "Against b, the error of a is higher at all 2 noise levels, most at 10 (+20 %); by band (number of levels) "
         "higher in every band (2)"),
        ([cell(0.9, 0), cell(1.2, 0)], (),
         "Against b, the error of a is lower at 1 of 2 noise levels, at 10 (−10.0 %) and "
         "higher at 1 of 2 noise levels, at 1 (+20 %)"),
        ([cell(0.9, 1)] * 2, [[cell(0.9, 0), cell(1, 1)], [cell(1.1, 0), cell(1, 1)]],
         "No difference was found between the errors of a and b at any of 2 noise levels; by band (number of levels) "
         "lower in band 0 (1); higher in band 0 (1)"),
    ],
)  # fmt: skip
def test_where_errors_differ(levels: list[Ratio], bands: list[list[Ratio]], claim: str) -> None:
    cells = Cells("a", "b", tuple(levels), tuple(map(tuple, bands)))
    assert where(cells, [10.0, 1.0]).claim == claim


def test_panels_share_their_scale_unless_one_would_flatten_the_others() -> None:
    near, wide = [cell(1.01, 0), cell(0.98, 0)], [cell(1.05, 0), cell(3.0, 0)]
    shared, said = panels.scales([near, [cell(1.03, 0)]])
    assert shared == [panels.limits_of([*near, cell(1.03, 0)])] * 2
    assert not said
    own, said = panels.scales([near, wide])
    assert own == [panels.limits_of(near), panels.limits_of(wide)]
    assert "scale of its own" in said
    assert panels.scales([]) == ([], "")


def test_answers_of_the_attribute_reader_are_counted_column_by_column() -> None:
    some = attribute_table(found())
    assert some is not None
    assert some.caption.endswith("(3 to 4 answers in each column)")  # the first prompt names no background
    right = found().data.attribute_right.fillna(1.0)
    every = attribute_table(replace(found(), data=found().data.assign(attribute_right=right)))
    assert every is not None
    assert every.caption.endswith("(4 answers in each column)")


def test_sentences_leave_what_a_network_is_to_the_table_of_measures() -> None:
    said = [one for one in (about_drift(found()), about_memory(found())) if one is not None]
    assert [one.kind for one in said] == ["drift", "memory"]
    for one in said:
        assert "pictures of" in one.support
        assert not any(word in one.text for word in ("sha256", "px", "resize", "uint8"))
    section = measure_section(found(), "")
    assert section is not None
    assert any("sha256" in cell for row in section.extra["folded"][-1].rows for cell in row)


def test_a_band_that_needs_much_room_does_not_flatten_the_others_and_the_page_says_so_once() -> None:
    from reports.evaluation_sections import band_panels, error_section

    quiet, loud = cell(1.01, 0), cell(3.0, 0)
    one = Cells("lora-1", "fera-0", (quiet,) * 4, ((quiet, loud),) * 4)
    made, scaled = band_panels(found(), [one], np.array([4.0, 3.0, 2.0, 1.0]), "")
    assert scaled
    assert "+2 %" in made[0].svg
    section = error_section(found(), [one], "")
    assert section is not None
    assert sum("scale of its own" in text for text in (*section.notes, *(p.note for p in section.panels))) == 1
    assert "Each band within a panel has a scale of its own" in section.notes[0]


@pytest.mark.parametrize("ends", [(0.98, 1.02), (0.93, 1.06), (0.6, 1.4), (0.3, 4.0), (0.02, 30.0)])
def test_axes_of_ratios_have_ticks_to_read_them_by(ends: tuple[float, float]) -> None:
    axes = Figure().subplots()
    axes.plot([0, 1], ends)
    ratio_scale(axes)
    assert 3 <= len(axes.get_yticks()) <= 8
    assert 1 in axes.get_yticks()


def test_thousands_are_written_out() -> None:
    assert [plain(v) for v in (3000.0, 12345.0, -1000.0, 3e7, 0.25)] == ["3000", "12300", "−1000", "3e+07", "0.25"]


@pytest.mark.parametrize("data", ["style", "tasks/style", "style/train", "style/heldout"])
def test_a_task_is_named_after_its_data(data: str) -> None:
    assert title_of({"model": "mini", "data": data}) == "mini on style"


def test_sections_of_an_evaluation_beside_others_say_whose_they_are() -> None:
    section = of_evaluation(Section("s", "Pictures", nav="Pictures"), "two")
    assert (section.title, section.nav) == ("Pictures (evaluation two)", "Pictures (two)")


def test_a_cube_is_named_in_the_command_whatever_its_suffix(report: Report) -> None:
    assert report.base is not None
    renamed = replace(report, base=replace(report.base, path=Path("runs/base")))
    assert reproduce_section(renamed).extra["steps"][-1][1].endswith("--cube runs/base --out report.html")
    inside = replace(renamed, evaluations=(replace(found(), path=Path("runs")),))
    steps = reproduce_section(inside).extra["steps"]
    assert "--cube" not in steps[-1][1]
    assert not any("Watch the base model" in words for words, _ in steps)


def test_tables_of_measures_have_arrows_that_screen_readers_hear() -> None:
    page = built().to_html()
    head = page[page.index("The main measures") :]
    assert '<th scope="col">better</th>' not in head[: head.index("</table>")]
    assert 'validation error<span class="arrow" aria-hidden="true"> ↓</span>' in head
    assert '<span class="unseen"> (lower is better)</span>' in head
    assert 'data-head="lora-1"' in head
