"""Pictures as data URIs: small ones lossless and pixel for pixel, large ones reduced to WebP."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reports.arms import Arm

PIXELATED_TO = 96
LARGEST = 256
BUDGET = 1_700_000
"""Bytes of embedded pictures; rows beyond it are left out, and the report says so."""


@dataclass(frozen=True)
class Picture:
    """One embedded picture."""

    label: str
    alt: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Row:
    """The pictures of one prompt and sampling seed."""

    prompt: str
    seed: int
    pictures: tuple[Picture, ...]


def encode(pixels: NDArray[np.uint8]) -> tuple[str, int, int]:
    """A data URI of pixels (y, x, 3), and the size of the picture in it."""
    image = Image.fromarray(np.ascontiguousarray(pixels), "RGB")
    buffer = io.BytesIO()
    if max(image.size) <= PIXELATED_TO:
        image.save(buffer, "PNG", optimize=True)
        kind = "png"
    else:
        image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
        image.save(buffer, "WEBP", quality=82, method=6)
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", *image.size


def columns(arms: Sequence[Arm]) -> list[tuple[str, Arm, str]]:
    """Label, arm and source of every column: held-out, base, then each arm's first training seed."""
    first = arms[0]
    heads = [("held-out", first, "reference"), ("base model", first, "base")]
    return heads + [(arm.label, arm, "adapter") for arm in arms]


def rows_of(arms: Sequence[Arm], most: int = 8) -> list[Row]:
    """The first prompts with all their pictures, as many as the budget allows."""
    store = arms[0].runs[0].evaluation
    made: list[Row] = []
    spent = 0
    for i in range(min(most, store.sizes["sample"])):
        prompt, seed = str(store.prompt.values[i]), int(store.seed.values[i])
        pictures = []
        for label, arm, source in columns(arms):
            pixels = arm.runs[0].evaluation.image.sel(source=source).isel(sample=i).values
            pictures.append(Picture(label, f"{label}: {prompt}", *encode(pixels)))
        spent += sum(len(picture.uri) for picture in pictures)
        if made and spent > BUDGET:
            break
        made.append(Row(prompt, seed, tuple(pictures)))
    return made
