"""Content-keyed arrays on disk: one small zarr group for each key, whole or absent."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from spectra.errors import UserError
from spectra.storage import folders

Arrays = dict[str, NDArray[Any]]
Shapes = dict[str, tuple[int, ...]]
FORMAT = 1
SCRATCH = ".new-"
"""What an entry that is being written is called."""


def cache_directory() -> Path:
    """`$SPECTRA_CACHE`, or the user's own cache folder of this system."""
    chosen = os.environ.get("SPECTRA_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", "~/AppData/Local")).expanduser() / "spectra"
    if sys.platform == "darwin":
        return Path("~/Library/Caches/spectra").expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "spectra"


def entry(root: Path, kind: str, key: str) -> Path:
    """Where the arrays of `key` lie; two letters of fan-out keep folders short."""
    return root / kind / key[:2] / f"{key}.zarr"


def read(path: Path) -> Arrays | None:
    """The arrays of an entry, or None where it is absent or unreadable (it is then made again)."""
    attributes = about(path)
    try:
        if attributes is None or not _is_whole(path, attributes):
            return None
        group = zarr.open_group(path, mode="r")
        arrays = {name: np.asarray(array[...]) for name, array in group.arrays()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError):
        return None
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    return arrays if attributes.get("shapes", shapes) == shapes else None


def look(path: Path) -> Shapes | None:
    """Shapes of the arrays of an entry, or None where it is absent or damaged, without reading the arrays.

    Files of another length than was written are damage; other bytes of the same length are found by `read`, as the
    arrays carry checksums. An entry that does not tell the lengths is read.
    """
    attributes = about(path)
    if attributes is None or not _is_whole(path, attributes):
        return None
    if "shapes" not in attributes:
        found = read(path)
        return None if found is None else {name: array.shape for name, array in found.items()}
    return {name: tuple(shape) for name, shape in attributes["shapes"].items()}


def touch(path: Path) -> None:
    """Note that an entry is in use, so that pruning by age leaves it; a cache that is only read stays as it is."""
    with suppress(OSError):
        os.utime(path)


def _is_whole(path: Path, attributes: Mapping[str, Any] | None) -> bool:
    """True if the files of an entry have the length that was written (entries of before do not tell)."""
    if attributes is None or attributes.get("format") != FORMAT:
        return False
    return "bytes" not in attributes or _size(path, apart=path / "zarr.json") == attributes["bytes"]


def about(path: Path) -> dict[str, Any] | None:
    """The attributes of an entry, or None where they cannot be read."""
    try:
        found = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
        return dict(found["attributes"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _size(folder: Path, apart: Path | None = None) -> int:
    """Bytes of the files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and file != apart)


def write(path: Path, arrays: Mapping[str, NDArray[Any]], told: Mapping[str, Any] | None = None) -> None:
    """Write an entry under a hidden name and rename it, so that it is never seen half-written.

    `told` are attributes for people and for `datasets_cache.upkeep`: what was encoded, and by which model.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=path.parent))
    except OSError as error:
        raise UserError(
            f"cannot write to the cache {path.parent}: {error.strerror}; set SPECTRA_CACHE to a writable folder"
        ) from None
    try:
        with folders.settled():
            _fill(scratch / path.name, arrays, told or {})
        _publish(scratch / path.name, path)
    except OSError as error:
        raise UserError(f"cannot write to the cache {path.parent}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _fill(made: Path, arrays: Mapping[str, NDArray[Any]], told: Mapping[str, Any]) -> None:
    group = zarr.open_group(made, mode="w")
    for name, array in arrays.items():
        # Chunks of zeros too: a file that is missing is damage and never stands for zeros.
        group.create_array(
            name,
            data=array,
            chunks=array.shape,
            compressors=ZstdCodec(checksum=True),
            config={"write_empty_chunks": True},
        )
    length = _size(made, apart=made / "zarr.json")
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    group.attrs.update({"told": dict(told), "shapes": shapes, "bytes": length, "format": FORMAT})


def _publish(made: Path, path: Path) -> None:
    """Move a finished entry into place; another process that was faster wrote the same arrays."""
    if path.exists() and read(path) is None:
        shutil.rmtree(path, ignore_errors=True)
    try:
        made.rename(path)
    except OSError:
        if read(path) is None:
            raise
