"""Folders on a disk: held by one writer at a time, and appearing whole or not at all."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spectra.errors import UserError

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has no such locks: one writer at a time is the user's promise there
    fcntl = None  # type: ignore[assignment]

SUFFIX = ".partial"
PATIENCE = 10.0  # seconds to wait for files that are still being written when a call has failed


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Wait for, and hold, an advisory lock on a folder. It ends with the process, however that ends."""
    if fcntl is None:
        with settled():
            yield
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with settled():
            yield
    finally:
        os.close(handle)


@contextmanager
def settled() -> Iterator[None]:
    """A block that zarr writes in; where it fails, it ends only when no file of it is being written any more.

    zarr writes several files at once. When one is refused the call ends, while the others go on: they would come
    between the runs of the next writer, or into a folder that is being removed.
    """
    try:
        yield
    except BaseException:
        from zarr.core.sync import sync

        sync(_rest())
        raise


async def _rest() -> None:
    """Wait for the other tasks of this loop, but not for ever."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=PATIENCE)


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A place for a folder, in a hidden one next to `path`, to be published from there; then the hidden one goes.

    Drafts of `path` that killed processes left are removed. Raises UserError if the disk refuses.
    """
    try:
        sweep(path)
        folder, handle = _locked_folder(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose another place") from error
    try:
        with settled():
            yield folder / "cube"
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose another place") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def publish(draft: Path, path: Path) -> None:
    """Give a draft its place. Raises UserError if somebody else was faster."""
    try:
        draft.rename(path)  # onto an empty folder at most
    except OSError as error:
        if path.is_dir() and any(path.iterdir()):
            raise UserError(f"{path} exists already; choose another place or resume it") from error
        raise


def sweep(path: Path) -> list[Path]:
    """Remove drafts of `path` whose owners are dead -> what was removed. The lock on a draft tells: it ends with them.

    Without such locks, as on Windows, nothing is removed.
    """
    removed: list[Path] = []
    for folder in _drafts(path) if fcntl is not None else ():
        with suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
                removed.append(folder)
            finally:
                os.close(handle)
    return removed


def sweep_pieces(path: Path) -> None:
    """Remove files in the folders of a store that killed writers left half written; its lock has to be held."""
    for folder in (path, *(entry for entry in path.iterdir() if entry.is_dir())):
        for piece in folder.glob(f"*{SUFFIX}"):
            piece.unlink(missing_ok=True)


def _drafts(path: Path) -> list[Path]:
    prefix = f".{path.name}."
    names = (entry for entry in path.parent.iterdir() if entry.is_dir())
    return [one for one in names if one.name.startswith(prefix) and one.name.endswith(SUFFIX)]


def _locked_folder(path: Path) -> tuple[Path, int]:
    """A new folder with its lock held; another process may sweep it away before it is locked, so then once more."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=SUFFIX, dir=path.parent))
        with suppress(FileNotFoundError):
            handle = os.open(folder, os.O_RDONLY)
            if fcntl is not None:
                fcntl.flock(handle, fcntl.LOCK_EX)
            if folder.is_dir():
                return folder, handle
            os.close(handle)
