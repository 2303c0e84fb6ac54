"""What a run says that it took counts every process, each up to the checkpoint that the next one went on from."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from adapt.checkpoint_tree import load_tree, save_tree
from adapt.loop import TrainingStoppedError, train
from tests.adapt.small import config
from tests.adapt.test_resume import settings, stop_at

PAUSE = 0.4
"""Seconds that each process sleeps in a step, so that none is lost in the noise."""


def run_to(out: Path, step: int | None) -> float:
    """Train until a signal comes in this step, or to the end; how long that took."""
    stop = stop_at(step) if step else lambda *_: None
    slept: list[int] = []

    def told(phase: str, done: int, total: int) -> None:
        if phase == "train" and not slept:
            slept.append(done)
            time.sleep(PAUSE)
        stop(phase, done, total)

    begun = time.perf_counter()
    if step:
        with pytest.raises(TrainingStoppedError):
            train(config(out, **settings("lora"), ablate=False), told)
    else:
        train(config(out, **settings("lora"), ablate=False), told)
    return time.perf_counter() - begun


def test_a_resumed_run_took_as_long_as_all_of_its_processes(tmp_path: Path) -> None:
    from adapt.state import read_record

    out = tmp_path / "run"
    first = run_to(out, 2)
    kept = load_tree(out / "state" / "step-000002")["seconds"]
    second = run_to(out, 4)
    kept_then = load_tree(out / "state" / "step-000004")["seconds"]
    last = run_to(out, None)
    record = read_record(out)
    assert PAUSE < kept < first
    assert kept + PAUSE < kept_then < first + second
    assert kept_then + PAUSE < record["seconds_total"] < first + second + last
    assert record["seconds_total"] > last + PAUSE
    assert record["seconds_train"] < record["seconds_total"]


def test_a_state_of_an_earlier_version_counts_with_its_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def older(tree: dict[str, object], folder: Path) -> None:
        save_tree({name: value for name, value in tree.items() if name != "seconds"}, folder)

    from adapt.state import read_record

    with monkeypatch.context() as patch:
        patch.setattr("adapt.checkpoint_keeper.save_tree", older)
        run_to(tmp_path / "run", 2)
    steps = load_tree(tmp_path / "run" / "state" / "step-000002")["history"]["seconds"]
    last = run_to(tmp_path / "run", None)
    total = read_record(tmp_path / "run")["seconds_total"]
    assert last < total < last + steps
