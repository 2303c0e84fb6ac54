"""Pictures and captions -> latents and text embeddings, cached by content."""

from __future__ import annotations

from datasets_cache.folder import Item, find_splits, open_dataset

__all__ = [
    "CachedData",
    "Item",
    "cache_directory",
    "encode",
    "encode_all",
    "find_splits",
    "native_size",
    "open_dataset",
]

_LAZY = {
    "CachedData": "datasets_cache.encoding",
    "encode": "datasets_cache.encoding",
    "encode_all": "datasets_cache.encoding",
    "cache_directory": "datasets_cache.store",
    "native_size": "datasets_cache.families",
}


def __getattr__(name: str) -> object:
    """Import what needs torch or zarr only when it is asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module 'datasets_cache' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
