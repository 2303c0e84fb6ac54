"""Where cubes live: opening, writability, locks and whole-or-nothing creation."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra.errors import UserError

if TYPE_CHECKING:
    import zarr

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has no such locks; there, one writer at a time is the user's promise
    fcntl = None  # type: ignore[assignment]

# A folder, a URL that fsspec reads, or any zarr store object.
StoreLike = str | os.PathLike[str] | Any


def local(store: StoreLike) -> Path | None:
    """The folder of a store on this machine's disk; None for every other kind of store."""
    if isinstance(store, os.PathLike):
        return Path(store)
    return Path(store) if isinstance(store, str) and "://" not in store else None


def exists(store: StoreLike) -> bool:
    """True if there is anything at the place of `store`."""
    path = local(store)
    if path is not None:
        return path.exists() and not (path.is_dir() and not any(path.iterdir()))
    import zarr

    try:
        zarr.open_group(store, mode="r")
    except FileNotFoundError:
        return False
    return True


def check_writable(store: StoreLike) -> None:
    """Prove that a cube can be written at `store`, creating its parent folders. Raises UserError if it cannot."""
    path = local(store)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path if path.is_dir() else path.parent):
            pass
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose another place") from error
    if path.exists() and not path.is_dir():
        raise UserError(f"cannot write {path}: it is a file, and a cube is a folder; choose another place")


@contextmanager
def writing(store: StoreLike) -> Iterator[None]:
    """Hold the store for one writer, and turn what the disk says into a sentence."""
    try:
        with _lock(local(store)):
            yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write {store}: {reason}; the runs that were complete before are kept") from error


@contextmanager
def _lock(path: Path | None) -> Iterator[None]:
    """Wait for, and hold, an advisory lock on the store's folder. It ends with the process, however that ends."""
    if path is None or fcntl is None:
        yield
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def new_group(store: StoreLike) -> Iterator[zarr.Group]:
    """A new group that appears at `store` only when the block ends well: built beside it, then renamed."""
    import zarr

    path = local(store)
    if path is None:
        yield zarr.create_group(store, overwrite=False)
        return
    with _beside(path) as draft:
        yield zarr.create_group(draft, overwrite=False)
        draft.rename(path)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A hidden folder next to `path`, gone at the end unless it was renamed."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose another place") from error
    draft = folder / "cube"
    try:
        yield draft
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose another place") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def open_group(store: StoreLike, mode: str = "r") -> zarr.Group:
    """The group at `store`. Raises UserError if there is none, or none that can be read."""
    import zarr

    path = local(store)
    if path is not None and not path.is_dir():
        raise UserError(f"there is no cube at {path}" + (": it is a file" if path.exists() else ""))
    try:
        return zarr.open_group(path or store, mode=mode)  # type: ignore[arg-type]
    except FileNotFoundError as error:
        raise UserError(f"{store} is not a cube: it holds no zarr group") from error
    except Exception as error:  # zarr meets broken metadata with whatever its parsers raise
        raise UserError(f"{store} is not a readable cube: its metadata is damaged ({_short(error)})") from error


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
