"""An evaluation that is interrupted anywhere keeps its whole adapters, and goes on to what it would have been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import spectra
from adapt.evaluation import drawing, evaluating, store
from adapt.evaluation.store import open_evaluation
from spectra.errors import UserError
from tests.adapt.evaluation.kinds import evaluated, merged, place, strong_lora
from tests.adapt.small import model

ASKED: dict[str, Any] = {"prompts": ["a"], "seeds": [0, 1], "batch": 1}


@cache
def undisturbed() -> tuple[Path, xr.Dataset]:
    out = place() / "undisturbed.zarr"
    return out, evaluated(out, [strong_lora(), merged()], **ASKED)


class Killed(BaseException):
    """What no code catches."""


def nth(what: Callable[..., Any], call: int, before: bool = True) -> Callable[..., Any]:
    """A function that is killed in its n-th call, before or after it has done its work."""
    calls = [0]

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == call and before:
            raise Killed
        result = what(*args, **kwargs)
        if calls[0] == call:
            raise Killed
        return result

    return counted


POINTS: dict[str, tuple[Any, str, int, bool, int]] = {
    "at the second picture of the base": (drawing, "generate", 3, True, 0),
    "at the first picture of the first adapter": (drawing, "generate", 4, True, 1),
    "between two pictures of it": (drawing, "generate", 5, True, 1),
    "after its pictures, which the cube has": (evaluating, "look", 2, True, 1),
    "after all that is measured": (evaluating, "look", 2, False, 1),
    "before its labels": (store.Row, "finish", 2, True, 1),
    "after it was whole": (store.Row, "finish", 2, False, 2),
    "before its metadata": (store, "_consolidate", 3, True, 1),
    "before the metadata of the base": (store, "_consolidate", 2, True, 0),
}
"""What is killed -> (owner, name, call, before it works?, whole adapters)."""


QUICK = ("after its pictures, which the cube has", "before its metadata")


@pytest.mark.parametrize(
    "point", [one if one in QUICK else pytest.param(one, marks=pytest.mark.slow) for one in POINTS]
)
def test_wherever_it_is_killed_whole_adapters_stay_and_the_rest_is_made(
    point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name, call, before, whole = POINTS[point]
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, nth(getattr(owner, name), call, before))
        with pytest.raises(Killed):
            evaluated(tmp_path / "a.zarr", [strong_lora(), merged()], **ASKED)
    check_kept_and_gone_on_with(tmp_path / "a.zarr", whole)


def check_kept_and_gone_on_with(out: Path, whole: int) -> None:
    other, expected = undisturbed()
    kept = open_evaluation(out).load()
    xr.testing.assert_identical(kept, expected.isel(adapter=slice(whole)))
    xr.testing.assert_identical(xr.open_zarr(out).load(), kept)
    done = evaluated(out, [strong_lora(), merged()], **ASKED)
    xr.testing.assert_identical(done, expected)
    check_same_cube(out, other)


def check_same_cube(out: Path, other: Path) -> None:
    mine, expected = (spectra.open_cube(one / "probe") for one in (out, other))
    for variable in ("energy", "spectrum", "coherence", "adapter", "prompt", "seed", "draw", "status"):
        np.testing.assert_array_equal(mine[variable], expected[variable])


@pytest.mark.slow
@pytest.mark.parametrize("array", ["image", "kind", "status"])
def test_killed_while_arrays_grow(array: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays of different lengths are never seen by readers, and are made equal by the next attempt."""
    evaluated(tmp_path / "a.zarr", [], **ASKED)
    resize = zarr.Array.resize

    def killed(self: Any, shape: Any) -> None:
        if self.path == array:
            raise Killed
        resize(self, shape)

    with monkeypatch.context() as patched:
        patched.setattr(zarr.Array, "resize", killed)
        with pytest.raises(Killed):
            evaluated(tmp_path / "a.zarr", [strong_lora(), merged()], **ASKED)
    lengths = {zarr.open_array(tmp_path / "a.zarr" / name, mode="r").shape[0] for name in ("image", "energy", "status")}
    assert lengths == {1, 2}
    check_kept_and_gone_on_with(tmp_path / "a.zarr", 1)


@pytest.mark.slow
@pytest.mark.parametrize("arrays", [1, 9])
def test_killed_while_the_cube_gives_rows_back(arrays: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorder reserves rows, and cuts off what is left when an adapter has been drawn, array by array."""
    evaluated(tmp_path / "a.zarr", [], **ASKED)
    shrunk: list[str] = []
    resize = zarr.Array.resize

    def killed(self: Any, shape: Any) -> None:
        if shape[0] < self.shape[0] and self.path not in shrunk:
            shrunk.append(self.path)
        if len(shrunk) > arrays:
            raise Killed
        resize(self, shape)

    with monkeypatch.context() as patched:
        patched.setattr(zarr.Array, "resize", killed)
        with pytest.raises(Killed):
            evaluated(tmp_path / "a.zarr", [strong_lora(), merged()], **ASKED)
    check_kept_and_gone_on_with(tmp_path / "a.zarr", 1)


def test_killed_while_the_store_is_made_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(store, "_write_fixed", nth(store._write_fixed, 3))
        with pytest.raises(Killed):
            evaluated(tmp_path / "a.zarr", [], **ASKED)
    assert not (tmp_path / "a.zarr").exists()
    assert evaluated(tmp_path / "a.zarr", [], **ASKED).sizes["adapter"] == 1


def test_two_processes_do_not_add_to_one_store(tmp_path: Path) -> None:
    evaluated(tmp_path / "a.zarr", [], **ASKED)
    with store.held(tmp_path / "a.zarr"), pytest.raises(UserError, match="another process is adding to"):
        evaluated(tmp_path / "a.zarr", [strong_lora()], **ASKED)


PROGRAM = """
import sys
from adapt.evaluation.evaluating import evaluate
evaluate(sys.argv[3:], model=sys.argv[1], out=sys.argv[2], prompts=["a"], seeds=[0, 1], batch=1, steps=2,
         networks=["none"], device="cpu", progress=lambda *told: print(*told, flush=True))
"""


@pytest.mark.slow
@pytest.mark.parametrize("line", [1, 3, 4])
def test_a_process_that_is_killed_is_gone_on_with(line: int, tmp_path: Path) -> None:
    out, expected = undisturbed()
    adapters = [str(strong_lora()), str(merged())]
    words = [sys.executable, "-c", PROGRAM, str(model("sd")), str(tmp_path / "a.zarr"), *adapters]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for _ in range(line):
            process.stdout.readline()
        time.sleep(0.01 * line)
        process.send_signal(signal.SIGKILL)
    kept = open_evaluation(tmp_path / "a.zarr").load()
    xr.testing.assert_identical(kept, expected.isel(adapter=slice(kept.sizes["adapter"])))
    done = evaluated(tmp_path / "a.zarr", [strong_lora(), merged()], **ASKED)
    for name in expected.variables:
        np.testing.assert_array_equal(done[name], expected[name])
    check_same_cube(tmp_path / "a.zarr", out)
