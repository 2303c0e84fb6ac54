"""Picture bytes -> pixels of the model's native size."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from spectra.errors import UserError

TRANSFORM = "exif; alpha over white; cover, Lanczos; centre crop; v2"
"""Part of every cache key: change it whenever `decode` gives other pixels."""
SIDEWAYS = range(5, 9)
"""Exif orientations of pictures that are turned by a quarter."""


def decode(data: bytes, size: tuple[int, int], name: str) -> NDArray[np.uint8]:
    """Pixels (h, w, 3) of a picture, resized to cover `size` = (h, w) and cropped at its centre.

    A picture of another size is made smaller or larger, its proportions kept, until its shorter side fits; what then
    stands out on the longer side is lost, half at each end.

    Raises:
        UserError: the bytes are not a whole picture.
    """
    try:
        with Image.open(io.BytesIO(data)) as opened:
            picture = _opaque(ImageOps.exif_transpose(opened))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "is not a picture" if isinstance(error, UnidentifiedImageError) else "is damaged"
        raise UserError(f"the picture {name} {reason}; replace or remove it") from None
    height, width = size
    if picture.size != (width, height):
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    return np.asarray(picture, np.uint8)


def is_small(data: bytes, size: tuple[int, int]) -> bool:
    """True if a picture that `decode` takes is lower and narrower than `size` = (h, w). Reads its header only."""
    with Image.open(io.BytesIO(data)) as opened:
        sides = opened.size if opened.getexif().get(ExifTags.Base.Orientation) in SIDEWAYS else opened.size[::-1]
    return sides[0] < size[0] and sides[1] < size[1]


def _opaque(picture: Image.Image) -> Image.Image:
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
