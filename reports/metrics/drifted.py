"""How far pictures of unrelated prompts move from those of the base at the same prompt and seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from reports.metrics.opened import Group, Opened
from reports.metrics.quantity import Found, Quantity, averaged
from spectra.analysis.statistics import Array

BASE = "base"
DISTANCE = (0.0, np.inf)
LOST = (-1.0, 1.0)
"""A share less a share."""


def drift(opened: Opened) -> Found:
    """Pixels and attributes; features of a network are in `featured`."""
    group = opened.unrelated
    if not len(group.rows):
        yield "no drift: no unrelated prompts were given (--unrelated)"
        return
    if BASE not in opened.adapters:
        yield "no drift: the base is not in this evaluation"
        return
    pinned, base = against_base(group), opened.adapters.index(BASE)
    if "image" in opened.data:
        apart = pixels_from(opened, base, group)
        words = "drift of pixels on unrelated prompts", "root mean square change of pixels (0 to 1)"
        yield replace(from_base(opened, apart, group, "drift_pixels", words, pinned), reach=1.0)
    if "attribute_right" in opened.data:
        right = opened.values("attribute_right", "adapter", "sample", "attribute")[:, group.rows].astype(np.float64)
        lost = known_mean(right[base] - right)
        known = np.asarray(np.isfinite(lost).all(0))
        words = "attributes lost on unrelated prompts", "share of attributes right, base less adapter"
        if known.any():
            pinned = f"{pinned}; bundled attribute reader"
            yield from_base(opened, lost[:, known], group.take(known), "drift_attribute_right", words, pinned, True)


def pixels_from(opened: Opened, base: int, group: Group) -> Array:
    """Change of pixels from one adapter to each, (adapter, sample); pictures are read one adapter at a time."""
    images = opened.data.image.isel(sample=group.rows).transpose("adapter", "sample", "y", "x", "rgb")
    own = images.isel(adapter=base).values
    each = (images.isel(adapter=row).values for row in range(len(opened.adapters)))
    return np.array([[rms(a, b) for a, b in zip(made, own, strict=True)] for made in each])


def from_base(
    opened: Opened, values: Array, group: Group, name: str, words: tuple[str, str], pinned: str, counted: bool = False,
    network: str | None = None,
) -> Quantity:  # fmt: skip
    """A mean distance (adapter, sample) from the base, which is not shown; `words`: its title and what it is."""
    title, what = words
    plain = Quantity(
        name, title, "lower", f"mean over {group.unit} of the {what}", group.unit, opened.adapters, values, values,
        group.labels, pinned, network, bounds=LOST if counted else DISTANCE, counted=counted, skip=frozenset([BASE]),
    )  # fmt: skip
    return averaged(plain, values)


def against_base(group: Group) -> str:
    """What drift is measured on."""
    return f"{group.words}, against the base's at the same prompt and seed"


def rms(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Root mean square difference of two pictures of bytes, where black to white is 1."""
    return float(np.sqrt(((a.astype(np.float32) - b) ** 2).mean(dtype=np.float64)) / 255)


def known_mean(right: Array) -> Array:
    """Mean over the last axis of what is known, NaN where nothing is."""
    known = np.isfinite(right)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, right, 0).sum(-1) / known.sum(-1))
