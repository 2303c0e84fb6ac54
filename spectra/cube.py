"""Cubes: create, append, resume, open, validate, compact. What is in one is said in `spectra.schema`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spectra.errors import UserError
from spectra.schema import DATA, SCHEMA, Header, fixed_values, variables
from spectra.storage import stores
from spectra.storage.creation import Layout, Resume, check_resume, create, create_array, differences, refuse, resume
from spectra.storage.stored import Stored, open_stored, read_header
from spectra.storage.stores import StoreLike
from spectra.storage.writer import Writer, append

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "Layout", "Resume", "Writer", "append", "check_resume", "compact", "create", "differences", "open_cube",
    "read_header", "refuse", "resume", "validate",
]  # fmt: skip

CHECKED_BYTES = 256 << 20  # cubes up to this size are read at once when opened, and every chunk is checked
LAZY_BYTES = 16 << 20  # of one dask chunk of a larger cube
CHUNK_BYTES = 4 << 20  # of one chunk of a compacted cube
CHECKED = ("energy", "spectrum")
FILL = {variable.name: variable.fill for variable in SCHEMA}


def open_cube(store: StoreLike, lazy: bool | None = None) -> xr.Dataset:
    """The complete runs of a cube, with labels; see `spectra.schema` for its variables.

    A cube of up to 256 MB is read and checked at once; the data of a larger one are dask arrays, read when their values
    are asked for. `lazy` decides that otherwise. Raises UserError if there is no cube, or one that is damaged, foreign,
    or of another format.
    """
    import spectra.accessor  # noqa: F401 - registers `cube.spectra`

    stored = open_stored(store)
    header = stored.header()
    try:
        cube = _labelled(stored, lazy)
    except UserError:
        raise
    except Exception as error:  # damaged chunks surface as whatever their codecs raise
        raise _unreadable(stored.name, "its values", error) from error
    _check_fixed(stored.name, cube, header)
    _check_values(stored.name, cube)
    return cube


def validate(store: StoreLike) -> int:
    """Read every value of a cube, whatever its size -> the number of complete runs. Raises UserError if damaged."""
    cube, name = open_cube(store), stores.name(store)
    step = max(cube.chunks.get("run", (0,)), default=0) or cube.sizes["run"]
    for start in range(0, cube.sizes["run"], max(step, 1)):
        try:
            rows = cube.isel(run=slice(start, start + step)).load()
        except Exception as error:
            raise _unreadable(name, f"run {start} or one of the {step - 1} after it", error) from error
        _check_values(name, rows, start)
    return cube.sizes["run"]


def count_runs(store: StoreLike) -> int:
    """The number of complete runs of a cube. Raises UserError if there is no cube that can be read."""
    return len(_complete(open_stored(store)))


def compact(store: StoreLike, out: StoreLike) -> None:
    """Write the complete runs of a cube to `out`, with many runs per chunk: for analysis of many thousand runs.

    Values, labels and attributes stay as they are, and `out` appears whole or not at all. Memory is bounded by a few
    chunks. Raises UserError if `store` is no whole cube, or if there is something at `out` already.
    """
    stored = open_stored(store)
    header, rows = stored.header(), _complete(stored)
    if stores.exists(out):
        raise UserError(f"{stores.name(out)} exists already; choose another place")
    stores.check_writable(out)
    layout = Layout(len(rows), data=runs_per_chunk(stored), labels=1 << 16, status=1 << 20)
    fixed = fixed_values(header)
    with stores.new_group(out, stored.group.attrs) as group:
        for variable in variables(stored.parts):
            create_array(group, variable, header, fixed.get(variable.name), layout)
        for name, array in stored.growing().items():
            new: Any = group[name]
            for start, values in _pieces(array, rows, new.chunks[0], stored.name):
                _refuse_lost(stored.name, name, _lost(values, name), start)
                new[start : start + len(values)] = values


def runs_per_chunk(stored: Stored) -> int:
    """How many runs make a chunk of energies that is neither small nor large."""
    return max(1, CHUNK_BYTES // max(1, _row_bytes(stored.arrays["energy"])))


def _pieces(array: Any, rows: NDArray[Any], step: int, name: str) -> Iterator[tuple[int, NDArray[Any]]]:
    """Rows of an array, `step` at a time, and which of them is the first."""
    for start in range(0, len(rows), step):
        try:
            values = _taken(array, rows[start : start + step])
        except Exception as error:
            raise _unreadable(name, f"run {start} or one of the {step - 1} after it", error) from error
        yield start, values


def _labelled(stored: Stored, lazy: bool | None) -> xr.Dataset:
    """The complete runs, as variables and coordinates."""
    import xarray as xr

    rows = _complete(stored)
    if lazy is None:
        lazy = _row_bytes(*stored.growing().values()) * len(rows) > CHECKED_BYTES
    step = _lazy_step(stored)
    parts: dict[str, xr.Variable] = {}
    for variable in variables(stored.parts):
        array, dims = stored.arrays[variable.name], variable.dimensions(stored.parts)
        if dims[0] != "run":
            values = _whole(array)
        else:
            values = _lazily(array, rows, step) if lazy and len(dims) > 1 else _taken(array, rows)
        parts[variable.name] = xr.Variable(dims, values, dict(array.attrs))
    attrs = {name: value for name, value in stored.group.attrs.items() if name != "coordinates"}
    data_vars = {name: parts.pop(name) for name in DATA if name in parts}
    return xr.Dataset(data_vars, parts, attrs)


def _complete(stored: Stored) -> NDArray[np.int64]:
    """Rows of complete runs, ascending. Raises UserError if `status` is damaged, or an array too short to hold them."""
    try:
        complete = np.flatnonzero(stored.read("status") == 1)
    except Exception as error:  # damaged chunks surface as whatever their codecs raise
        raise _unreadable(stored.name, "status", error) from error
    short = [name for name, array in stored.growing().items() if len(complete) and array.shape[0] <= complete[-1]]
    if short:
        length = stored.arrays[short[0]].shape[0]
        raise UserError(
            f"{stored.name} is a damaged cube: {short[0]} has {length} runs, and run {complete[-1]} is complete"
        )
    return complete


def _whole(array: Any) -> NDArray[Any]:
    values: NDArray[Any] = np.asarray(array[...])
    return _texts(values) if values.dtype.kind == "T" else values


def _texts(values: NDArray[Any]) -> NDArray[Any]:
    """As objects; equal texts are one, because labels repeat."""
    known: dict[str, str] = {}
    texts = np.empty(values.shape, object)
    texts[...] = [known.setdefault(text, text) for text in values.tolist()]
    return texts


def _taken(array: Any, rows: NDArray[Any]) -> NDArray[Any]:
    """Ascending rows of an array; those between them are read as well."""
    if not len(rows):
        return _whole(array[:0])
    taken: NDArray[Any] = _whole(array[int(rows[0]) : int(rows[-1]) + 1])[rows - rows[0]]
    return taken


def _lazy_step(stored: Stored) -> int:
    """Runs per dask chunk, the same for all variables: whole chunks, neither small nor large."""
    data = [array for array in stored.growing().values() if array.ndim > 1]
    chunk = max(array.chunks[0] for array in data)
    fitting: int = LAZY_BYTES // max(1, max(map(_row_bytes, data)))
    return max(chunk, fitting // chunk * chunk)


def _lazily(array: Any, rows: NDArray[Any], step: int) -> Any:
    """Ascending rows of an array as a dask array."""
    import dask.array as da

    values = da.from_array(array, chunks=(step, *array.shape[1:]), name=False)
    gaps = len(rows) and len(rows) != rows[-1] + 1
    return values[rows] if gaps else values[: len(rows)]


def _row_bytes(*arrays: Any) -> int:
    """Bytes of one run of arrays of numbers."""
    return sum(array.dtype.itemsize * math.prod(array.shape[1:]) for array in arrays if array.ndim > 1)


def _check_fixed(name: str, cube: xr.Dataset, header: Header) -> None:
    """Coordinates that do not grow are what the description says, also where a chunk of theirs is gone."""
    for coordinate, told in fixed_values(header).items():
        values = cube[coordinate].values if coordinate in cube.variables else told
        if not np.array_equal(values, told, equal_nan=values.dtype.kind == "f"):
            raise UserError(f"{name} is a damaged cube: {coordinate} is not what its description says; probe again")


def _check_values(name: str, cube: xr.Dataset, first: int = 0) -> None:
    """A chunk that is gone reads as what no run has. Latents of complete runs are never NaN either."""
    for variable in SCHEMA:
        if variable.dims[0] == "run" and variable.name in cube.variables and not cube[variable.name].chunks:
            _refuse_lost(name, variable.name, _lost(cube[variable.name].values, variable.name), first)
    for data in CHECKED:
        if not cube[data].chunks:
            values = cube[data].sel(signal="latent")
            lost = values.isnull().any([dim for dim in values.dims if dim != "run"])
            _refuse_lost(name, data, lost.values, first)


def _lost(values: NDArray[Any], name: str) -> NDArray[np.bool_]:
    """Runs whose values of a variable are what nothing holds."""
    lost: NDArray[np.bool_] = (values == FILL[name]).any(axis=tuple(range(1, values.ndim)))
    return lost


def _refuse_lost(name: str, what: str, lost: NDArray[np.bool_], first: int) -> None:
    """Raise UserError if there is a run whose values are lost."""
    if lost.any():
        raise UserError(f"{name} is a damaged cube: {what} of run {first + int(np.argmax(lost))} is lost; probe again")


def _unreadable(name: str, what: str, error: Exception) -> UserError:
    if isinstance(error, PermissionError):
        return UserError(stores.denied(name))
    return UserError(f"{name} is a damaged cube: {what} cannot be read ({stores.short(error)})")
