"""Content-keyed arrays on disk: one small zarr group for each key, whole or absent."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

from spectra.errors import UserError

Arrays = dict[str, NDArray[np.float32]]
FORMAT = 1


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
    if not path.exists():
        return None
    try:
        group = zarr.open_group(path, mode="r")
        if group.attrs.get("format") != FORMAT:
            return None
        return {name: np.asarray(array[...], np.float32) for name, array in group.arrays()}
    except (OSError, ValueError, KeyError, RuntimeError):
        return None


def write(path: Path, arrays: Mapping[str, NDArray[np.float32]]) -> None:
    """Write an entry under a hidden name and rename it, so that it is never seen half-written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".new-", dir=path.parent))
    except OSError as error:
        raise UserError(
            f"cannot write to the cache {path.parent}: {error.strerror}; set SPECTRA_CACHE to a writable folder"
        ) from None
    try:
        group = zarr.open_group(scratch / path.name, mode="w", attributes={"format": FORMAT})
        for name, array in arrays.items():
            group.create_array(name, data=np.ascontiguousarray(array, np.float32), chunks=array.shape)
        _publish(scratch / path.name, path)
    except OSError as error:
        raise UserError(f"cannot write to the cache {path.parent}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _publish(made: Path, path: Path) -> None:
    """Move a finished entry into place; another process that was faster wrote the same arrays."""
    if path.exists() and read(path) is None:
        shutil.rmtree(path, ignore_errors=True)
    try:
        made.rename(path)
    except OSError:
        if read(path) is None:
            raise
