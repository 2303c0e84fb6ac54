"""Adapters of an evaluation that are the same adapter under another name: they count once in every comparison."""

from __future__ import annotations

import numpy as np
import xarray as xr

MADE = ("energy", "validation_error", "image")
"""What two models that are the same have in common, the small variables first."""


def same_results(data: xr.Dataset, i: int, j: int) -> bool:
    """True where the models at places i and j made the same pictures to the last bit, and the same held-out errors."""
    values = (data[name].transpose("adapter", ...).values for name in MADE if name in data)
    return all(np.array_equal(v[i], v[j], equal_nan=v.dtype.kind == "f") for v in values)


def same_weights(data: xr.Dataset, i: int, j: int) -> bool:
    """True where the adapters at places i and j are the same files."""
    digests = data.digest.values
    return bool(str(digests[i]) and str(digests[i]) == str(digests[j]))


def copies_of(data: xr.Dataset, base: str) -> dict[str, str]:
    """Label of each copy -> label of the first adapter that it is a copy of; `base` is no adapter."""
    firsts: list[int] = []
    found: dict[str, str] = {}
    labels = [str(label) for label in data.adapter.values]
    for j, label in enumerate(labels):
        if label == base:
            continue
        first = next((i for i in firsts if same_weights(data, i, j) or same_results(data, i, j)), None)
        if first is None:
            firsts.append(j)
        else:
            found[label] = labels[first]
    return found
