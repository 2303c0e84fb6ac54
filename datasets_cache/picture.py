"""Picture bytes -> pixels of the size that a model is trained on."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from datasets_cache.items import BadPicture

TRANSFORM = "exif; alpha over white; cover, Lanczos; centre crop; v2"
"""Part of every cache key: change it whenever `decode` gives other pixels."""
SIDEWAYS = range(5, 9)
"""Exif orientations of pictures that are turned by a quarter."""

Size = tuple[int, int]
"""(height, width) in pixels."""


@dataclass(frozen=True)
class Fit:
    """How a picture became pixels; some models are told so."""

    original: Size
    """Size of the picture as it is seen."""
    size: Size
    """Size of the pixels."""
    frames: int = 1
    rate: float | None = None
    """Frames a second of a clip, as they are taken; None where it does not say."""

    @property
    def resized(self) -> Size:
        """Size after resizing and before cropping."""
        scale = max(self.size[0] / self.original[0], self.size[1] / self.original[1])
        return round(self.original[0] * scale), round(self.original[1] * scale)

    @property
    def crop(self) -> tuple[int, int]:
        """(top, left) of the crop in the resized picture, pixels."""
        return (self.resized[0] - self.size[0]) // 2, (self.resized[1] - self.size[1]) // 2

    def told(self) -> dict[str, Any]:
        """What `datasets_cache.families` tells the models that ask."""
        return {"original": self.original, "crop": self.crop, "target": self.size, "fps": self.rate}

    @property
    def lost(self) -> float:
        """Share of the picture's area that the crop takes away."""
        (h, w), (high, wide) = self.original, self.size
        return 1 - min(h * wide, w * high) / max(h * wide, w * high)


def decode(data: bytes, size: Size, name: str) -> NDArray[np.uint8]:
    """Pixels (h, w, 3) of a picture, resized to cover `size` = (h, w) and cropped at its centre.

    A picture of another size is made smaller or larger, its proportions kept, until its shorter side fits; what then
    stands out on the longer side is lost, half at each end.

    Raises:
        BadPicture: the bytes are not a whole picture.
    """
    return fitted(seen(data, name), size)


def seen(data: bytes, name: str) -> Image.Image:
    """A picture as people see it, RGB: turned as its camera was held, white behind what is transparent.

    Raises:
        BadPicture: the bytes are not a whole picture, or one of more pixels than Pillow opens.
    """
    with whole(name), Image.open(io.BytesIO(data)) as opened:
        return opaque(ImageOps.exif_transpose(opened))


def fitted(picture: Image.Image, size: Size) -> NDArray[np.uint8]:
    """Pixels (h, w, 3) of an RGB picture, covering `size`, the rest cropped."""
    height, width = size
    if picture.size != (width, height):
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    return np.asarray(picture, np.uint8)


def measure(data: bytes, name: str) -> Size:
    """Size (h, w) of a picture as it is seen. Reads its header only; BadPicture where it has none."""
    with whole(name), Image.open(io.BytesIO(data)) as opened:
        width, height = opened.size
        turned = opened.getexif().get(ExifTags.Base.Orientation) in SIDEWAYS
    return (width, height) if turned else (height, width)


def is_small(seen: Size, size: Size) -> bool:
    """True if a picture is lower and narrower than `size`, so that it must be enlarged."""
    return seen[0] < size[0] and seen[1] < size[1]


@contextmanager
def whole(name: str) -> Iterator[None]:
    """Pillow's complaints about a file as BadPicture."""
    try:
        yield
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise BadPicture(name, _reason(error)) from None


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "is not a picture"
    if isinstance(error, Image.DecompressionBombError):
        return f"has more than {2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} million pixels"  # where Pillow refuses
    return "is damaged"


def opaque(picture: Image.Image) -> Image.Image:
    """RGB; what is transparent becomes white, not the hidden colour behind it.

    Raises ValueError for numbers without a known range, which Pillow would clip at 255.
    """
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {picture.mode}")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    rgba = picture.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")
