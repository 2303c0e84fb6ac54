"""The attribute reader: a small network that says what a picture of the procedural world shows.

It was trained on drawn pictures only, never on samples, and is the bundled models' measure of text control.
It is not CLIP and its accuracy is not a CLIP score. Weights: `weights/reader.safetensors`, made by
`python -m spectra.zoo.recipes.reader`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from spectra.zoo import world

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "size": world.SIZES,
    "colour": tuple(world.COLOURS),
    "shape": world.SHAPES,
    "texture": world.TEXTURES,
    "background": tuple(world.COLOURS),
}
WEIGHTS = Path(__file__).parent / "weights" / "reader.safetensors"
SIDE = 64
"""Height and width of the pictures that it reads."""


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.SiLU())


class Reader(nn.Module):
    """Pictures (batch, 3, 64, 64) in -1..1 -> logits of all attributes side by side (batch, 29)."""

    def __init__(self) -> None:
        super().__init__()
        widths = ((3, 24, 1), (24, 32, 2), (32, 48, 2), (48, 64, 2), (64, 64, 1), (64, 64, 2))
        self.body = nn.Sequential(*(_stage(*width) for width in widths), nn.Flatten())
        self.head = nn.Linear(64 * 4 * 4, sum(map(len, ATTRIBUTES.values())))

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits (batch, 29)."""
        return torch.as_tensor(self.head(self.body(pictures)))

    def features(self, pictures: Tensor) -> Tensor:
        """Flattened last feature map (batch, 1024)."""
        return torch.as_tensor(self.body(pictures))


def split_logits(logits: Tensor) -> dict[str, Tensor]:
    """Logits (batch, 29) -> attribute -> (batch, values)."""
    parts = logits.split([len(values) for values in ATTRIBUTES.values()], dim=-1)
    return dict(zip(ATTRIBUTES, parts, strict=True))


@cache
def load() -> Reader:
    """The shipped reader, ready to read."""
    reader = Reader()
    reader.load_state_dict({name: value.float() for name, value in load_file(WEIGHTS).items()})
    return reader.eval().requires_grad_(False)


@torch.inference_mode()
def read(pictures: NDArray[np.uint8], batch: int = 64) -> dict[str, list[str]]:
    """What pictures (n, 64, 64, 3) uint8 show: attribute -> n values."""
    pixels = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    logits = split_logits(torch.cat([load()(part) for part in pixels.split(batch)]))
    return {name: [ATTRIBUTES[name][i] for i in part.argmax(-1)] for name, part in logits.items()}


def parse(caption: str) -> dict[str, str]:
    """The attributes that a caption of the world names; words it does not know are left out.

    The first colour is the shape's, the one before `background` is the background's.
    """
    words = caption.lower().replace(",", " ").split()
    named: dict[str, str] = {}
    for word, following in zip(words, [*words, ""][1:], strict=True):
        if word in world.COLOURS:
            named.setdefault("background" if following == "background" else "colour", word)
        for attribute in ("size", "shape", "texture"):
            if word in ATTRIBUTES[attribute]:
                named[attribute] = word
    return named


def reads(size: tuple[int, ...]) -> bool:
    """Whether the shipped reader reads pictures of this height and width."""
    return size == (SIDE, SIDE) and WEIGHTS.exists()


def of_world(caption: str) -> bool:
    """Whether a caption speaks of the procedural world: all of its captions name a texture and a background."""
    return {"texture", "background"} <= parse(caption).keys()


def agreement(pictures: NDArray[np.uint8], captions: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Per attribute: 1 where the picture shows what its caption names, 0 where not, NaN where it names nothing."""
    seen, asked = read(pictures), [parse(caption) for caption in captions]
    return {
        attribute: np.array(
            [
                float(value == want[attribute]) if attribute in want else np.nan
                for value, want in zip(values, asked, strict=True)
            ]
        )
        for attribute, values in seen.items()
    }
