"""Pictures as data URIs within a budget: small ones pixel for pixel, large ones reduced to a stated size."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reports.arms import Arm
from reports.figures import as_number
from reports.panels.keys import style_key
from reports.panels.predictions import prediction_energies
from reports.sections import Key, Panel
from reports.statistics import Array

Pixels = NDArray[np.uint8]
PIXELATED_TO = 96
"""Up to this size a picture is kept as it is and drawn pixel by pixel."""
LARGEST = 256
SIZES = (LARGEST, 192, 128)
"""Longer sides to which large pictures are reduced: the first at which a group keeps to its budget."""
FEW_COLOURS = 4096
"""Only pictures of at most so many colours may be smaller as PNG than as WebP."""
BUDGET = 1_100_000
"""Bytes of embedded pictures of a gallery; rows beyond it are left out, and the report says so."""
FEW_BYTES = 450_000
"""The same for the step scrubber, which drops steps, and for neighbours."""


@dataclass(frozen=True)
class Picture:
    """One embedded picture; `original` is its size (width, height) before it was reduced."""

    label: str
    alt: str
    uri: str
    width: int
    height: int
    original: tuple[int, int]

    @property
    def pixelated(self) -> bool:
        """True where the page draws it pixel by pixel."""
        return max(self.original) <= PIXELATED_TO

    @property
    def reduced(self) -> bool:
        """True where the picture was made smaller."""
        return self.original != (self.width, self.height)


@dataclass(frozen=True)
class Row:
    """The pictures of one prompt and sampling seed."""

    prompt: str
    seed: int
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Frames:
    """What one model predicts: a picture and band energies, as numbers to read, at each step."""

    label: str
    pictures: tuple[Picture, ...]
    energies: str
    """JSON of text (step, band)."""


@dataclass(frozen=True)
class Scrubber:
    """Predictions of x0 of several models from one prompt and seed, and their band energies as a figure."""

    name: str
    prompt: str
    seed: int
    heads: tuple[str, ...]
    steps: str
    """JSON: what the slider says at each step."""
    places: str
    """JSON: where in the figure each step is."""
    sources: tuple[Frames, ...]
    panel: Panel
    keys: tuple[Key, ...]


@dataclass(frozen=True)
class Neighbour:
    """A generated picture and the training picture nearest to it."""

    label: str
    prompt: str
    generated: Picture
    nearest: Picture
    caption: str
    distance: str


def encoded(image: Image.Image, kind: str, **how: object) -> tuple[bytes, str]:
    """The bytes of an image file and its kind."""
    buffer = io.BytesIO()
    image.save(buffer, kind.upper(), **how)
    return buffer.getvalue(), kind


def encode(pixels: Pixels, largest: int = LARGEST) -> tuple[str, int, int]:
    """A data URI of pixels (y, x, 3), and the size of the picture in it: of the formats that fit, the smallest file."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if max(image.size) > PIXELATED_TO:
        image.thumbnail((largest, largest), Image.Resampling.LANCZOS)
        found = [encoded(image, "webp", quality=80, method=4)]
        if image.getcolors(FEW_COLOURS) is not None:
            found.append(encoded(image, "png", optimize=True))
    else:
        found = [encoded(image, "webp", lossless=True, method=4, exact=True), encoded(image, "png", optimize=True)]
    data, kind = min(found, key=lambda one: len(one[0]))
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}", *image.size


def picture(label: str, alt: str, pixels: Pixels, largest: int = LARGEST) -> Picture:
    """One picture (y, x, 3) for the page."""
    return Picture(label, alt, *encode(pixels, largest), (pixels.shape[1], pixels.shape[0]))


def bytes_of(pictures: Sequence[Picture]) -> int:
    """What pictures add to the page."""
    return sum(len(one.uri) for one in pictures)


def rows(
    columns: Sequence[tuple[str, Pixels]], prompts: Sequence[str], seeds: Sequence[int], most: int = 8,
    budget: int = BUDGET,
) -> list[Row]:  # fmt: skip
    """The first prompts with the pictures (sample, y, x, 3) of every column, at the largest size that fits.

    At the smallest size, rows beyond the budget are left out; there is always one.
    """
    count = min(most, len(prompts))
    small = max(columns[0][1].shape[1:3]) <= PIXELATED_TO
    for largest in SIZES:
        made: list[Row] = []
        spent = 0
        while len(made) < count and spent <= budget:
            made.append(row_of(columns, len(made), prompts, seeds, largest))
            spent += bytes_of(made[-1].pictures)
        if spent <= budget or small:
            break
    return made if spent <= budget else made[: max(1, len(made) - 1)]


def row_of(
    columns: Sequence[tuple[str, Pixels]], i: int, prompts: Sequence[str], seeds: Sequence[int], largest: int
) -> Row:
    """The pictures of all columns at place `i`."""
    shown = [picture(label, f"{label}: {prompts[i]}", pixels[i], largest) for label, pixels in columns]
    return Row(prompts[i], int(seeds[i]), tuple(shown))


def columns(arms: Sequence[Arm]) -> list[tuple[str, Pixels]]:
    """Label and pictures of every column: held-out, base, then each arm's first training seed."""
    first = arms[0].runs[0].evaluation
    heads = [(label, first.image.sel(source=key)) for label, key in (("held-out", "reference"), ("base model", "base"))]
    heads += [(arm.label, arm.runs[0].evaluation.image.sel(source="adapter")) for arm in arms]
    return [(label, image.transpose("sample", "y", "x", "rgb").values) for label, image in heads]


def scrubber(
    name: str, sources: Sequence[tuple[str, int, Pixels, Array]], steps: Sequence[int], noise_levels: Sequence[float],
    prompt: str, seed: int, budget: int = FEW_BYTES,
) -> Scrubber:  # fmt: skip
    """Predictions of x0: label, style, pictures (step, y, x, 3) and band energies (step, band) of every model.

    Reduced until all pictures keep to the budget; at the smallest size every second step is left out, and so on.
    """
    for largest, every in ((LARGEST, 1), (192, 1), (128, 1), (128, 2), (128, 3), (128, 5)):
        kept = sorted({*range(len(steps) - 1, -1, -every)})
        shown = [[said(label, steps[i], prompt, pixels[i], largest) for i in kept] for label, _, pixels, _ in sources]
        if sum(bytes_of(pictures) for pictures in shown) <= budget:
            break
    heads = tuple(f"step {steps[i]}, noise level {as_number(noise_levels[i])}" for i in kept)
    energies = [np.asarray(energy, np.float64)[kept] for *_, energy in sources]
    frames = [
        Frames(source[0], tuple(pictures), json.dumps([[as_number(e) for e in row] for row in energy]))
        for source, pictures, energy in zip(sources, shown, energies, strict=True)
    ]
    lines = [(label, style, energy) for (label, style, *_), energy in zip(sources, energies, strict=True)]
    keys = tuple(style_key(label, style) for label, style, *_ in sources)
    panel, places = prediction_energies(f"{name}-energies", lines, [steps[i] for i in kept])
    return Scrubber(name, prompt, seed, heads, json.dumps(heads), json.dumps(places), tuple(frames), panel, keys)


def said(label: str, step: int, prompt: str, pixels: Pixels, largest: int) -> Picture:
    """A predicted picture whose words say the model and the step."""
    return picture(label, f"{label} at step {step}: {prompt}", pixels, largest)


def neighbours(
    found: Sequence[tuple[str, str, Pixels, Pixels, str, float]], most: int = 6, budget: int = FEW_BYTES
) -> list[Neighbour]:
    """Label, prompt, generated and nearest training picture (y, x, 3), its caption, their distance; closest first."""
    made: list[Neighbour] = []
    spent = 0
    for label, prompt, generated, training, caption, distance in sorted(found, key=lambda one: one[-1])[:most]:
        pair = (
            picture("generated", f"generated by {label}: {prompt}", generated, SIZES[-1]),
            picture("nearest training picture", f"training picture: {caption}", training, SIZES[-1]),
        )
        spent += bytes_of(pair)
        if made and spent > budget:
            break
        made.append(Neighbour(label, prompt, *pair, caption, as_number(distance)))
    return made
