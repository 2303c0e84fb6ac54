"""What the encoding cache holds, and how it is made smaller."""

from __future__ import annotations

import re
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datasets_cache import store

KINDS = {
    "latents": "pictures",
    "text": "captions",
    "samples": "samples of base models",
    "class": "drawn class pictures",
    "tables": "unpacked tables",
}
"""Kinds of what is kept, which are folders of the cache -> what they are called."""
PLACES = {
    "latents": "*/*.zarr",
    "text": "*/*.zarr",
    "samples": "*/*.zarr",
    "class": "*",
    "tables": "*/*",
}
"""Kind -> where its entries are; what is no entry of arrays counts as one by folder."""
UNKNOWN = "not told"
"""The model of entries that do not say."""
DAY = 24 * 60 * 60.0


@dataclass(frozen=True)
class Entry:
    """Something in the cache that can be removed on its own."""

    path: Path
    kind: str
    model: str
    bytes: int
    used: float
    """When it was last written or found, in seconds since 1970."""


@dataclass(frozen=True)
class Usage:
    """What the cache holds of one kind for one model."""

    kind: str
    model: str
    entries: int
    bytes: int
    oldest: float
    """When the one that was used longest ago was last used, in seconds since 1970."""


def summary(cache: Path | None = None) -> list[Usage]:
    """What the cache holds, by kind and model, the largest first."""
    found: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries(cache):
        found[entry.kind, entry.model].append(entry)
    made = [
        Usage(kind, model, len(every), sum(one.bytes for one in every), min(one.used for one in every))
        for (kind, model), every in found.items()
    ]
    return sorted(made, key=lambda usage: -usage.bytes)


def prune(cache: Path | None = None, *, days: float | None = None, model: str | None = None) -> list[Entry]:
    """Remove entries, and what writers that were killed left; returns the entries that were removed.

    Args:
        cache: the cache folder; default: the user's.
        days: only entries that no run has used for so many days.
        model: only entries of this model, as `summary` names it.
    """
    root, now = cache or store.cache_directory(), time.time()
    chosen = [
        entry
        for entry in entries(root)
        if (days is None or now - entry.used >= days * DAY) and (model is None or entry.model == model)
    ]
    for entry in chosen:
        shutil.rmtree(entry.path, ignore_errors=True)
    for left in (left for kind in PLACES for left in (root / kind).glob(f"*/{store.SCRATCH}*")):
        if _inside(left, root) and now - left.stat().st_mtime >= DAY:  # a younger one may belong to a writer at work
            shutil.rmtree(left, ignore_errors=True)
    return [entry for entry in chosen if not entry.path.exists()]


def entries(cache: Path | None = None) -> Iterator[Entry]:
    """Everything in the cache that can be removed on its own."""
    root = cache or store.cache_directory()
    for kind, pattern in PLACES.items():
        for path in sorted(path for path in (root / kind).glob(pattern) if _is_own(path, kind, root)):
            told = (store.about(path) or {}).get("told") or {}
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            yield Entry(path, kind, str(told.get("model") or UNKNOWN), size, path.stat().st_mtime)


def _is_own(path: Path, kind: str, root: Path) -> bool:
    """True for what this cache made: a folder chosen by mistake may hold another person's `class/dogs`."""
    if not (path.is_dir() and _inside(path, root)):
        return False
    if kind == "tables":  # as Hugging Face `datasets` keeps them
        return any(path.glob("*/*/dataset_info.json")) or any(path.glob("*/*.incomplete"))
    key = re.fullmatch(r"[0-9a-f]{64}" if kind == "class" else r"([0-9a-f]{2})[0-9a-f]*\.zarr", path.name)
    return key is not None and (kind == "class" or path.parent.name == key[1])


def _inside(path: Path, root: Path) -> bool:
    """False where a link leads out of the cache."""
    return path.resolve().is_relative_to(root.resolve())
