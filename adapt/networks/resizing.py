"""Pictures to the size that a network sees, by Pillow, and the words that say how."""

from __future__ import annotations

from typing import Any

import numpy as np

from adapt.networks.network import Pictures

ROUNDED = "uint8 in; the resized picture is rounded to uint8"
BICUBIC = (
    "PIL bicubic, antialiased, shorter side to {0}, centre crop {0} x {0}; pictures of {0} x {0} are left as they are"
)


def to_square(images: Pictures, side: int) -> Pictures:
    """Pictures (n, h, w, 3) -> (n, side, side, 3) as BICUBIC says; sides and margins of half a pixel round down."""
    from PIL import Image

    height, width = images.shape[1:3]
    if (height, width) == (side, side):
        return images
    short = min(height, width)
    tall, wide = side * height // short, side * width // short
    top, left = (tall - side) // 2, (wide - side) // 2
    whole = (Image.fromarray(image).resize((wide, tall), Image.Resampling.BICUBIC) for image in images)
    return np.stack([np.asarray(one.crop((left, top, left + side, top + side))) for one in whole])


def describe(processor: Any) -> str:
    """What an image processor of transformers does to a picture, in words."""
    from PIL import Image

    said = []
    if processor.do_resize:
        kind = Image.Resampling(processor.resample)
        smooth = ", not antialiased" if kind is Image.Resampling.NEAREST else ", antialiased"
        said.append(f"PIL {kind.name.lower()}{smooth}, {_extent(processor.size)}")
    if getattr(processor, "do_center_crop", False):
        said.append(f"centre crop {processor.crop_size['height']} x {processor.crop_size['width']}")
    if processor.do_normalize:
        mean, spread = (", ".join(map(str, values)) for values in (processor.image_mean, processor.image_std))
        said.append(f"mean ({mean}), sd ({spread})")
    return ", ".join(said) or "pictures are left as they are"


def _extent(size: Any) -> str:
    if size["shortest_edge"] and not size["longest_edge"]:
        return f"shorter side to {size['shortest_edge']}"
    if size["height"] and size["width"]:
        return f"to {size['height']} x {size['width']}"
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in dict(size).items() if value)
