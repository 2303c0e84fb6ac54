"""Pictures and captions -> latents and text embeddings, cached by content."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datasets_cache.folder import find_splits
from datasets_cache.items import Item, Reading
from datasets_cache.sources import open_dataset, splits_of

if TYPE_CHECKING:
    from datasets_cache.cached import CachedData
    from datasets_cache.encoder import Preparation
    from datasets_cache.encoding import encode, encode_all
    from datasets_cache.families import native_size
    from datasets_cache.report import describe
    from datasets_cache.store import cache_directory
    from datasets_cache.upkeep import prune, summary

__all__ = [
    "CachedData",
    "Item",
    "Preparation",
    "Reading",
    "cache_directory",
    "describe",
    "encode",
    "encode_all",
    "find_splits",
    "native_size",
    "open_dataset",
    "prune",
    "splits_of",
    "summary",
]

_LAZY = {
    "CachedData": "datasets_cache.cached",
    "Preparation": "datasets_cache.encoder",
    "encode": "datasets_cache.encoding",
    "encode_all": "datasets_cache.encoding",
    "cache_directory": "datasets_cache.store",
    "native_size": "datasets_cache.families",
    "describe": "datasets_cache.report",
    "summary": "datasets_cache.upkeep",
    "prune": "datasets_cache.upkeep",
}


def __getattr__(name: str) -> object:
    """Import what needs torch or zarr only when it is asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module 'datasets_cache' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
