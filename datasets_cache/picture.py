"""Picture bytes -> pixels of the model's native size."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from spectra.errors import UserError

TRANSFORM = "exif; alpha over white; cover, Lanczos; centre crop; v2"
"""Part of every cache key: change it whenever `decode` gives other pixels."""


def decode(data: bytes, size: tuple[int, int], name: str) -> NDArray[np.uint8]:
    """Pixels (h, w, 3) of a picture that covers `size` = (h, w) and is cropped at its centre.

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
