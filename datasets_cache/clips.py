"""Clips: animations, and folders of numbered frames, as so many frames evenly spaced from the first."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from datasets_cache.items import BadPicture
from datasets_cache.picture import Size, decode, fitted, measure, opaque, whole

CLIP = "every (n // frames)-th frame from the first; v1"
"""Part of the cache key of clips: change it whenever other frames are taken."""


def count_frames(parts: Sequence[bytes], name: str) -> int:
    """Frames of a clip: of the animation, or one for each file."""
    if len(parts) != 1:
        return len(parts)
    with whole(name), Image.open(io.BytesIO(parts[0])) as opened:
        return int(getattr(opened, "n_frames", 1))


def chosen(there: int, wanted: int) -> range:
    """Numbers of the frames that are taken: equally far apart, from the first one, as far apart as fits."""
    step = there // wanted
    return range(0, wanted * step, step)


def frame_rate(parts: Sequence[bytes], frames: int, name: str) -> float | None:
    """Frames a second of so many frames of an animation, by the time that its first one is shown; None if not told."""
    if len(parts) != 1:
        return None
    with whole(name), Image.open(io.BytesIO(parts[0])) as opened:
        milliseconds = float(opened.info.get("duration") or 0)
        step = int(getattr(opened, "n_frames", 1)) // frames
    return 1000 / (milliseconds * step) if milliseconds * step > 0 else None


def decode_clip(parts: Sequence[bytes], size: Size, frames: int, name: str) -> NDArray[np.uint8]:
    """Pixels (t, h, w, 3) of a clip; of all its frames, each treated as `decode` does a picture.

    Raises:
        BadPicture: damaged, with fewer frames than asked for, or with frames of several sizes.
    """
    there = count_frames(parts, name)
    if there < frames:
        raise BadPicture(name, f"has {there} frame{'s' * (there != 1)} of the {frames} that are needed")
    wanted = chosen(there, frames)
    if len(parts) == 1:
        return np.stack(list(_animation(parts[0], wanted, size, name)))
    if len({measure(parts[number], name) for number in wanted}) > 1:
        raise BadPicture(name, "has frames of several sizes")
    return np.stack([decode(parts[number], size, name) for number in wanted])


def _animation(data: bytes, wanted: range, size: Size, name: str) -> Iterator[NDArray[np.uint8]]:
    # Frames are visited in order: those of a GIF are differences from the frames before.
    with whole(name), Image.open(io.BytesIO(data)) as opened:
        for number in wanted:
            opened.seek(number)
            yield fitted(opaque(ImageOps.exif_transpose(opened)), size)
