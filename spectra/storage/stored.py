"""What lies in a store, held against the schema before any of it is believed or allocated."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spectra.bands import FilterBank
from spectra.errors import UserError
from spectra.schema import FILLS, FORMAT, VERSION, Header, Variable, rows, sizes, variables
from spectra.storage import stores
from spectra.storage.stores import UNFINISHED, StoreLike

if TYPE_CHECKING:
    import zarr

LEVELS = ("timestep", "signal_level", "noise_level")
PARTS = frozenset({"frame", "temporal", "blocks", "split"})
LONGEST = 1 << 20  # entries of a dimension other than `run`
MOST_RUNS = 1 << 26
LARGEST_CHUNK = 1 << 31  # bytes, which is where compressors end


@dataclass(frozen=True)
class Stored:
    """A cube that was opened and held against the schema: its group, and all arrays of its parts by name."""

    name: str
    group: zarr.Group
    parts: tuple[str, ...]
    arrays: dict[str, zarr.Array[Any]]

    def growing(self) -> dict[str, zarr.Array[Any]]:
        """The arrays that grow with runs, `status` first."""
        return {name: self.arrays[name] for name in ("status", *rows(self.parts))}

    def fresh(self, name: str) -> zarr.Array[Any]:
        """An array as it is now: other writers change lengths."""
        import zarr

        array = self.group[name]
        assert isinstance(array, zarr.Array)
        return array

    def read(self, name: str) -> NDArray[Any]:
        """All values of an array."""
        return np.asarray(self.arrays[name][...])

    def header(self) -> Header:
        """What the runs have in common. Raises UserError if description and arrays tell different stories."""
        try:
            header = _header(self)
            wanted = {dim: size for dim, size in sizes(header).items() if dim != "run" and dim in self.arrays}
            told = [f"{dim} has {self.arrays[dim].shape[0]} entries, not {size}" for dim, size in wanted.items()
                    if self.arrays[dim].shape[0] != size]  # fmt: skip
            source = {name: getattr(header, name) for name in (*LEVELS, "step")} | {"block": header.blocks}
            told += [f"{name} is lost" for name, values in source.items() if _lost(values)]
        except Exception as error:  # damaged attributes and chunks surface as whatever their parsers raise
            raise UserError(f"{self.name} is a damaged cube: its description cannot be read ({error})") from error
        if told:
            raise UserError(f"{self.name} is a damaged cube: {told[0]}")
        return header


def open_stored(store: StoreLike, mode: str = "r") -> Stored:
    """The cube at `store`, if its version is understood and its arrays are as the schema has them.

    Nothing but metadata is read. Raises UserError, with one sentence, for everything else.
    """
    return check(stores.open_group(store, mode), stores.name(store))


def check(group: zarr.Group, name: str) -> Stored:
    """A group as a cube. Raises UserError as `open_stored`."""
    if group.attrs.get("format") == UNFINISHED:
        raise UserError(f"{name} was not finished when it was created; repeat the command that did")
    if group.attrs.get("format") != FORMAT:
        raise UserError(f"{name} is a zarr store, but not a cube that spectra wrote")
    _check_version(name, group.attrs.get("format_version"))
    try:
        parts = _parts(group)
        arrays = _arrays(group, variables(parts))
        wrong = _wrong(arrays, parts)
    except UserError as error:
        raise UserError(f"{name} is a damaged cube: {error}") from error
    except PermissionError as error:
        raise UserError(stores.denied(name)) from error
    except Exception as error:  # as in stores.open_group
        raise UserError(f"{name} is a damaged cube: an array cannot be read ({stores.short(error)})") from error
    if wrong:
        raise UserError(f"{name} is a damaged cube: {wrong}")
    return Stored(name, group, parts, arrays)


def read_header(store: StoreLike) -> Header:
    """What the runs of the cube at `store` have in common. Raises UserError if it is no cube that can be read."""
    return open_stored(store).header()


def _check_version(name: str, version: Any) -> None:
    if version == VERSION:
        return
    old = isinstance(version, int) and version < VERSION
    advice = "record it again, or open it with the spectra that wrote it" if old else "update spectra"
    raise UserError(f"{name} has cube format {version}, and this spectra reads format {VERSION}: {advice}")


def _parts(group: zarr.Group) -> tuple[str, ...]:
    parts = json.loads(str(group.attrs.get("parts")))
    if not isinstance(parts, list) or not PARTS.issuperset(parts):
        raise UserError(f"it has unknown parts {parts}")
    return tuple(parts)


def _arrays(group: zarr.Group, known: list[Variable]) -> dict[str, zarr.Array[Any]]:
    """The arrays of the schema.

    `status` grows last and shrinks first. It is read first here, so the others are at least as long as the runs that it
    knows to be complete, whatever a writer does meanwhile.
    """
    import zarr

    found = {name: group.get(name) for name in ("status", *(v.name for v in known if v.name != "status"))}
    arrays = {name: array for name, array in found.items() if isinstance(array, zarr.Array)}
    if missing := sorted(found.keys() - arrays.keys()):
        raise UserError(f"it has no {', '.join(missing)}")
    return arrays


def _wrong(arrays: dict[str, zarr.Array[Any]], parts: tuple[str, ...]) -> str | None:
    """The first thing in which the arrays of a cube differ from the schema."""
    lengths: dict[str, tuple[int, str]] = {}
    problems = (_array_wrong(arrays[variable.name], variable, parts, lengths) for variable in variables(parts))
    return next((problem for problem in problems if problem), None)


def _array_wrong(
    array: zarr.Array[Any], variable: Variable, parts: tuple[str, ...], lengths: dict[str, tuple[int, str]]
) -> str | None:
    """How an array differs from its variable; `lengths` gathers the length of each dimension, and who said so."""
    name, dims = variable.name, variable.dimensions(parts)
    found = array.metadata.dimension_names  # type: ignore[union-attr]
    if tuple(found or ()) != dims or len(array.shape) != len(dims):
        return f"{name} has the dimensions {found}, not {dims}"
    if _kind(array) != variable.dtype:
        return f"{name} holds {_kind(array)}, not {variable.dtype}"
    if absurd := _absurd(array, dims):
        return f"{name} claims {absurd}"
    for dim, length in zip(dims, array.shape, strict=True):
        first, who = lengths.setdefault(dim, (length, name))
        if dim != "run" and first != length:  # runs are counted by `status` alone
            return f"{name} has {length} entries along {dim}, and {who} {first}"
    return None


def _absurd(array: zarr.Array[Any], dims: tuple[str, ...]) -> str | None:
    """A size that no cube has, and that reading would allocate."""
    longest = {dim: length for dim, length in zip(dims, array.shape, strict=True) if dim != "run"}
    size = 16 if _kind(array) == "string" else array.dtype.itemsize
    chunk = size
    for length in array.chunks:
        chunk *= length
    runs = array.shape[0] if dims[0] == "run" else 0
    for dim, length in longest.items():
        if length > LONGEST:
            return f"{length} entries along {dim}"
    if runs > MOST_RUNS:
        return f"{runs} runs"
    return f"chunks of {chunk} bytes" if chunk > LARGEST_CHUNK else None


def _kind(array: zarr.Array[Any]) -> str:
    kind = array.dtype
    return "string" if kind.kind in "TO" else str(kind)


def _header(stored: Stored) -> Header:
    attrs: dict[str, Any] = dict(stored.group.attrs)
    temporal = json.loads(attrs["temporal"])
    lengths = {name: array.shape[0] for name, array in stored.arrays.items()}
    timestep, signal_level, noise_level = (tuple(stored.read(name).tolist()) for name in LEVELS)
    return Header(
        tuple(json.loads(attrs["signals"])),
        FilterBank.from_dict(json.loads(attrs["bank"])),
        _grid(json.loads(attrs["grid"])),
        lengths["channel"],
        lengths.get("frame"),
        lengths["radius"],
        timestep,
        signal_level,
        noise_level,
        facts={name: str(attrs[name]) for name in json.loads(attrs["facts"])},
        notes={name: str(attrs[name]) for name in json.loads(attrs["notes"])},
        step=tuple(stored.read("step").tolist()),
        temporal=FilterBank.from_dict(temporal) if temporal else None,
        blocks=tuple(stored.read("block").tolist()) if "block" in stored.arrays else (),
    )


def _lost(values: Sequence[float | str]) -> bool:
    """True if a chunk is gone: it reads as what nothing holds."""
    return not {FILLS[kind] for kind in ("float64", "int64", "string")}.isdisjoint(values)


def _grid(values: Any) -> tuple[int, int]:
    h, w = (int(value) for value in values)
    if min(h, w) < 1 or max(h, w) > LONGEST:
        raise ValueError(f"grid {values}")
    return h, w
