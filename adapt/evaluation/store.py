"""The store of an evaluation: zarr v3, one row and one chunk along `adapter` for each, data first and status last.

An adapter is in the store when the store's consolidated metadata, which are replaced in one piece, count its row.  A
row that a killed process left behind is not counted, and the next adapter takes it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adapt.evaluation.protocol import Protocol, read
from spectra.errors import UserError
from spectra.storage import folders, stores

if TYPE_CHECKING:
    import xarray as xr
    import zarr

FORMAT = 1
PROBE = "probe"
CHUNK_BYTES = 4 << 20
"""Of the pictures in one chunk, uncompressed."""
LABELS = ("adapter", "kind", "path", "digest")
COMMAND = "command"
"""How the call was made that added an adapter; empty for a call from Python."""
COORDINATES = (
    "kind", "path", "digest", COMMAND, "prompt", "seed", "part", "scale_low", "scale_high", "frequency", "noise_level",
    "log_snr", "reference_caption", "reference_part",
)  # fmt: skip
"""Coordinates beside those that are named as their dimension."""


@dataclass(frozen=True)
class Known:
    """An adapter that is in a store."""

    label: str
    kind: str
    path: str
    digest: str


@dataclass(frozen=True)
class Growing:
    """A variable with one row for each adapter."""

    dims: tuple[str, ...]
    """Without `adapter`."""
    shape: tuple[int, ...]
    dtype: str = "float32"


def open_evaluation(path: str | Path) -> xr.Dataset:
    """The finished adapters of an evaluation, values read when they are asked for.

    See `adapt.evaluate` for the variables; the cube that was recorded beside them is `spectra.open_cube(PATH/probe)`.

    Raises:
        UserError: no evaluation there, or one of another format or that cannot be read.
    """
    import xarray as xr

    place = _place(path)
    read_protocol(place)
    try:
        found: xr.Dataset = xr.open_zarr(place, chunks=None)
        return found.isel(adapter=np.flatnonzero(found["status"].values == 1))
    except Exception as error:  # damaged arrays surface as whatever their codecs raise
        raise UserError(f"{path} is a damaged evaluation ({stores.short(error)}); make it again") from error


def exists(path: Path) -> bool:
    """True if there is anything at the place of a store."""
    return stores.exists(path)


def read_protocol(path: Path) -> Protocol:
    """What the adapters of a store have in common; UserError where there is no evaluation of this format."""
    group = _group(path, "r")
    if "protocol" not in group.attrs:
        raise UserError(f"{path} is a zarr store, but no evaluation")
    if group.attrs.get("format") != FORMAT:
        raise UserError(f"{path} is an evaluation of format {group.attrs.get('format')}; this version reads {FORMAT}")
    try:
        return read(str(group.attrs["protocol"]))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is a damaged evaluation: its protocol cannot be read ({error})") from None


def known_in(path: Path) -> list[Known]:
    """The adapters that are whole in a store, in their order. UserError as `read_protocol`."""
    read_protocol(path)
    group = _group(path, "r")
    columns = [_array(group, name)[: _whole(group)] for name in LABELS]
    return [Known(*map(str, row)) for row in zip(*columns, strict=True)]


def create(
    path: Path, protocol: Protocol, fixed: Mapping[str, tuple[tuple[str, ...], Any]], growing: Mapping[str, Growing],
    attrs: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write a store without adapters; it appears whole or not at all.

    `fixed` are variables that all adapters share, (dims, values); `Pieces` are written some at a time.
    """
    notes = {"format": FORMAT, "protocol": protocol.to_json(), **attrs}
    with stores.new_group(path, notes) as group:
        for name, (dims, values) in fixed.items():
            _write_fixed(group, name, dims, values)
        labels = {name: Growing((), (), "string") for name in (*LABELS, COMMAND)}
        every = labels | dict(growing) | {"status": Growing((), (), "uint8")}
        for name, one in every.items():
            _create(group, name, ("adapter", *one.dims), (0, *one.shape), one.dtype, row=True)
        named = set(group.array_keys())
        group.attrs["coordinates"] = " ".join(name for name in COORDINATES if name in named)
        _consolidate(group)


@dataclass(frozen=True)
class Pieces:
    """Values of a variable that are made when they are written."""

    length: int
    make: Callable[[int], NDArray[Any]]
    """(i) -> entry i; all have one shape and dtype."""


class Row:
    """The place of an adapter in a store: variables are written into it, and at the end it counts."""

    def __init__(self, path: Path) -> None:
        self.path, self.group = path, _group(path, "r+")
        self.index = _whole(self.group)
        if COMMAND not in self.group:  # a store of before it was kept
            _create(self.group, COMMAND, ("adapter",), (self.index,), "string", row=True)
        names = sorted(self.group.array_keys())
        self.arrays = {name: _array(self.group, name) for name in names}
        for array in self.arrays.values():
            if _dims(array)[:1] == ("adapter",) and array.shape[0] <= self.index:
                array.resize((self.index + 1, *array.shape[1:]))

    def put(self, name: str, values: Any, start: int = 0) -> None:
        """Write a variable of this adapter, or from `start` on along its next dimension as much as is given."""
        array = self.arrays[name]
        if array.ndim == 1:
            array[self.index] = values
        else:
            array[self.index, start : start + len(values)] = values

    def get(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """What was written of a variable, `start` .. `stop` along its next dimension."""
        return np.asarray(self.arrays[name][self.index, start:stop])

    def finish(self, known: Known, command: str = "") -> None:
        """Labels and the command that added it, then the status, then the metadata that readers go by."""
        self.put(COMMAND, command)
        for name, value in zip(LABELS, (known.label, known.kind, known.path, known.digest), strict=True):
            self.put(name, value)
        self.put("status", 1)
        _consolidate(self.group)


def repair(path: Path) -> None:
    """Remove what a killed process left half written, and count a row that was whole but for the metadata."""
    folders.sweep_pieces(path)
    group, counted = _group(path, "r+"), _counted(path)
    if counted != _whole(group):
        _consolidate(group)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Inside, no other process adds to the store; UserError if one does, and for what the disk says."""
    from adapt import state

    try:
        with state.held(path, "adding to"), folders.settled():
            yield
    except OSError as error:
        if words := state.unwritable(error, path):
            raise UserError(f"cannot write {words}; the adapters that were whole before are kept") from error
        raise


def _place(path: str | Path) -> Path:
    return Path(path).expanduser()


def _group(path: Path, mode: str) -> zarr.Group:
    """The group as it lies on the disk, not as its consolidated metadata say."""
    import zarr
    from zarr.errors import GroupNotFoundError

    if not path.is_dir():
        raise UserError(f"there is no evaluation at {path}; `adapt evaluate` makes one")
    try:
        return zarr.open_group(path, mode=mode, use_consolidated=False)  # type: ignore[arg-type]
    except (FileNotFoundError, GroupNotFoundError):
        raise UserError(f"{path} is no evaluation: it holds no zarr group") from None
    except Exception as error:  # zarr meets broken metadata with whatever its parsers raise
        raise UserError(f"{path} is a damaged evaluation ({stores.short(error)}); make it again") from error


def _array(group: zarr.Group, name: str) -> Any:
    return group[name]


def _dims(array: Any) -> tuple[str, ...]:
    return tuple(array.metadata.dimension_names or ())


def _whole(group: zarr.Group) -> int:
    """Rows that are whole, which are the first ones."""
    status = np.asarray(_array(group, "status")[:])
    return int(np.argmin(np.append(status == 1, False)))


def _counted(path: Path) -> int:
    """Rows that readers of the consolidated metadata see."""
    import zarr

    try:
        return int(_array(zarr.open_group(path, mode="r", use_consolidated=True), "status").shape[0])
    except ValueError:  # there are none
        return -1


def _consolidate(group: zarr.Group) -> None:
    """Replace the metadata that readers go by, in one piece."""
    import zarr

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata")  # an extension that xarray looks for
        zarr.consolidate_metadata(group.store)


def _create(group: zarr.Group, name: str, dims: Sequence[str], shape: tuple[int, ...], dtype: str, row: bool) -> Any:
    """An array: one adapter a chunk where it grows, pictures a few MiB a chunk, all else whole."""
    where = int(row)
    chunks = [1] * where + list(shape[where:])
    if dims[-1:] == ("rgb",):
        chunks[where] = max(1, CHUNK_BYTES // math.prod(shape[where + 1 :]))
    limited = tuple(max(1, min(chunk, size) if place >= where else chunk)
                    for place, (chunk, size) in enumerate(zip(chunks, shape, strict=True)))  # fmt: skip
    fill: Any = {"string": "", "float32": np.nan, "float64": np.nan}.get(dtype, 0)
    return group.create_array(
        name, shape=shape, chunks=limited, dtype=dtype, fill_value=fill, dimension_names=list(dims),
        chunk_key_encoding={"name": "default", "separator": "."},
    )  # fmt: skip


def _write_fixed(group: zarr.Group, name: str, dims: tuple[str, ...], values: Any) -> None:
    if isinstance(values, Pieces):
        first = values.make(0)
        array = _create(group, name, dims, (values.length, *first.shape), str(first.dtype), row=False)
        step = array.chunks[0]
        for start in range(0, values.length, step):
            rows = range(start, min(start + step, values.length))
            array[start : start + step] = np.stack([values.make(row) for row in rows])
        return
    found = np.asarray(values)
    texts = found.dtype.kind in "TUO"
    array = _create(group, name, dims, found.shape, "string" if texts else str(found.dtype), row=False)
    array[...] = found.astype(np.dtypes.StringDType()) if texts else found
