"""New cubes, and what has to agree before runs are added to one that exists."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from spectra.errors import UserError
from spectra.schema import Header, Variable, attributes, fixed_values, sizes, variables
from spectra.storage import stores
from spectra.storage.stored import LEVELS, read_header
from spectra.storage.stores import Region, StoreLike

if TYPE_CHECKING:
    import zarr

Resume = Literal["allow", "never", "must"]


@dataclass(frozen=True)
class Layout:
    """How a new cube is cut into chunks: `rows` it starts with, and runs per chunk of data, labels and status."""

    rows: int = 0
    data: int = 1
    labels: int = 256
    status: int = 4096

    def chunk(self, variable: Variable, dims: tuple[str, ...]) -> int:
        """Runs per chunk of a variable that grows with them."""
        if variable.name == "status":
            return self.status
        return self.labels if len(dims) == 1 else self.data


def create(store: StoreLike, header: Header, layout: Layout | None = None) -> None:
    """Write an empty cube; it appears whole or not at all.

    A folder is built beside its place and renamed; elsewhere the attribute that makes it a cube is written last. Of
    several writers that share a `Region`, the first creates and the others wait for it.

    Raises UserError if there is something already.
    """
    if isinstance(store, Region):
        _create_shared(store, header)
        return
    if stores.exists(store):
        raise UserError(f"{stores.name(store)} exists already; choose another place or resume it")
    with stores.new_group(store, {**_conventions(header), **attributes(header)}) as group:
        values = fixed_values(header)
        for variable in variables(header.parts):
            create_array(group, variable, header, values.get(variable.name), layout or Layout())


def _create_shared(region: Region, header: Header) -> None:
    if region.leads and not stores.exists(region.store):
        block = max(region.block, 1)
        create(region.store, header, Layout(region.total, labels=block, status=block))
    region.meet()
    resume(region.store, header)


def resume(store: StoreLike, header: Header) -> None:
    """Make sure that runs under `header` may be appended to `store`. Raises UserError with every difference if not."""
    stored = read_header(store)
    different = differences(stored.identity(), header.identity()) or _level_differences(stored, header)
    refuse(store, different)


def check_resume(store: StoreLike, resume: Resume) -> None:
    """Hold a store against what the caller wants: `must` needs a cube, `never` needs none. Raises UserError."""
    if resume == "never" and stores.exists(store):
        raise UserError(f"{stores.name(store)} exists already; choose another place or give --resume allow")
    if resume == "must" and not stores.exists(store):
        raise UserError(f"there is no cube at {stores.name(store)} to resume")


def refuse(store: StoreLike, different: list[str]) -> None:
    """Raise UserError if there are differences."""
    if different:
        name = stores.name(store)
        raise UserError(
            f"cannot add to {name}, which was recorded otherwise: {'; '.join(different)}; choose another place"
        )


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


def create_array(group: zarr.Group, variable: Variable, header: Header, values: Any, layout: Layout) -> None:
    """An array of the schema: one chunk per run for data, big chunks for labels, one for each other coordinate.

    Chunks lie side by side in the folder of their array, where the store may choose: that costs no folder per run.
    """
    dims = variable.dimensions(header.parts)
    grows = dims[0] == "run"
    shape = tuple(layout.rows if dim == "run" else sizes(header)[dim] for dim in dims)
    chunks = (layout.chunk(variable, dims), *shape[1:]) if grows else shape
    array: zarr.Array[Any] = group.create_array(
        variable.name, shape=shape, chunks=chunks, dtype=variable.dtype, fill_value=variable.fill,
        dimension_names=dims, attributes={"long_name": variable.long_name, "units": variable.units},
        chunk_key_encoding={"name": "default", "separator": stores.separator(group)},
    )  # fmt: skip
    if not grows:
        array[...] = np.asarray(values)


def _conventions(header: Header) -> dict[str, str]:
    """Attributes that the CF conventions recommend for a data set."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    model, command = header.notes.get("model", "a diffusion model"), header.notes.get("command", "spectra")
    return {
        "Conventions": "CF-1.11",
        "title": "Band energies of latents during sampling",
        "source": f"samples of {model}",
        "history": f"{now} {command}",
    }
