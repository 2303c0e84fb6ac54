"""Nothing of a failed call is written after it has ended."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zarr
from zarr.storage import LocalStore, _local

from spectra.cube import create
from spectra.errors import UserError
from spectra.storage import folders
from tests.spectra.test_cube import HEADER

DELAY = 0.2


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Refuse files whose name ends so, while every other file takes its time."""
    write, put = LocalStore.set, _local._put

    def begin(ending: str) -> None:
        async def refused(self: Any, key: str, value: Any) -> None:
            if key.endswith(ending):
                raise OSError(errno.ENOSPC, "No space left on device")
            await write(self, key, value)

        def slow(*args: Any, **kwargs: Any) -> int:
            time.sleep(DELAY)
            return put(*args, **kwargs)

        monkeypatch.setattr(LocalStore, "set", refused)
        monkeypatch.setattr(_local, "_put", slow)

    yield begin
    monkeypatch.undo()
    time.sleep(2 * DELAY)  # whatever a failed test left running ends before the next one


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_cube_that_could_not_be_created_leaves_no_draft(tmp_path: Path, full: Callable[[str], None]) -> None:
    full("/zarr.json")  # of an array; that of the group above it is written at the same time
    with pytest.raises(UserError, match="No space left on device"):
        create(tmp_path / "c.zarr", HEADER)
    assert files(tmp_path) == set()
    time.sleep(2 * DELAY)
    assert files(tmp_path) == set()


def test_a_lock_is_held_until_the_files_of_a_failed_write_are_there(
    tmp_path: Path, full: Callable[[str], None]
) -> None:
    array = zarr.create_array(tmp_path / "a", shape=(4,), chunks=(1,), dtype="i4")
    full("c/2")
    with pytest.raises(OSError, match="No space left"), folders.lock(tmp_path):
        array[...] = [1, 2, 3, 4]
    then = files(tmp_path)
    assert {"a/c/0", "a/c/1", "a/c/3"} <= then
    time.sleep(2 * DELAY)
    assert files(tmp_path) == then


def test_a_file_that_never_ends_holds_nobody_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: Callable[[str], None]
) -> None:
    array = zarr.create_array(tmp_path / "a", shape=(2,), chunks=(1,), dtype="i4")
    full("c/1")
    hung = threading.Event()
    monkeypatch.setattr(_local, "_put", lambda *args, **kwargs: hung.wait(5))
    monkeypatch.setattr(folders, "PATIENCE", 0.05)
    with pytest.raises(OSError, match="No space left"), folders.lock(tmp_path):
        array[...] = [1, 2]
    hung.set()
