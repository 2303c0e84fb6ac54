"""Runs on their way into a cube: data first, status last, and the cube kept open between them."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spectra.errors import UserError
from spectra.schema import Header, Runs
from spectra.storage import folders, stores
from spectra.storage.creation import create, resume
from spectra.storage.stored import Stored, check, open_stored
from spectra.storage.stores import Region, StoreLike
from spectra.storage.transactions import ConflictError

if TYPE_CHECKING:
    import zarr

RESERVE = 256  # rows that a writer adds at once, so that most appends change no array's shape
ATTEMPTS = 8  # at a commit that others were faster with
PAUSE = 0.01  # seconds at most before the second attempt, twice that before the third, ...
Rows = NDArray[np.int64]


def append(store: StoreLike, runs: Runs) -> None:
    """Add complete runs to the cube at `store`: data first, status last.

    The simple form: it opens the cube and closes it again. Whoever appends often keeps a `Writer`. Raises UserError if
    the place refuses; then no run of these was added.
    """
    Writer(store, reserve=1).append(runs)


class Writer:
    """Appends runs to one cube, keeping it open: a few milliseconds a call.

        with cube.Writer("runs/a.zarr") as writer:
            writer.write(header, runs)      # creates the cube if there is none; else compares headers, once each
            writer.append(runs)             # to a cube that is known to fit

    Runs are complete, and safe from the end of the process, when `write` or `append` returns: nothing is buffered.
    They take the first rows that hold no complete run, so what an interrupted writer left is overwritten. Rows are
    reserved `reserve` at a time; `flush` gives back those that are still empty, and so does `close`. A writer may be
    left unclosed: empty rows have no status and do not exist for `open_cube`. Several writers of one folder, also in
    several processes, wait for each other. All methods raise UserError if the place refuses.
    """

    def __init__(self, store: StoreLike, reserve: int = RESERVE) -> None:
        self.store = store
        self.reserve = reserve
        self._header: Header | None = None
        self._table: _Table | None = None
        self._wanted: Rows | None = None

    def write(self, header: Header, runs: Runs) -> None:
        """Add runs recorded under `header`, to a new cube if there is none. Raises UserError if they do not fit."""
        if header != self._header:
            if stores.exists(self.store):
                resume(self.store, header)
            else:
                create(self.store, header)
            self._header = header
        self.append(runs)

    def append(self, runs: Runs) -> None:
        """Add runs to the cube that is there. Raises UserError if there is none, or runs of another shape."""
        if isinstance(self.store, Region):
            self.store.meet()
        self._wanted = self.store.take(len(runs.prompt)) if isinstance(self.store, Region) else None
        for attempt in range(ATTEMPTS):
            try:
                return self._append(runs)
            except ConflictError:
                if attempt == ATTEMPTS - 1:
                    raise
                time.sleep(random.uniform(0, PAUSE * 2**attempt))
        return None

    def _append(self, runs: Runs) -> None:
        with self._changing() as table:
            table.put(self._rows(table, len(runs.prompt)), runs)

    def flush(self) -> None:
        """Give back rows that were reserved and hold no run, so that other readers do not see them either."""
        if self._table is None or isinstance(self.store, Region):
            return
        with self._changing() as table:
            table.shrink()

    def close(self) -> None:
        """Flush, and let go of the cube; the writer may be used again."""
        self.flush()
        self._table = self._header = None

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()

    @contextmanager
    def _changing(self) -> Iterator[_Table]:
        """The arrays, held for this writer and as others left them; opened anew after a failure."""
        with stores.writing(self.store) as transaction:
            table, self._table = self._open(transaction), None
            table.refresh()
            yield table
            self._table = table

    def _open(self, transaction: zarr.Group | None) -> _Table:
        """The cube's arrays: those of the transaction, where the store has such, or the ones kept open."""
        if transaction is not None:
            return _Table(check(transaction, stores.name(self.store)), None)
        return self._table or _Table(open_stored(self.store, "r+"), stores.local(self.store))

    def _rows(self, table: _Table, count: int) -> Rows:
        if isinstance(self.store, Region) and self._wanted is not None:
            table.grow(self.store.total)
            mine = table.still_free(self._wanted)
            if len(mine) == count:
                return mine
        return table.free(count, self.reserve)


class _Table:
    """The arrays of an open cube that grow with runs, and what is known of them.

    `complete` is the status of every row. Labels share chunks: the chunk written last is kept, and written again only
    where it changes, as long as it is still the one in the store.
    """

    def __init__(self, stored: Stored, folder: Path | None) -> None:
        self.stored, self.folder = stored, folder
        self.labels: dict[tuple[str, int], tuple[Any, NDArray[Any]]] = {}
        self._load(stored)
        lengths = {array.shape[0] for array in self.arrays.values()}
        if folder is not None and (len(lengths) > 1 or not self.complete.all()):
            folders.sweep_pieces(folder)  # somebody was interrupted

    def _load(self, stored: Stored) -> None:
        self.arrays = stored.growing()
        self.labels.clear()
        self.complete = np.asarray(self.arrays["status"][...]) == 1

    def refresh(self) -> None:
        """See what other writers have done: a new length, or runs where there were none."""
        status = self.stored.fresh("status")
        if status.shape != self.arrays["status"].shape:
            self._load(check(self.stored.group, self.stored.name))
        elif not self.complete.all():
            first = int(np.argmin(self.complete))
            self.complete[first:] = np.asarray(status[first:]) == 1

    def free(self, count: int, reserve: int) -> Rows:
        """The first rows without a run, after adding rows if there are too few."""
        empty = np.flatnonzero(~self.complete)
        if len(empty) < count:
            need = len(self.complete) + count - len(empty)
            self.grow(-(-need // reserve) * reserve)
        return np.flatnonzero(~self.complete)[:count].astype(np.int64)

    def grow(self, length: int) -> None:
        """Have at least so many rows."""
        if length > len(self.complete):
            self._resize(length, [*(name for name in self.arrays if name != "status"), "status"])

    def still_free(self, rows: Rows) -> Rows:
        """Those of these rows that exist and hold no run."""
        there = rows[rows < len(self.complete)]
        free: Rows = there[~self.complete[there]]
        return free

    def shrink(self) -> None:
        """Cut the rows after the last complete run off."""
        length = int(np.flatnonzero(self.complete)[-1]) + 1 if self.complete.any() else 0
        if length < len(self.complete):
            self._resize(length, list(self.arrays))

    def _resize(self, length: int, order: list[str]) -> None:
        """`status` last when growing and first when shrinking, so that it never counts rows that others lack."""
        for name in order:
            self.arrays[name].resize((length, *self.arrays[name].shape[1:]))
        self.labels.clear()
        self.complete = np.concatenate([self.complete[:length], np.zeros(max(length - len(self.complete), 0), bool)])

    def put(self, rows: Rows, runs: Runs) -> None:
        """Write runs into rows: all values first, and then their status."""
        others = ((name, array) for name, array in self.arrays.items() if name != "status")
        values = {name: _values(array, name, runs, self.stored.name) for name, array in others}
        for name, value in values.items():
            if self.arrays[name].ndim > 1:
                self._put_data(name, rows, value)
            else:
                self._put_labels(name, rows, value)
        self._put_labels("status", rows, np.ones(len(rows), np.uint8))
        self.complete[rows] = True

    def _put_data(self, name: str, rows: Rows, values: NDArray[Any]) -> None:
        """Row by neighbouring row, so that whole chunks are written where runs share them."""
        cuts = np.flatnonzero(np.diff(rows) != 1) + 1
        for piece, part in zip(np.split(rows, cuts), np.split(values, cuts), strict=True):
            if len(piece):
                self.arrays[name][int(piece[0]) : int(piece[-1]) + 1] = part

    def _put_labels(self, name: str, rows: Rows, values: NDArray[Any]) -> None:
        """Chunks of labels that change. Rows without a run get the last label ahead of time: it seldom changes again.

        Replacing a file costs more than everything else about a label.
        """
        size = self.arrays[name].chunks[0]
        for chunk in np.unique(rows // size).tolist():
            here = rows // size == chunk
            held = self._held(name, chunk)
            now = held.copy()
            if name != "status":
                now[~self.complete[chunk * size : chunk * size + len(now)]] = values[here][-1]
            now[rows[here] - chunk * size] = values[here]
            if not _same(now, held):
                self.arrays[name][chunk * size : chunk * size + len(now)] = now
                self.labels[name, chunk] = self._stamp(name, chunk), now

    def _held(self, name: str, chunk: int) -> NDArray[Any]:
        """A chunk of labels as it is in the store."""
        stamp = self._stamp(name, chunk)
        known = self.labels.get((name, chunk))
        if known is None or known[0] != stamp:
            size = self.arrays[name].chunks[0]
            known = stamp, _plain(self.arrays[name][chunk * size : (chunk + 1) * size])
            self.labels = {key: value for key, value in self.labels.items() if key[0] != name} | {(name, chunk): known}
        return known[1]

    def _stamp(self, name: str, chunk: int) -> Any:
        """What changes when another process replaces a chunk's file; elsewhere than on a disk, writers share none."""
        if self.folder is None:
            return None
        try:
            found = os.stat(self.folder / name / self.arrays[name].metadata.encode_chunk_key((chunk,)))
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


def _values(array: zarr.Array[Any], name: str, runs: Runs, store: str) -> NDArray[Any]:
    """The values of a variable, one row a run. Raises UserError if they are not of the cube's shape."""
    given = getattr(runs, name)
    values = _plain(given if given is not None else ())
    wanted = (len(runs.prompt), *array.shape[1:])
    if values.shape != wanted:
        raise UserError(f"cannot add to {store}: {name} has the shape {values.shape}, and the cube wants {wanted}")
    return values


def _plain(values: Any) -> NDArray[Any]:
    """As an array, texts as objects."""
    array = np.asarray(values)
    return array.astype(object) if array.dtype.kind in "TUO" else array


def _same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))
