"""Several models or data sets: each a task by itself, and over them only what holds after correction for all."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import reports
from reports import Report
from reports.tasks import entries, overview_table
from spectra.errors import UserError
from tests.reports.fixtures import text, write_cube, write_run, write_three_arms
from tests.reports.metrics.fixtures import evaluation, write_evaluation
from tests.reports.test_page import Outline

EFFECTS = {"style": 0.42, "subject": 0.46, "faces": 0.52}
"""FeRA's final error; LoRA's is 0.46."""


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("tasks")
    return [
        write_run(
            root / f"{data}-{method}-{seed}", method, seed=seed, samples=8, effect=effect if method == "fera" else 0.46,
            record={"data": data},
        )
        for data, effect in EFFECTS.items() for method in ("lora", "fera") for seed in range(3)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def tasks(paths: list[Path]) -> Report:
    return reports.build(paths)


def test_runs_of_several_data_sets_are_tasks(tasks: Report) -> None:
    assert [task.title for task in tasks.tasks] == ["mini on faces", "mini on style", "mini on subject"]
    assert all(len(task.arms) == 2 for task in tasks.tasks)


def test_wins_and_losses_are_counted_after_correction(tasks: Report) -> None:
    found = {entry.task: entry for entry in entries(tasks.tasks)}
    p = {title: entry.p for title, entry in found.items()}
    order = sorted(p, key=lambda title: p[title])
    holm, worst = {}, 0.0
    for rank, title in enumerate(order):
        worst = max(worst, p[title] * (3 - rank))
        holm[title] = min(worst, 1.0)
    assert {t: e.p_corrected for t, e in found.items()} == pytest.approx(holm)
    assert {t: e.outcome for t, e in found.items()} == {"mini on style": -1, "mini on subject": 0, "mini on faces": 1}
    said = tasks.sentences[0]
    assert said.startswith("FeRA without prior is better than LoRA on 1 of 3 tasks, worse on 1, and on 1 no difference")


def test_the_mean_over_tasks_is_geometric(tasks: Report) -> None:
    mean = stats.gmean([task.pairs[0].error.value for task in tasks.tasks])
    words = f"{abs(mean - 1) * 100:.1f} % {'lower' if mean < 1 else 'higher'}"
    assert words in tasks.sentences[0]


def test_numbers_of_every_task_are_there_for_scripts(tasks: Report) -> None:
    found = json.loads(json.dumps(tasks.to_dict(), allow_nan=False))
    assert found["format"] == 2
    assert [task["data"] for task in found["tasks"]] == ["faces", "style", "subject"]
    assert Counter(entry["outcome"] for entry in found["overview"]) == Counter(
        ["better", "worse", "no difference found"]
    )


def test_gates_hold_over_all_tasks(tasks: Report) -> None:
    (failure,) = tasks.check("error_ratio>1.05")
    assert failure.arm == "FeRA without prior (mini on faces)"


def test_the_page_has_a_section_per_task_in_one_small_file(tasks: Report) -> None:
    page = tasks.to_html()
    outline = Outline(page)
    assert not outline.open
    assert len(page.encode()) <= 3_000_000
    ids = Counter(attrs["id"] for _, attrs in outline.found if "id" in attrs)
    assert [name for name, count in ids.items() if count > 1] == []
    sections = [attrs["id"] for _, attrs in outline.every("section")]
    assert {"verdict", "t0", "t1", "t2", "t0-verdict", "t2-learning", "method"} <= set(sections)
    levels = [int(tag[1]) for tag, _ in outline.every("h1", "h2", "h3", "h4", "h5")]
    assert levels.count(1) == 1


def test_the_order_of_the_paths_does_not_matter(paths: list[Path], tasks: Report) -> None:
    assert reports.compare_tasks(paths[::-1]).to_dict() == tasks.to_dict()


def test_one_task_is_not_several(paths: list[Path]) -> None:
    with pytest.raises(UserError, match="all of one task, mini on style"):
        reports.compare_tasks([path for path in paths if path.name.startswith("style")])


def test_a_cube_shows_the_base_of_the_tasks_of_its_model(tmp_path: Path) -> None:
    runs = write_three_arms(tmp_path / "runs", seeds=1, samples=4)
    other = write_run(tmp_path / "other", samples=4, record={"model_hash": "other", "model": "flow"})
    report = reports.build([*runs, other, write_cube(tmp_path / "c.zarr", runs=4)])
    assert {task.title: task.base is not None for task in report.tasks} == {
        "flow on style": False,
        "mini on style": True,
    }


def test_tasks_of_the_same_names_are_told_apart(tmp_path: Path) -> None:
    made = [write_run(tmp_path / name, samples=4, record={"data": f"{name}/style"}) for name in "ab"]
    titles = [task.title for task in reports.build(made).tasks]
    assert len(set(titles)) == 2
    assert "a/style" in titles[0]


def test_evaluations_of_two_models_are_tasks_too(tmp_path: Path) -> None:
    data = evaluation(strength=(0, 1, 0.5), prompts=5, seeds=1, unrelated=2, heldout=10, train=4)
    protocol = json.loads(data.attrs["protocol"]) | {"model_hash": "b", "model": "flow"}
    made = [
        write_evaluation(tmp_path / "a.zarr", data),
        write_evaluation(tmp_path / "b.zarr", data.assign_attrs(protocol=json.dumps(protocol))),
    ]
    report = reports.build(made)
    assert [task.title for task in report.tasks] == ["mini on style", "flow on style"]
    found = entries(report.tasks)
    assert {(e.arm, e.other, e.measure) for e in found} == {("lora-1", "fera-0", "validation error")}
    assert all(e.outcome == 1 and np.isfinite(e.low) for e in found)
    assert report.sentences[0].startswith("lora-1 is better than fera-0 on 0 of 2 tasks, worse on 2")


def stores(folder: Path, **protocols: dict[str, Any]) -> list[Path]:
    """Evaluations of the same adapters, each with changes of its protocol."""
    data = evaluation(strength=(0, 1, 0.5), prompts=5, seeds=1, unrelated=2, heldout=10, train=4)
    made = []
    for name, changed in protocols.items():
        protocol = json.dumps(json.loads(data.attrs["protocol"]) | changed)
        made.append(write_evaluation(folder / f"{name}.zarr", data.assign_attrs(protocol=protocol)))
    return made


def held(digest: str) -> dict[str, Any]:
    return {"pictures": {"heldout": {"count": 10, "sha256": digest}}}


def test_two_evaluations_on_the_same_pictures_are_one_task(tmp_path: Path) -> None:
    report = reports.build(stores(tmp_path, ev=held("a"), ev2=held("a") | {"steps": 60, "data": "elsewhere/style"}))
    assert not report.tasks
    assert report.title == "mini on style"
    assert "Held-out errors of ev and ev2 are on the same pictures: they are one test, not 2." in report.warnings
    assert {said.split(":")[0] for said in report.sentences[:2]} == {"ev", "ev2"}
    assert report.check("error_ratio@lora-1>0.5")[0].words.startswith("error_ratio of lora-1 (ev)")
    ids = Counter(attrs["id"] for _, attrs in Outline(report.to_html()).found if "id" in attrs)
    assert max(ids.values()) == 1


def test_stores_that_differ_in_steps_count_once_among_other_tasks(tmp_path: Path) -> None:
    same = {"ev": held("a"), "ev2": held("a") | {"steps": 60}}
    report = reports.build(stores(tmp_path, **same, flow={"model_hash": "b", "model": "flow"} | held("a")))
    assert [len(task.evaluations) for task in report.tasks] == [2, 1]
    assert len(entries(report.tasks)) == 2
    assert report.sentences[0].startswith("lora-1 is better than fera-0 on 0 of 2 tasks, worse on 2")


def test_other_weights_of_the_same_name_are_another_arm(tmp_path: Path) -> None:
    first, second = (
        xr.open_zarr(path, consolidated=False).load() for path in stores(tmp_path, a=held("a"), b=held("a"))
    )
    other = second.assign_coords(digest=("adapter", text("", "1" * 64, "f" * 64)))
    made = [write_evaluation(tmp_path / f"new/{name}.zarr", data) for name, data in (("a", first), ("b", other))]
    made += stores(tmp_path, flow={"model_hash": "b", "model": "flow"})
    assert [entry.arm for entry in entries(reports.build(made).tasks)] == ["lora-1", "lora-1", "lora-1 (b)"]


def test_tasks_whose_data_and_model_have_one_name_are_told_apart_by_their_stores(tmp_path: Path) -> None:
    report = reports.build(stores(tmp_path, ev=held("a"), ev2=held("b")))
    assert [Path(task.title.split("(")[-1][:-1]).name for task in report.tasks] == ["ev.zarr", "ev2.zarr"]
    rows = overview_table(entries(report.tasks), report.tasks).rows
    assert len({row[0] for row in rows}) == 2
    assert [entry.task for entry in entries(report.tasks)] == [task.title for task in report.tasks]


def test_tasks_that_could_not_be_compared_are_counted_with_the_reason(paths: list[Path], tmp_path: Path) -> None:
    two = [path for path in paths if path.name.startswith("style")]
    lone = write_run(tmp_path / "lone", "fera", samples=8, record={"data": "lone"})
    report = reports.build([*two, lone])
    assert report.sentences[0].startswith("FeRA without prior is better than LoRA on 1 of 1 task")
    assert report.sentences[1] == (
        "1 of 2 tasks could not be compared: mini on lone, which has one arm alone, FeRA without prior."
    )


def test_where_no_task_could_be_compared_each_says_why(tmp_path: Path) -> None:
    bare = evaluation(strength=(0, 1, 0.5), prompts=5, seeds=1, unrelated=0, validation=False, train=0)
    protocol = json.loads(bare.attrs["protocol"]) | {"model_hash": "b", "model": "flow"}
    store = write_evaluation(tmp_path / "e.zarr", bare.assign_attrs(protocol=json.dumps(protocol)))
    report = reports.build([write_run(tmp_path / "lone", samples=8), store])
    assert report.sentences == [
        "None of 2 tasks could be compared: mini on style, which has one arm alone, LoRA; "
        "flow on style, in which no held-out error was measured."
    ]
