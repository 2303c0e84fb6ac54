"""SIGKILL at the worst moments: whatever was being written, the run goes on and ends with the undisturbed bits."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from adapt import checkpoint, checkpoint_keeper, state
from adapt.loop import RunResult, train
from tests.adapt.small import config
from tests.adapt.test_resume import assert_same, settings, undisturbed

pytestmark = pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="needs a safe fork")
STEPS = settings("lora")["steps"]


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def after(target: Any, name: str) -> Any:
    """Patch: the function does its work, then the process dies."""
    real = getattr(target, name)

    def last(*args: Any, **kwargs: Any) -> None:
        real(*args, **kwargs)
        die()

    return patch.object(target, name, last)


def before(target: Any, name: str) -> Any:
    """Patch: the process dies instead."""
    return patch.object(target, name, die)


def second(make: Callable[[Any, str], Any], target: Any, name: str) -> Any:
    """Patch: as `make` says, but only at the second call."""
    real, calls = getattr(target, name), [0]

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] < 2:
            return real(*args, **kwargs)
        if make is after:
            real(*args, **kwargs)
        die()

    return patch.object(target, name, counted)


MOMENTS: dict[str, Callable[[], Any]] = {
    "files written, none marked": lambda: second(after, checkpoint_keeper, "save_tree"),
    "marked, not renamed": lambda: second(after, checkpoint, "_mark"),
    "renamed, nothing removed": lambda: second(before, checkpoint, "prune"),
    "while old ones are removed": lambda: patch.object(state, "remove", torn_removal),
    "before the last pictures": lambda: before(sys.modules["adapt.loop"], "evaluate"),
    "everything written but the record": lambda: before(state, "publish"),
}


def torn_removal(path: Path) -> None:
    """Remove some of a complete checkpoint, then die; anything else is removed as always."""
    if path.name.startswith("step-") and path.is_dir():
        next(path.glob("adapter/*")).unlink()
        die()
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def life(out: Path, moment: Callable[[], Any] | None = None) -> int:
    """Train in a fork -> its exit code, negative for signals."""

    def body() -> None:
        with moment() if moment else patch.dict(os.environ):
            train(config(out, **settings("lora")))

    process = multiprocessing.get_context("fork").Process(target=body)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


@pytest.mark.parametrize(
    "moment",
    [*list(MOMENTS)[:3], *(pytest.param(moment, marks=pytest.mark.slow) for moment in list(MOMENTS)[3:])],
)
def test_a_run_killed_at_the_worst_moment_ends_as_the_undisturbed_one(tmp_path: Path, moment: str) -> None:
    expected = undisturbed("lora")
    assert life(tmp_path / "run", MOMENTS[moment]) == -signal.SIGKILL
    assert checkpoint.newest(tmp_path / "run" / "state").step in (3, STEPS)  # never less than what was complete before
    result: RunResult = train(config(tmp_path / "run", **settings("lora")))
    assert_same(result, expected)
    assert sorted(path.name for path in result.path.iterdir()) == [
        "adapter", "evaluation.zarr", "metrics.zarr", "run.json",
    ]  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_run_killed_after_its_record_is_finished(tmp_path: Path) -> None:
    assert life(tmp_path / "run", lambda: after(state, "write_record")) == -signal.SIGKILL
    assert state.read_record(tmp_path / "run")["steps"] == STEPS
    assert (tmp_path / "run" / "state").is_dir()  # left over, and of no harm
