"""Aspect buckets: shapes of about one area, and for each picture the one that crops it least. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache

from datasets_cache.picture import Size
from spectra.errors import UserError

WIDEST = 2
"""Largest ratio of the sides of a bucket."""


@cache
def bucket_shapes(area: int, step: int) -> tuple[Size, ...]:
    """Shapes (h, w) of at most `area` pixels, from the tallest to the widest.

    Sides are multiples of `step`, and their ratio is between 1:2 and 2:1. Of these only the ones are kept that cannot
    grow on either side, so that no picture is shrunk more than the area asks for.

    Raises:
        UserError: no shape fits, as `step` is larger than the side of a square of `area`.
    """
    most = int((area * WIDEST) ** 0.5) // step + 1

    def fits(high: int, wide: int) -> bool:
        return high * wide * step**2 <= area and max(high, wide) <= WIDEST * min(high, wide)

    found = [
        (high * step, wide * step)
        for high in range(1, most + 1)
        for wide in range(1, most + 1)
        if fits(high, wide) and not fits(high + 1, wide) and not fits(high, wide + 1)
    ]
    if not found:
        side = int(area**0.5)
        raise UserError(
            f"no bucket with sides in steps of {step} pixels fits a resolution of {side}; "
            f"choose a bucket_step of at most {side}, or a larger resolution"
        )
    return tuple(sorted(found, key=lambda shape: (shape[1] / shape[0], shape)))


def crop_loss(size: Size, shape: Size) -> float:
    """Share of a picture's area that is cropped away where it is resized to cover a shape."""
    ratio = size[0] * shape[1] / (size[1] * shape[0])
    return 1 - min(ratio, 1 / ratio)


def bucket_of(size: Size, shapes: Sequence[Size]) -> Size:
    """The shape that crops a picture of `size` = (h, w) least; of equal ones the largest."""
    return min(shapes, key=lambda shape: (round(crop_loss(size, shape), 12), -shape[0] * shape[1]))


def table(sizes: Sequence[Size], shapes: Sequence[Size]) -> list[tuple[Size, int, float]]:
    """Shape, number of pictures and mean crop loss of each bucket in use, the fullest first.

    Args:
        sizes: of the pictures.
        shapes: the bucket of each.
    """
    counts = Counter(shapes)
    losses = Counter[Size]()
    for size, shape in zip(sizes, shapes, strict=True):
        losses[shape] += crop_loss(size, shape)  # type: ignore[assignment]
    return [(shape, count, float(losses[shape]) / count) for shape, count in counts.most_common()]
