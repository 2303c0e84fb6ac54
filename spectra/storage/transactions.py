"""Cubes in icechunk repositories, as icechunk://FOLDER: every write is a commit, and unfinished ones do not exist."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra.errors import UserError
from spectra.storage.folders import lock

if TYPE_CHECKING:
    import zarr

PREFIX = "icechunk://"
BRANCH = "main"


class ConflictError(UserError):
    """Another writer committed first."""


def meant(store: Any) -> bool:
    """True if a store is an icechunk repository."""
    return isinstance(store, str) and store.startswith(PREFIX)


def folder(store: Any) -> Path:
    """The folder of a repository. Raises UserError where it is none."""
    place = str(store).removeprefix(PREFIX)
    if "://" in place or not place:
        raise UserError(f"{store} has to name a folder, as in {PREFIX}runs/mini")
    return Path(place).expanduser()


def exists(store: Any) -> bool:
    """True if a repository with anything in it, or anything else, lies in the folder."""
    path = folder(store)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return False
    if not path.is_dir():
        raise UserError(f"{path} is a file, and an icechunk repository is a folder; choose another place")
    with _sentences(store):
        library = _icechunk(store)
        if not library.Repository.exists(_storage(library, path)):
            raise UserError(f"{path} is no icechunk repository; choose another place")
        return _group(_repository(library, path)) is not None


def open_group(store: Any) -> zarr.Group:
    """The group as it was committed last. Raises UserError if there is none."""
    found = None
    if exists(store):
        with _sentences(store):
            found = _group(_repository(_icechunk(store), folder(store)))
    if found is None:
        raise UserError(f"there is no cube at {store}; `spectra probe` records one")
    return found


@contextmanager
def writing(store: Any, message: str, new: bool = False) -> Iterator[zarr.Group]:
    """The group of a transaction, committed when the block ends well; `new` makes one, and the repository if need be.

    A lock orders writers that use it, because icechunk's own guard is none for folders. Raises ConflictError if another
    writer committed meanwhile; then nothing was written.
    """
    import zarr

    library, path = _icechunk(store), folder(store)
    with _sentences(store), ExitStack() as stack:
        if new:
            path.mkdir(parents=True, exist_ok=True)
        stack.enter_context(lock(path))
        session = _repository(library, path, new).writable_session(BRANCH)
        yield (zarr.create_group if new else zarr.open_group)(session.store)
        try:
            if session.has_uncommitted_changes:
                session.commit(f"spectra: {message}")
        except library.ConflictError as error:
            raise ConflictError(
                f"another writer changed {store} at the same time; nothing was added: repeat the command"
            ) from error


def _repository(library: Any, path: Path, new: bool = False) -> Any:
    storage = _storage(library, path)
    return (library.Repository.open_or_create if new else library.Repository.open)(storage)


def _storage(library: Any, path: Path) -> Any:
    return library.local_filesystem_storage(str(path))


def _group(repository: Any) -> zarr.Group | None:
    import zarr

    try:
        return zarr.open_group(repository.readonly_session(BRANCH).store, mode="r")
    except FileNotFoundError:
        return None


def _icechunk(store: str) -> Any:
    try:
        import icechunk
    except ImportError as error:
        raise UserError(f"{store} needs icechunk; install it with: pip install icechunk") from error
    if "ICECHUNK_LOG" not in os.environ:
        icechunk.set_logs_filter("error")  # it warns of writers at the same time, whom the lock orders, on stdout
    return icechunk


@contextmanager
def _sentences(store: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # icechunk raises its own kinds, and zarr and the disk theirs
        text = " ".join(str(error).split())[:200]
        raise UserError(f"cannot use {store}: {text or type(error).__name__}") from error
