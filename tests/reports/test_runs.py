"""What is no whole run is not taken for one, and runs that do not belong together are not compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import reports
from spectra.errors import UserError
from tests.reports.fixtures import text, write_cube, write_run


def edit(run: Path, **changes: Any) -> None:
    file = run / "run.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def rewrite(store: Path, data: xr.Dataset) -> None:
    data = data.load()
    for name in data.coords:
        if data[name].dtype.kind in "TO":
            data = data.assign_coords({name: (data[name].dims, text(*data[name].values))})
    for variable in data.variables.values():
        variable.encoding.clear()
    shutil.rmtree(store)
    data.to_zarr(store, consolidated=False)


def opened(store: Path) -> xr.Dataset:
    data: xr.Dataset = xr.open_zarr(store, chunks=None, consolidated=False).load()
    return data


def refused(*runs: Path, cube: Path | None = None) -> str:
    with pytest.raises(UserError) as caught:
        reports.build(list(runs), cube)
    said = str(caught.value)
    assert "\n" not in said
    return said


def test_no_runs() -> None:
    assert "no runs" in refused()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "nothing")


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    assert "run.json" in refused(tmp_path)


def test_a_file_in_place_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("")
    assert "not a finished training run" in refused(tmp_path / "report.html")


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda run: (run / "run.json").write_text("{"), "JSON"),
        (lambda run: (run / "run.json").write_text("[]"), "format"),
        (lambda run: edit(run, format=2), "format 1"),
        (lambda run: edit(run, status="running"), "incomplete"),
        (lambda run: edit(run, config=None), "incomplete"),
        (lambda run: shutil.rmtree(run / "metrics.zarr"), "metrics.zarr"),
        (lambda run: shutil.rmtree(run / "evaluation.zarr"), "evaluation.zarr"),
        (lambda run: shutil.rmtree(run / "metrics.zarr" / "validation_error"), "validation_error"),
        (lambda run: (run / "metrics.zarr" / "zarr.json").write_text("{"), "cannot be read"),
    ],
)
def test_incomplete_and_damaged_runs(tmp_path: Path, damage: Any, word: str) -> None:
    run = write_run(tmp_path / "run", samples=4)
    damage(run)
    assert word in refused(run)


def test_a_lost_chunk_of_errors(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", samples=4)
    shutil.rmtree(run / "metrics.zarr" / "validation_error" / "c")
    assert "validation_error" in refused(run)


def test_a_run_without_the_base_model(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", samples=4)
    store = run / "evaluation.zarr"
    rewrite(store, opened(store).isel(source=[1, 2]))
    assert "no base arm" in refused(run)


def test_a_run_that_was_not_validated_before_training(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", samples=4)
    store = run / "metrics.zarr"
    rewrite(store, opened(store).isel(eval_step=slice(1, None)))
    assert "no base arm" in refused(run)


def test_runs_validated_on_different_grids(tmp_path: Path) -> None:
    first, second = write_run(tmp_path / "a", samples=4), write_run(tmp_path / "b", "fera", samples=4)
    store = second / "metrics.zarr"
    data = opened(store)
    rewrite(store, data.assign(validation_error=data.validation_error.isel(sample=[1, 0, 2, 3])))
    assert "different grids" in refused(first, second)


def test_runs_that_generated_for_different_prompts(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", samples=4)
    second = write_run(tmp_path / "b", "fera", samples=4, prompts=["a", "b", "c", "d"])
    assert "different prompts" in refused(first, second)


def test_a_cube_of_another_model(tmp_path: Path) -> None:
    run, cube = write_run(tmp_path / "a", samples=4), write_cube(tmp_path / "c.zarr", runs=2, model_hash="other")
    assert "another model" in refused(run, cube=cube)


def test_a_cube_of_an_adapter_only(tmp_path: Path) -> None:
    run, cube = write_run(tmp_path / "a", samples=4), write_cube(tmp_path / "c.zarr", runs=2, adapter=["x", "x"])
    assert "base model" in refused(run, cube=cube)


def test_a_cube_that_is_not_there(tmp_path: Path) -> None:
    refused(write_run(tmp_path / "a", samples=4), cube=tmp_path / "nothing.zarr")


def test_two_cubes_among_the_runs_are_ambiguous(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", samples=4)
    cubes = [write_cube(tmp_path / f"{name}.zarr", runs=2) for name in "cd"]
    assert "2 cubes" in refused(run, *cubes)


def test_a_cube_among_the_runs_is_taken_for_what_it_is(tmp_path: Path) -> None:
    run, cube = write_run(tmp_path / "a", samples=4), write_cube(tmp_path / "c.zarr", runs=2)
    found = reports.build([run, cube]).base
    assert found is not None
    assert found.path == cube


def test_errors_that_are_not_finite(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", samples=4)
    store = run / "metrics.zarr"
    data = opened(store)
    data.validation_error[-1, 0, 0, 0] = np.nan
    rewrite(store, data)
    assert "finite" in refused(run)


def test_another_cube_has_to_be_of_the_model_too(tmp_path: Path) -> None:
    run, cube = write_run(tmp_path / "a", samples=4), write_cube(tmp_path / "c.zarr", runs=2)
    other = write_cube(tmp_path / "d.zarr", runs=2, model_hash="other")
    assert "another model" in refused(run, other, cube=cube)


def test_a_store_inside_a_run_is_not_taken_for_a_cube(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", samples=4)
    assert "part of a training run" in refused(run / "metrics.zarr")


def test_a_cube_alone_is_nothing_to_compare(tmp_path: Path) -> None:
    assert "no runs" in refused(write_cube(tmp_path / "c.zarr", runs=2))
