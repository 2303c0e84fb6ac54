from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from benchmarks.quality import numbers
from benchmarks.quality.design import Job
from spectra.errors import UserError
from tests.benchmarks.quality.synthetic import errors, experiment, fail, finish, write_final

CELL = ("mini", "style")


def test_a_folder_without_finals_is_refused_with_the_command_that_makes_them(tmp_path: Path) -> None:
    finish(tmp_path, Job(*CELL, "lora", 0.008, 100, "sweep"), 1.0)
    with pytest.raises(UserError, match=r"no finished final run; run `python -m benchmarks\.quality\.run"):
        numbers.collect(tmp_path)


def test_errors_are_those_of_the_last_evaluation_and_curves_are_means_over_levels(tmp_path: Path) -> None:
    final = errors(5)
    write_final(tmp_path, Job(*CELL, "lora", 0.008, 5, "final"), final)
    data = numbers.collect(tmp_path)
    np.testing.assert_allclose(data.error[0], final, rtol=1e-6)
    np.testing.assert_allclose(data.curve[0, 1], 2 * final.mean(0), rtol=1e-6)


def test_unfinished_runs_and_unknown_arms_are_left_out(tmp_path: Path) -> None:
    write_final(tmp_path, Job(*CELL, "lora", 0.008, 0, "final"), errors(0))
    (tmp_path / Job(*CELL, "lora", 0.008, 1, "final").folder).mkdir(parents=True)
    write_final(tmp_path, Job(*CELL, "not-an-arm", 0.008, 0, "final"), errors(0))
    data = numbers.collect(tmp_path)
    assert data.arm.values.tolist() == ["lora"]
    assert data.seed.values.tolist() == [0]


def test_a_failed_run_of_the_sweep_counts_as_an_infinite_error(tmp_path: Path) -> None:
    write_final(tmp_path, Job(*CELL, "lora", 0.008, 0, "final"), errors(0))
    finish(tmp_path, Job(*CELL, "lora", 0.008, 100, "sweep"), 1.5)
    fail(tmp_path, Job(*CELL, "lora", 0.016, 100, "sweep"))
    assert numbers.sweep_of(numbers.collect(tmp_path), CELL, "lora") == {0.008: 1.5, 0.016: np.inf}


def test_finals_at_several_rates_are_taken_at_the_best_of_the_sweep(tmp_path: Path) -> None:
    for rate, error in ((0.004, 2.0), (0.008, 1.0)):
        finish(tmp_path, Job(*CELL, "lora", rate, 100, "sweep"), error)
        write_final(tmp_path, Job(*CELL, "lora", rate, 0, "final"), errors(0))
    data = numbers.collect(tmp_path)
    assert data.rate.values[numbers.rows_of(data, CELL, "lora")].tolist() == [0.008]


def test_arms_are_paired_by_the_seeds_that_both_have(tmp_path: Path) -> None:
    for arm, seeds in (("lora", (0, 1, 3)), ("fera-prior", (3, 1, 2))):
        for seed in seeds:
            write_final(tmp_path, Job(*CELL, arm, 0.008, seed, "final"), errors(seed))
    data = numbers.collect(tmp_path)
    first, second = numbers.common(data, CELL, ("lora", "fera-prior"))
    assert data.seed.values[first].tolist() == data.seed.values[second].tolist() == [1, 3]


def test_what_is_saved_is_read_back_unchanged_from_a_small_store(tmp_path: Path) -> None:
    data = numbers.collect(experiment(tmp_path / "runs", {"lora": 1.0, "fera-prior": 0.9}))
    numbers.save(data, tmp_path / "q.zarr")
    xr.testing.assert_identical(numbers.load(tmp_path / "q.zarr").drop_attrs(), data.drop_attrs())
    numbers.save(data, tmp_path / "q.zarr")
    assert numbers.cells(numbers.load(tmp_path / "q.zarr")) == [
        ("mini-flow", "style"), ("mini-flow", "subject"), ("mini", "style"), ("mini", "subject")
    ]  # fmt: skip


def test_a_store_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give --runs"):
        numbers.load(tmp_path / "q.zarr")


def test_gates_of_arms_with_fewer_experts_leave_the_last_places_empty(tmp_path: Path) -> None:
    write_final(tmp_path, Job(*CELL, "fera-experts2", 0.008, 0, "final"), errors(0), gates=2)
    write_final(tmp_path, Job(*CELL, "lora", 0.008, 0, "final"), errors(0))
    data = numbers.collect(tmp_path)
    rows = {arm: int(numbers.rows_of(data, CELL, arm)[0]) for arm in ("lora", "fera-experts2")}
    assert np.isnan(data.gate.values[rows["lora"]]).all()
    assert np.isfinite(data.gate.values[rows["fera-experts2"]]).sum(-1).tolist() == [[2] * 3] * 2


def test_an_arm_of_another_length_does_not_shift_the_curves_of_others(tmp_path: Path) -> None:
    for arm, steps in (("lora", [0, 60, 120]), ("lora-short", [0, 60, 84])):
        job = Job(*CELL, arm, 0.008, 0, "final")
        write_final(tmp_path, job, errors(0), steps=steps)
    data = numbers.collect(tmp_path)
    assert data.eval_step.values.tolist() == [0, 60, 84, 120]
    for arm, steps in (("lora", [0, 60, 120]), ("lora-short", [0, 60, 84])):
        found, curve = numbers.curve_of(data, numbers.rows_of(data, CELL, arm))
        assert found.tolist() == steps
        np.testing.assert_allclose(curve[0, -1], errors(0).mean(0), rtol=1e-6)
