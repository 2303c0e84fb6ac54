"""Cubes on disk: create, append, resume, open, validate. What is in one is said in `spectra.schema`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from spectra import stores
from spectra.bands import FilterBank
from spectra.errors import UserError
from spectra.schema import (
    FORMAT,
    VERSION,
    Header,
    Runs,
    Variable,
    attributes,
    fixed_values,
    rows,
    sizes,
    variables,
)
from spectra.stores import StoreLike

if TYPE_CHECKING:
    import xarray as xr
    import zarr

RUN_CHUNK = 4096  # coordinates of runs are small and read together: one big chunk
CHECKED_BYTES = 256 << 20  # cubes up to this size are read at once when opened, and every chunk is checked
LEVELS = ("timestep", "signal_level", "noise_level")
Resume = Literal["allow", "never", "must"]


def create(store: StoreLike, header: Header) -> None:
    """Write an empty cube; it appears whole or not at all. Raises UserError if there is something already."""
    if stores.exists(store):
        raise UserError(f"{store} exists already; choose another place or resume it")
    with stores.new_group(store) as group:
        values = fixed_values(header)
        for variable in variables(header.parts):
            _create_array(group, variable, header, values.get(variable.name))
        group.attrs.update(attributes(header))


def resume(store: StoreLike, header: Header) -> None:
    """Make sure that runs under `header` may be appended to `store`. Raises UserError with every difference if not."""
    stored = read_header(store)
    different = differences(stored.identity(), header.identity()) or _level_differences(stored, header)
    refuse(store, different)


def check_resume(store: StoreLike, resume: Resume) -> None:
    """Hold a store against what the caller wants: `must` needs a cube, `never` needs none. Raises UserError."""
    if resume == "never" and stores.exists(store):
        raise UserError(f"{store} exists already; choose another place or give --resume allow")
    if resume == "must" and not stores.exists(store):
        raise UserError(f"there is no cube at {store} to resume")


def refuse(store: StoreLike, different: list[str]) -> None:
    """Raise UserError if there are differences."""
    if different:
        raise UserError(
            f"cannot add to {store}, which was recorded otherwise: {'; '.join(different)}; choose another place"
        )


def append(store: StoreLike, runs: Runs) -> None:
    """Add complete runs: data first, status last. Raises UserError if the disk refuses; then nothing was added."""
    with stores.writing(store):
        group = stores.open_group(store, "r+")
        start = _first_free(group)
        stop = start + len(runs.prompt)
        names = rows(_parts(group))
        for name in (*names, "status"):
            _array(group, name).resize((stop, *_array(group, name).shape[1:]))
        for name in names:
            _array(group, name)[start:stop] = _row_values(getattr(runs, name))
        _array(group, "status")[start:stop] = np.ones(stop - start, np.uint8)


def read_header(store: StoreLike) -> Header:
    """What the runs of the cube at `store` have in common. Raises UserError if it is no cube that can be read."""
    group = open_checked(store)
    attrs: dict[str, Any] = dict(group.attrs)
    try:
        frames = _array(group, "frame").shape[0] if "frame" in group else None
        temporal = json.loads(attrs["temporal"])
        timestep, signal_level, noise_level = (tuple(_read(group, name).tolist()) for name in LEVELS)
        return Header(
            tuple(json.loads(attrs["signals"])),
            FilterBank.from_dict(json.loads(attrs["bank"])),
            tuple(json.loads(attrs["grid"])),
            _array(group, "channel").shape[0],
            frames,
            _array(group, "radius").shape[0],
            timestep,
            signal_level,
            noise_level,
            facts={name: attrs[name] for name in json.loads(attrs["facts"])},
            notes={name: attrs[name] for name in json.loads(attrs["notes"])},
            step=tuple(_read(group, "step").tolist()),
            temporal=FilterBank.from_dict(temporal) if temporal else None,
            blocks=tuple(_read(group, "block").tolist()) if "block" in group else (),
        )
    except Exception as error:  # damaged attributes and chunks surface as whatever their parsers raise
        raise UserError(f"{store} is a damaged cube: its description cannot be read ({error})") from error


def open_cube(store: StoreLike) -> xr.Dataset:
    """The complete runs of a cube, with labels; see `spectra.schema` for its variables.

    A cube of up to 256 MB is read and checked at once, a larger one when its values are asked for. Raises UserError if
    there is no cube, or one that is damaged, foreign, or of a newer format.
    """
    group = open_checked(store)
    try:
        cube = _labelled(store, group)
        cube = cube.isel(run=np.flatnonzero(cube["status"].values == 1))
        if cube.nbytes <= CHECKED_BYTES:
            cube = cube.load()
    except Exception as error:  # damaged chunks surface as whatever their codecs raise
        raise UserError(f"{store} is a damaged cube: its values cannot be read ({error})") from error
    texts = {name: (c.dims, c.values.astype(object), c.attrs) for name, c in cube.coords.items() if c.dtype.kind == "T"}
    cube = cube.assign_coords(texts)
    if cube.nbytes <= CHECKED_BYTES:
        _check_values(store, cube)
    return cube


def validate(store: StoreLike) -> int:
    """Read every value of a cube, whatever its size -> the number of complete runs. Raises UserError if damaged."""
    cube = open_cube(store)
    for run in range(cube.sizes["run"]):
        try:
            row = cube.isel(run=[run]).load()
        except Exception as error:
            raise UserError(f"{store} is a damaged cube: run {run} cannot be read ({error})") from error
        _check_values(store, row)
    return cube.sizes["run"]


def _check_values(store: StoreLike, cube: xr.Dataset) -> None:
    """A chunk that is gone reads as NaN; latents of complete runs are never NaN."""
    for name in ("energy", "spectrum"):
        values = cube[name].sel(signal="latent")
        lost = values.isnull().any([dim for dim in values.dims if dim != "run"]).values
        if lost.any():
            raise UserError(f"{store} is a damaged cube: {name} of run {int(np.argmax(lost))} is lost; probe again")


def _labelled(store: StoreLike, group: zarr.Group) -> xr.Dataset:
    """All arrays, lazily. A writer that was killed between two resizes leaves several lengths: the shortest counts."""
    import xarray as xr

    lengths = {name: _array(group, name).shape[0] for name in (*rows(_parts(group)), "status")}
    parts: list[xr.Dataset] = []
    for length in sorted(set(lengths.values())):
        others = [name for name, size in lengths.items() if size != length]
        part = xr.open_zarr(stores.local(store) or store, consolidated=False, chunks=None, drop_variables=others)
        parts.append(part.isel(run=slice(min(lengths.values()))))
    cube: xr.Dataset = xr.merge(parts, combine_attrs="override", join="exact", compat="equals")
    return cube


def open_checked(store: StoreLike) -> zarr.Group:
    """The group of a cube of a version that is understood, with all its arrays. Raises UserError otherwise."""
    group = stores.open_group(store)
    if group.attrs.get("format") != FORMAT:
        raise UserError(f"{store} is a zarr store, but not a cube that spectra wrote")
    version = group.attrs.get("format_version")
    if version != VERSION:
        raise UserError(f"{store} has cube format {version}, and this spectra reads format {VERSION}: update spectra")
    try:
        missing = sorted(
            {variable.name for variable in variables(_parts(group))} - {name for name, _ in group.arrays()}
        )
    except Exception as error:  # as in stores.open_group
        raise UserError(f"{store} is a damaged cube: an array cannot be read ({error})") from error
    if missing:
        raise UserError(f"{store} is a damaged cube: it has no {', '.join(missing)}")
    return group


def differences(stored: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """`name was A, is B` for each key of both that differs; nested mappings are compared key by key."""
    found: list[str] = []
    for name in now:
        old, new = stored.get(name), now[name]
        if isinstance(old, dict) and isinstance(new, dict):
            both = dict.fromkeys((*old, *new))
            found += differences({**both, **old}, {**both, **new}, f"{prefix}{name}.")
        elif name in stored and old != new:
            found.append(f"{prefix}{name} was {json.dumps(old)}, is {json.dumps(new)}")
    return found


def _level_differences(stored: Header, now: Header) -> list[str]:
    pairs = ((name, getattr(stored, name), getattr(now, name)) for name in LEVELS)
    return [f"{name} differs" for name, old, new in pairs if not np.allclose(old, new, equal_nan=True)]


def _create_array(group: zarr.Group, variable: Variable, header: Header, values: Any) -> None:
    """An array of the schema: one chunk per run for data, one big chunk for coordinates."""
    dims = variable.dimensions(header.parts)
    shape = tuple(sizes(header)[dim] for dim in dims)
    rows = (RUN_CHUNK if len(dims) == 1 else 1,) if dims[0] == "run" else ()
    array: zarr.Array[Any] = group.create_array(
        variable.name, shape=shape, chunks=(*rows, *shape[len(rows) :]), dtype=variable.dtype, fill_value=variable.fill,
        dimension_names=dims, attributes={"long_name": variable.long_name, "units": variable.units},
    )  # fmt: skip
    if dims[0] != "run":
        array[...] = np.asarray(values)


def _row_values(values: Any) -> NDArray[Any]:
    return np.array(values, dtype=object) if _is_text(values) else np.asarray(values)


def _is_text(values: Iterable[Any]) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    import zarr

    array = group[name]
    assert isinstance(array, zarr.Array)
    return array


def _parts(group: zarr.Group) -> list[str]:
    """The optional parts of the schema that a cube has."""
    parts: list[str] = json.loads(str(group.attrs.get("parts", "[]")))
    return parts


def _read(group: zarr.Group, name: str) -> NDArray[Any]:
    return np.asarray(_array(group, name)[...])


def _first_free(group: zarr.Group) -> int:
    """One past the last complete run; what an interrupted writer left behind it is overwritten."""
    complete = np.flatnonzero(_read(group, "status"))
    return int(complete[-1]) + 1 if complete.size else 0
