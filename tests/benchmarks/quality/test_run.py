import json
import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.quality import run
from benchmarks.quality.design import CONFIRM, FULL, HELD_OUT, QUICK, Design, Job
from spectra.errors import UserError
from tests.benchmarks.quality.synthetic import fail, finish

SMALL = replace(FULL, models=("mini",), tasks=("style",), arms=("lora", "fera-random"), seeds=(0, 1))


def told(job: Job, design: Design, out: Path) -> None:
    """Stands for training: writes down who trained what, and an error that is least at a rate of 0.008."""
    finish(out, job, abs(job.rate - 0.008) + 1)
    with (out / "trained.txt").open("a") as log:
        log.write(f"{job.folder}\n")


def worker(out: Path, design: Design) -> None:
    """One process of the experiment, with `told` in place of training."""
    run.train_one = told
    run.work(out, design)


@pytest.fixture
def trained(tmp_path: Path) -> list[str]:
    """Three processes on one folder, all at once."""
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=worker, args=(tmp_path, SMALL)) for _ in range(3)]
    for one in workers:
        one.start()
    for one in workers:
        one.join(60)
    assert [one.exitcode for one in workers] == [0, 0, 0]
    return (tmp_path / "trained.txt").read_text().split()


def test_several_processes_train_every_run_once_and_none_twice(trained: list[str]) -> None:
    assert len(trained) == len(set(trained)) == 2 * (3 + 2)  # two arms: three rates of the sweep, two final seeds
    assert {name for name in trained if name.startswith("final")} == {
        f"final/mini/style/{arm}/0.008/seed{seed}" for arm in SMALL.arms for seed in SMALL.seeds
    }


def test_a_run_that_another_process_holds_is_passed_over(tmp_path: Path) -> None:
    held = run.claim(tmp_path, SMALL)
    other = run.claim(tmp_path, SMALL)
    assert held is not None
    assert other is not None
    assert held[0] != other[0]
    held[1].release()
    again = run.claim(tmp_path, SMALL)
    assert again is not None
    assert again[0] == held[0]


def test_finals_wait_for_the_sweep_and_are_at_its_best_rate(tmp_path: Path) -> None:
    one = replace(SMALL, arms=("lora",))
    assert all(job.stage == "sweep" for job in run.open_jobs(tmp_path, one))
    for rate, error in ((0.004, 1.2), (0.008, 1.0), (0.016, 1.1)):
        finish(tmp_path, Job("mini", "style", "lora", rate, 100, "sweep"), error)
    assert [(job.rate, job.seed, job.stage) for job in run.open_jobs(tmp_path, one)] == [
        (0.008, 0, "final"), (0.008, 1, "final")
    ]  # fmt: skip


def test_a_sweep_goes_on_beyond_an_end_that_is_best(tmp_path: Path) -> None:
    for rate, error in ((0.004, 1.2), (0.008, 1.0), (0.016, 0.9)):
        finish(tmp_path, Job("mini", "style", "lora", rate, 100, "sweep"), error)
    assert [job.rate for job in run.open_jobs(tmp_path, replace(SMALL, arms=("lora",)))] == [0.032]
    fail(tmp_path, Job("mini", "style", "lora", 0.032, 100, "sweep"))
    assert {job.rate for job in run.open_jobs(tmp_path, replace(SMALL, arms=("lora",)))} == {0.016}


def test_a_failed_run_is_not_run_again_and_is_never_best(tmp_path: Path) -> None:
    job = Job("mini", "style", "lora", 0.004, 100, "sweep")
    assert run.error_of(tmp_path / job.folder) is None
    fail(tmp_path, job)
    assert run.error_of(tmp_path / job.folder) == float("inf")
    assert job not in list(run.open_jobs(tmp_path, SMALL))
    assert run.best_rate({0.004: float("inf"), 0.008: 2.0}) == 0.008


def test_a_run_that_cannot_be_trained_leaves_its_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import adapt

    def diverge(config: Any) -> None:
        raise UserError("the loss is no longer a number")

    monkeypatch.setattr(adapt, "train", diverge)
    job = Job("mini", "style", "lora", 0.5, 100, "sweep")
    run.train_one(job, SMALL, tmp_path)
    assert json.loads((tmp_path / job.folder / run.FAILED).read_text())["error"] == "the loss is no longer a number"


def test_no_two_stages_share_a_held_out_picture(tmp_path: Path) -> None:
    run.write_data(tmp_path, replace(QUICK, tasks=("subject",)))
    folders = {stage: tmp_path / "data" / "subject" / name for stage, name in HELD_OUT.items()}
    kept = {stage: [file.read_bytes() for file in folder.glob("*.png")] for stage, folder in folders.items()}
    assert {stage: len(pictures) for stage, pictures in kept.items()} == {"sweep": 16, "final": 16, "confirm": 32}
    assert len(set().union(*kept.values())) == 64
    for stage, folder in folders.items():
        config = run.config_of(Job("mini", "subject", "lora", 0.1, 0, stage), FULL, tmp_path)
        assert Path(config["heldout"]) == folder


def test_the_confirmation_trains_new_seeds_at_the_rates_of_the_sweep(tmp_path: Path) -> None:
    one = replace(CONFIRM, models=("mini",), tasks=("style",), arms=("lora",))
    for rate, error in ((0.004, 1.2), (0.008, 1.0), (0.016, 1.1)):
        finish(tmp_path, Job("mini", "style", "lora", rate, 100, "sweep"), error)
    jobs = list(run.open_jobs(tmp_path, one))
    assert {job.folder.split("/")[0] for job in jobs} == {"confirm"}
    assert {job.rate for job in jobs} == {0.008}
    assert not {job.seed for job in jobs} & {*FULL.seeds, *FULL.sweep_seeds}


def test_only_arms_with_a_prior_are_given_one(tmp_path: Path) -> None:
    with_prior, without = (
        run.config_of(Job("mini", "style", arm, 0.1, 0, "final"), FULL, tmp_path)
        for arm in ("fera-prior", "fera-random")
    )
    assert Path(with_prior["prior"]).name == "mini-style.zarr"
    assert "prior" not in without


def test_a_folder_of_another_design_is_refused_and_more_arms_are_welcome(tmp_path: Path) -> None:
    run.check_design(tmp_path, SMALL)
    run.check_design(tmp_path, replace(SMALL, arms=("fera-shared",), seeds=(7,)))
    assert set(json.loads((tmp_path / "design.json").read_text())["arms"]) == {"lora", "fera-random", "fera-shared"}
    with pytest.raises(UserError, match="other settings"):
        run.check_design(tmp_path, replace(SMALL, steps=7))
