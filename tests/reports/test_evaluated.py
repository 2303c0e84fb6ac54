"""An evaluation is read whole or refused in one sentence, and its adapters find their training runs."""

from __future__ import annotations

import functools
import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import reports
from reports.building import build
from reports.evaluated import BASE, pairs_of, read_evaluation
from spectra.errors import UserError
from tests.reports.fixtures import text, write_cube, write_run
from tests.reports.metrics.fixtures import evaluation, write_evaluation


@functools.cache
def small() -> xr.Dataset:
    return evaluation(adapters=2, prompts=6, seeds=1, unrelated=2, heldout=8, train=4)


def refused(*paths: Path) -> str:
    with pytest.raises(UserError) as caught:
        reports.build(list(paths))
    said = str(caught.value)
    assert "\n" not in said
    return said


def relabelled(data: xr.Dataset, **coords: list[str]) -> xr.Dataset:
    return data.assign_coords({name: ("adapter", text(*values)) for name, values in coords.items()})


def test_an_evaluation_alone_is_a_report(tmp_path: Path) -> None:
    report = build([write_evaluation(tmp_path / "e.zarr", small())])
    assert (report.arms, report.pairs, report.base) == ((), (), None)
    assert report.title == "mini on style"
    assert report.evaluations[0].adapters == ("fera-0", "lora-1")
    assert report.evaluations[0].pairs == (("lora-1", "fera-0"),)


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda d: d.assign_attrs(format=9), "format 1"),
        (lambda d: d.assign_attrs(protocol="{}"), "model, model_hash, prompts, seeds"),
        (lambda d: d.assign_attrs(protocol="no json"), "model"),
        (lambda d: d.drop_vars("image"), "image(adapter, sample, y, x, rgb)"),
        (lambda d: d.drop_vars("part"), "part"),
        (lambda d: d.assign(status=("adapter", np.array([1, 0, 0], np.uint8))), "unfinished evaluation"),
        (lambda d: d.assign(status=("adapter", np.array([0, 1, 1], np.uint8))), "unfinished evaluation"),
        (lambda d: d.isel(adapter=[0]), "holds the base alone"),
        (lambda d: d.assign(energy=d.energy * np.nan), "finite"),
    ],
)
def test_damaged_and_unfinished_evaluations(tmp_path: Path, damage: Any, word: str) -> None:
    assert word in refused(write_evaluation(tmp_path / "e.zarr", damage(small())))


def test_an_adapter_that_is_not_finished_is_left_out_and_named(tmp_path: Path) -> None:
    half = small().assign(status=("adapter", np.array([1, 1, 0], np.uint8)))
    report = build([write_evaluation(tmp_path / "e.zarr", half)])
    assert report.evaluations[0].adapters == ("fera-0",)
    assert any("has not finished lora-1" in said for said in report.warnings)


def test_an_unfinished_adapter_without_a_name_is_told_by_its_place(tmp_path: Path) -> None:
    half = relabelled(small(), adapter=["base", "fera-0", ""]).assign(status=("adapter", np.array([1, 1, 0], np.uint8)))
    report = build(write_evaluation(tmp_path / "e.zarr", half))
    assert any("has not finished its adapter 2 (which has no name yet), left out" in said for said in report.warnings)


def test_one_path_is_a_list_of_one(tmp_path: Path) -> None:
    path = write_evaluation(tmp_path / "e.zarr", small())
    assert build(path).sentences == build(str(path)).sentences == build([path]).sentences


def test_a_path_that_is_not_there_is_refused_with_what_may_be_given(tmp_path: Path) -> None:
    assert "does not exist; give folders that `adapt train` or `adapt evaluate` wrote" in refused(tmp_path / "none")


def test_an_adapter_that_is_being_added_does_not_count_and_does_not_harm(tmp_path: Path) -> None:
    """Its row grows array by array; the consolidated metadata count it when it is whole."""
    path = write_evaluation(tmp_path / "e.zarr", small())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that consolidated metadata are an extension
        zarr.consolidate_metadata(str(path))
    grown: Any = zarr.open_group(path, mode="r+", use_consolidated=False)["image"]
    grown.resize((grown.shape[0] + 1, *grown.shape[1:]))
    assert read_evaluation(path).labels == ("base", "fera-0", "lora-1")


def test_few_adapters_are_all_compared_and_many_with_the_first() -> None:
    assert pairs_of(["a", "b", "c"]) == [("b", "a"), ("c", "a"), ("c", "b")]
    assert pairs_of(list("abcdef")) == [(x, "a") for x in "bcdef"]
    assert pairs_of(["a"]) == []


def test_with_a_chosen_adapter_all_others_are_compared_with_it_alone() -> None:
    assert pairs_of(["a", "b", "c"], "b") == [("a", "b"), ("c", "b")]
    assert pairs_of(list("abcdef"), "c") == [(x, "c") for x in "abdef"]
    assert pairs_of(["a", "b"], BASE) == pairs_of(["a"], "a") == []


def runs_of(root: Path) -> list[Path]:
    return [write_run(root / "fera-0", "fera", samples=4), write_run(root / "second", samples=4)]


def test_adapters_are_matched_to_runs_by_name_and_take_their_colours(tmp_path: Path) -> None:
    stored = write_evaluation(tmp_path / "e.zarr", small())
    report = build([*runs_of(tmp_path), stored])
    found = report.evaluations[0]
    assert {label: run.path.name for label, run in found.runs.items()} == {"fera-0": "fera-0"}
    styles = {arm.label: arm.style for arm in report.arms}
    assert found.styles["fera-0"] == styles["FeRA without prior"]
    assert found.styles["lora-1"] not in styles.values()


def test_adapters_are_matched_to_runs_by_path(tmp_path: Path) -> None:
    runs = runs_of(tmp_path)
    data = relabelled(small(), path=["", "elsewhere", str(runs[1] / "adapter")])
    found = build([*runs, write_evaluation(tmp_path / "e.zarr", data)]).evaluations[0]
    assert found.runs["lora-1"].path == runs[1]


def test_adapters_are_matched_to_runs_by_their_weights_whatever_their_name(tmp_path: Path) -> None:
    runs, lines = runs_of(tmp_path), ""
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (runs[1] / "adapter" / name).write_bytes(name.encode())
        lines += f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n"
    digest = hashlib.sha256(lines.encode()).hexdigest()
    data = relabelled(small(), digest=["", "f" * 64, digest])
    report = build([*runs, write_evaluation(tmp_path / "e.zarr", data)])
    assert report.evaluations[0].runs["lora-1"].path == runs[1]
    assert not any("other weights" in said for said in report.warnings)


def test_a_run_that_was_trained_again_since_is_warned_of(tmp_path: Path) -> None:
    runs = runs_of(tmp_path)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (runs[0] / "adapter" / name).write_text("new")
    report = build([*runs, write_evaluation(tmp_path / "e.zarr", small())])
    assert any("other weights of fera-0" in said for said in report.warnings)


def test_adapters_that_are_none_of_the_runs_are_said_to_be_strangers(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "x", samples=4)]
    report = build([*runs, write_evaluation(tmp_path / "e.zarr", small())])
    assert any("None of the adapters in e" in said for said in report.warnings)


def test_an_evaluation_of_another_model_is_a_task_of_its_own(tmp_path: Path) -> None:
    protocol = json.loads(small().attrs["protocol"]) | {"model_hash": "another", "model": "sdxl"}
    stored = write_evaluation(tmp_path / "e.zarr", small().assign_attrs(protocol=json.dumps(protocol)))
    report = build([write_run(tmp_path / "x", samples=4), stored])
    assert [task.title for task in report.tasks] == ["mini on style", "sdxl on style"]


def test_the_base_model_is_read_from_the_probe_of_the_evaluation(tmp_path: Path) -> None:
    stored = write_evaluation(tmp_path / "e.zarr", small())
    write_cube(stored / "probe", runs=6, adapter=["base", "base", "fera-0", "fera-0", "lora-1", "lora-1"])
    base = build([stored]).base
    assert base is not None
    assert base.runs == 2


def test_what_was_not_measured_is_said(tmp_path: Path) -> None:
    bare = evaluation(
        adapters=2, prompts=3, seeds=1, unrelated=0, references=False, validation=False, attributes=False, networks=()
    )
    report = build([write_evaluation(tmp_path / "e.zarr", bare)])
    assert report.sentences[0].startswith("Which of lora-1 and fera-0 is better was not measured")
    assert any("no validation error" in said and "--data" in said for said in report.warnings)
    assert "Pictures" in report.to_html()


def test_energies_between_adapters_are_one_family(tmp_path: Path) -> None:
    from reports.cells import energies_of

    found = read_evaluation(write_evaluation(tmp_path / "e.zarr", evaluation(strength=(0, 1, 0.5, 0.2), seeds=1)))
    cells = [ratio for one in energies_of(found) for ratio in one.bands]
    assert len(cells) == 12
    smallest = min(cells, key=lambda ratio: ratio.p)
    assert smallest.p_corrected == pytest.approx(min(1, 12 * smallest.p))
