"""Where cubes live: a folder, a URL that fsspec reads, icechunk://FOLDER, any zarr store. Opening, locks, creation."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spectra.errors import UserError
from spectra.storage import folders, remote, transactions

if TYPE_CHECKING:
    import zarr

# A folder, a URL that fsspec reads, icechunk://FOLDER, any zarr store object, or a `Region` of one of these.
StoreLike = str | os.PathLike[str] | Any
FILE = "file://"
UNFINISHED = "spectra-cube, unfinished"  # the format of a cube elsewhere than on a disk, until it is whole


@dataclass
class Region:
    """A store of which one writer among several fills its own rows: `rows`, in that order, of `total`.

    `block` is the number of rows per chunk of labels in a new cube, such that no chunk has two writers. The writer that
    `leads` creates the cube; `barrier` returns when every writer has called it.
    """

    store: StoreLike
    rows: NDArray[np.int64]
    total: int
    block: int
    leads: bool
    barrier: Callable[[], None]
    _met: bool = field(default=False, init=False)
    _taken: int = field(default=0, init=False)

    def meet(self) -> None:
        """Wait, the first time, until all writers are here: then the cube exists."""
        if not self._met:
            self._met = True
            self.barrier()

    def take(self, count: int) -> NDArray[np.int64]:
        """The next rows of this writer; fewer than `count` where its share is used up."""
        self._taken += count
        return self.rows[self._taken - count : self._taken]


def name(store: StoreLike) -> str:
    """What a store is called in sentences."""
    return name(store.store) if isinstance(store, Region) else str(store)


def local(store: StoreLike) -> Path | None:
    """The folder of a store on this machine's disk; None for every other kind of store."""
    if isinstance(store, Region):
        return local(store.store)
    if isinstance(store, os.PathLike):
        return Path(store)
    if isinstance(store, str) and "://" not in store.removeprefix(FILE):
        return Path(store.removeprefix(FILE)).expanduser()
    return None


def exists(store: StoreLike) -> bool:
    """True if there is anything at the place of `store`; the beginnings of an unfinished cube do not count."""
    if isinstance(store, Region):
        return exists(store.store)
    path = local(store)
    if path is not None:
        return path.exists() and not (path.is_dir() and not any(path.iterdir()))
    if transactions.meant(store):
        return transactions.exists(store)
    with remote.sentences(store):
        found = remote.group(store, "r")
        return not remote.is_empty(store) if found is None else found.attrs.get("format") != UNFINISHED


def check_writable(store: StoreLike) -> None:
    """Prove that a cube can be written at `store`, creating its parent folders. Raises UserError if it cannot."""
    if isinstance(store, Region):
        return check_writable(store.store)
    path = transactions.folder(store) if transactions.meant(store) else local(store)
    if path is None:
        return remote.check_writable(store)
    if path.is_symlink() and not path.exists():
        raise UserError(f"cannot write {path}: it is a link to nothing; choose another place")
    if not path.name and not exists(store):
        raise UserError(f"cannot write a cube to {path}: give it a folder of its own, such as runs/mini.zarr")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path if path.is_dir() else path.parent):
            pass
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; choose another place") from error
    except ValueError as error:
        raise UserError(f"cannot write {str(path)!r}: {error}; choose another place") from error
    if path.exists() and not path.is_dir():
        raise UserError(f"cannot write {path}: it is a file, and a cube is a folder; choose another place")
    return None


@contextmanager
def writing(store: StoreLike) -> Iterator[zarr.Group | None]:
    """Hold the store for one writer, and turn what the place says into a sentence.

    Gives the group of a transaction that ends with the block, where the store has such; else None.
    """
    if isinstance(store, Region):
        store = store.store
    if transactions.meant(store):
        with transactions.writing(store, "add runs") as group:
            yield group
        return
    path = local(store)
    if path is None:
        with remote.sentences(store):
            yield None
        return
    try:
        with folders.lock(path):
            yield None
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write {store}: {reason}; the runs that were complete before are kept") from error


@contextmanager
def new_group(store: StoreLike, attributes: Mapping[str, Any]) -> Iterator[zarr.Group]:
    """A new group with attributes that appears at `store` only when the block ends well.

    A folder is built beside its place, then renamed; a transaction is committed; elsewhere, the attributes that make
    it a cube replace a mark of the unfinished one at the end.
    """
    import zarr

    path = local(store)
    if path is not None:
        with folders.beside(path) as draft:
            yield zarr.create_group(draft, overwrite=False, attributes=dict(attributes))
            folders.publish(draft, path)
    elif transactions.meant(store):
        with transactions.writing(store, "create", new=True) as group:
            group.attrs.update(attributes)
            yield group
    else:
        with remote.sentences(store):
            begun = remote.create_group(store, {"format": UNFINISHED})
            yield begun
            begun.attrs.put(dict(attributes))


def separator(group: zarr.Group) -> str:
    """What separates the indices in the name of a chunk; icechunk knows one way."""
    return "/" if "icechunk" in type(group.store).__module__ else "."


def open_group(store: StoreLike, mode: str = "r") -> zarr.Group:
    """The group at `store`. Raises UserError if there is none, or none that can be read."""
    if isinstance(store, Region):
        return open_group(store.store, mode)
    path = local(store)
    if path is None:
        return _open_elsewhere(store, mode)
    if not path.is_dir():
        what = ": it is a file, and a cube is a folder" if path.exists() else "; `spectra probe` records one"
        raise UserError(f"there is no cube at {path}{what}")
    import zarr
    from zarr.errors import ContainsArrayError

    try:
        return zarr.open_group(path, mode=mode)  # type: ignore[arg-type]
    except FileNotFoundError as error:
        raise UserError(f"{path} is not a cube: it holds no zarr group; give a folder that spectra wrote") from error
    except ContainsArrayError as error:
        raise UserError(f"{path} is an array, not a cube; give the folder that holds it") from error
    except PermissionError as error:
        raise UserError(denied(str(path))) from error
    except Exception as error:  # zarr meets broken metadata with whatever its parsers raise
        raise UserError(f"{path} is not a readable cube: its metadata is damaged ({short(error)})") from error


def _open_elsewhere(store: StoreLike, mode: str) -> zarr.Group:
    if transactions.meant(store):
        return transactions.open_group(store)
    with remote.sentences(store):
        group = remote.group(store, mode)
    if group is None:
        raise UserError(f"there is no cube at {store}: it holds no zarr group")
    return group


def denied(name: str) -> str:
    """What to say of a store that somebody else may read."""
    return f"{name} may not be read: permission is denied; ask its owner"


def short(error: BaseException) -> str:
    """An exception as part of a sentence."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
