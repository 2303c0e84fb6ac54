"""An encoded data set: rows of latents and embeddings, read from the cache when they are asked for."""

from __future__ import annotations

import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets_cache import store
from datasets_cache.clips import decode_clip
from datasets_cache.families import Conditioning
from datasets_cache.items import Item
from datasets_cache.picture import Fit, decode
from spectra.errors import UserError

MEMORY = 2 * 2**30
"""Bytes of entries that are kept in memory at most; embeddings of FLUX take 8 MiB a caption."""
LATENT = "latent"
"""Name of the latent in a picture's entry; what else is there conditions the denoiser."""


class Shelf:
    """Entries of the cache in memory, the ones used last, up to `limit` bytes. Threads may share it."""

    def __init__(self, limit: int = MEMORY) -> None:
        self.limit, self.bytes = limit, 0
        self._kept: OrderedDict[Path, Conditioning] = OrderedDict()
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def get(self, place: Path) -> Conditioning:
        """The arrays of an entry. UserError if it was damaged or removed since the data set was encoded."""
        with self._lock:
            if place in self._kept:
                self._kept.move_to_end(place)
                return self._kept[place]
        found = store.read(place)  # outside the lock: several threads read at once
        if found is None:
            shutil.rmtree(place, ignore_errors=True)  # or the next run would count it as found
            raise UserError(
                f"the cache entry {place} was damaged or removed during the run; start again to make it anew"
            )
        arrays = {name: torch.from_numpy(array) for name, array in found.items()}
        self._keep(place, arrays)
        return arrays

    def ask(self, places: Iterable[Path]) -> Future[None]:
        """Read entries in the background; what goes wrong is said when they are asked for."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="cache")
        return self._pool.submit(self._read_quietly, list(places))

    def _read_quietly(self, places: list[Path]) -> None:
        for place in places:
            try:
                self.get(place)
            except UserError:
                return

    def _keep(self, place: Path, arrays: Conditioning) -> None:
        with self._lock:
            if place not in self._kept:
                self._kept[place] = arrays
                self.bytes += _bytes(arrays)
            while self.bytes > self.limit and len(self._kept) > 1:
                _, oldest = self._kept.popitem(last=False)
                self.bytes -= _bytes(oldest)


@dataclass(frozen=True)
class CachedData:
    """An encoded data set; row i of everything belongs to picture i."""

    items: tuple[Item, ...]
    fits: tuple[Fit, ...]
    """How each picture became pixels."""
    digests: tuple[str, ...]
    """SHA-256 of each picture's bytes."""
    keys: tuple[str, ...]
    """Content key of each picture (bytes, transform, autoencoder)."""
    places: tuple[Path, ...]
    """Cache entry of each picture."""
    texts: tuple[tuple[Path, ...], ...]
    """Cache entries of the captions of each picture."""
    shapes: tuple[tuple[int, ...], ...]
    """Shape (c, [t], h, w) of each latent."""
    empty: Conditioning
    """Name -> (1, ...): the empty prompt, for caption dropout."""
    hits: int
    misses: int
    first_miss: str | None
    """Which entry was made first, and why it was not there; None if everything was."""
    notes: tuple[str, ...]
    """What a person should know: pictures left out, damaged entries made again."""
    shelf: Shelf

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def captions(self) -> tuple[str, ...]:
        """The first caption of each picture."""
        return tuple(item.caption for item in self.items)

    @cached_property
    def caption_lists(self) -> tuple[tuple[str, ...], ...]:
        """All captions of each picture."""
        return tuple(item.captions for item in self.items)

    @cached_property
    def caption_counts(self) -> tuple[int, ...]:
        """Number of captions of each picture."""
        return tuple(len(item.captions) for item in self.items)

    @cached_property
    def paths(self) -> tuple[Path, ...]:
        """The file of each picture, or a name for one that lies in another file."""
        return tuple(item.path for item in self.items)

    def latents(self, rows: Sequence[int]) -> Tensor:
        """Latents (rows, c, [t], h, w) float32 of pictures of equal shape."""
        return torch.stack([self.shelf.get(self.places[row])[LATENT] for row in rows])

    def conditioning(self, rows: Sequence[int], pick: Sequence[int] | None = None) -> Conditioning:
        """What the denoiser is told of each row, name -> (rows, ...).

        Args:
            rows: the pictures.
            pick: which of its captions for each; default: the first.
        """
        texts = [self.texts[row][0 if pick is None else pick[place]] for place, row in enumerate(rows)]
        told = [self.shelf.get(text) | self._told(row) for row, text in zip(rows, texts, strict=True)]
        return {name: torch.stack([one[name] for one in told]) for name in told[0]} if told else {}

    def _told(self, row: int) -> Conditioning:
        """What the picture itself conditions, such as its size before the crop."""
        return {name: value for name, value in self.shelf.get(self.places[row]).items() if name != LATENT}

    def picture(self, row: int) -> NDArray[np.uint8]:
        """Pixels (h, w, 3), or (t, h, w, 3) of a clip, as they were encoded."""
        item, fit = self.items[row], self.fits[row]
        return pixels_of(item.read(), fit, str(item.path))

    def prefetch(self, rows: Sequence[int]) -> Future[None]:
        """Read rows into memory in the background, for the next step."""
        return self.shelf.ask([place for row in rows for place in (self.places[row], *self.texts[row])])

    def take(self, rows: Sequence[int]) -> CachedData:
        """The data set of the given rows, in that order."""
        chosen: dict[str, Any] = {name: tuple(getattr(self, name)[row] for row in rows) for name in _BY_ROW}
        return replace(self, **chosen)


_BY_ROW = ("items", "fits", "digests", "keys", "places", "texts", "shapes")


def pixels_of(parts: tuple[bytes, ...], fit: Fit, name: str) -> NDArray[np.uint8]:
    """Pixels (h, w, 3) of a picture or (t, h, w, 3) of a clip. BadPicture where it is damaged."""
    if fit.frames == 1:
        return decode(parts[0], fit.size, name)
    return decode_clip(parts, fit.size, fit.frames, name)


def _bytes(arrays: Conditioning) -> int:
    return sum(value.nbytes for value in arrays.values())
