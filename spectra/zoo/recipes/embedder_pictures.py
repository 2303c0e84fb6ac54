"""What the world embedder learns from: drawn pictures with labels, ways to spoil them, and harmless changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from spectra.zoo import tasks, world
from spectra.zoo.reader import ATTRIBUTES
from spectra.zoo.world import Field

KINDS = ("scene", "zog", "broken", "crowd")
SHARES = (0.45, 0.20, 0.22, 0.13)
STYLES = ("none", "hatched", "mirrored", "fine", "coarse", "muted")
STYLED = {"scene": 0.6, "zog": 0.2, "broken": 0.15, "crowd": 0.3}
"""Share of the pictures of a kind that have a style."""
PARTS: dict[str, tuple[int, ...]] = {
    "antenna": (0, 1), "feet": (2, 3), "head": (4,), "eyes": (5, 6, 7, 8), "mouth": (9,),
}  # fmt: skip
"""The zog's parts as indices into `tasks.zog_parts`."""
PERIOD = 6 * np.sqrt(2)
"""Of the hatching, along x or y (pixels)."""
UNKNOWN = -100
"""The label that cross entropy leaves out."""
WORST = {"blur": 2.5, "noise": 0.35, "ghost": 0.6}
"""Standard deviation of a Gaussian blur (pixels) and of noise (of pixels in -1..1), weight of another picture."""


@dataclass(frozen=True)
class Drawing:
    """A picture (64, 64, 3) in 0..1 and what is true of it."""

    picture: Field
    kind: str
    style: str
    strength: float
    parts: tuple[float, ...]
    attributes: tuple[int, ...]


def styled(picture: Field, style: str, rng: np.random.Generator) -> Field:
    """A picture in one of STYLES: the task's hatching, its near misses, or its colours without lines."""
    x, y = world.grid()
    offset = rng.uniform(0, PERIOD)
    # What `hatch` adds to x + y: -2x turns the lines, a multiple of x + y changes their distance, and where the
    # sum is a quarter of a period everywhere no line is drawn at all.
    phases: dict[str, float | Field] = {
        "hatched": offset,
        "mirrored": offset - 2 * x,
        "fine": offset + 0.6 * (x + y),
        "coarse": offset - 0.45 * (x + y),
        "muted": PERIOD / 4 - (x + y),
    }
    return picture if style == "none" else tasks.hatch(picture, phases[style])


def broken_zog(texture: str, background: str, wrong: int, rng: np.random.Generator) -> tuple[Field, tuple[float, ...]]:
    """A zog of which `wrong` of the five parts are missing or of another colour, and which parts are right (5,)."""
    names = list(PARTS)
    spoilt = {names[i] for i in rng.choice(len(names), wrong, replace=False)}
    picture = world.backdrop(texture, background, rng)
    x, y = world.grid()
    cx, cy = world.SIDE / 2 + rng.uniform(-5, 5, 2)
    s = rng.uniform(0.85, 1.1)
    shapes = tasks.zog_parts((x - cx) / s, (y - cy) / s)
    for name, indices in PARTS.items():
        missing = name in spoilt and rng.random() < 0.5
        other = world.tones(str(rng.choice(["green", "purple", "orange", "black"])))[0]
        for index in () if missing else indices:
            distance, colour = shapes[index]
            picture = world.paint(picture, distance * s, other if name in spoilt else colour)
    return picture, tuple(float(name not in spoilt) for name in names)


def drawn(kind: str, style: str, rng: np.random.Generator, wrong: int | None = None) -> Drawing:
    """One picture of a kind in a style; `wrong` parts of a broken zog are 1 to 5 unless given."""
    scene = world.random_scene(rng, held_out=None)
    labels = [ATTRIBUTES[name].index(getattr(scene, name)) for name in ATTRIBUTES]
    none, every = (0.0,) * len(PARTS), (1.0,) * len(PARTS)
    if kind == "scene":
        picture, parts = world.draw(scene, rng), none
    elif kind == "crowd":
        picture, parts, labels = plain_crowd(rng), none, [UNKNOWN] * len(labels)
    else:
        labels[:3] = [UNKNOWN] * 3
        if kind == "zog":
            picture, parts = tasks.zog(scene.texture, scene.background, rng), every
        else:
            count = wrong or int(rng.integers(1, len(PARTS) + 1))
            picture, parts = broken_zog(scene.texture, scene.background, count, rng)
    return Drawing(styled(picture, style, rng), kind, style, float(style != "none"), parts, tuple(labels))


def plain_crowd(rng: np.random.Generator) -> Field:
    """Two to five shapes at once, partly out of the picture, never hatched."""
    scene = world.random_scene(rng, held_out=None)
    picture = world.backdrop(scene.texture, scene.background, rng)
    x, y = world.grid()
    for _ in range(int(rng.integers(2, 6))):
        cx, cy = rng.uniform(4, world.SIDE - 4, 2)
        outline = world.OUTLINES[str(rng.choice(world.SHAPES))]
        colour = world.tones(str(rng.choice(list(world.COLOURS))))[0]
        picture = world.paint(picture, outline(x - cx, y - cy, float(rng.uniform(4, 18))), colour)
    return picture


def example(seed: int, index: int) -> Drawing:
    """The `index`-th training picture of stream `seed`; a style may be there in part (strength 0.3 to 1)."""
    rng = np.random.default_rng([seed, index])
    kind = str(rng.choice(KINDS, p=SHARES))
    if rng.random() >= STYLED[kind]:
        return drawn(kind, "none", rng)
    plain = drawn(kind, "none", rng)
    style = str(rng.choice(STYLES[1:], p=(0.4, 0.15, 0.15, 0.15, 0.15)))
    strength = float(1 if rng.random() < 0.6 else rng.uniform(0.3, 1))
    mixed = plain.picture + strength * (styled(plain.picture, style, rng) - plain.picture)
    return Drawing(mixed, kind, style, strength, plain.parts, plain.attributes)


def to_pixels(pictures: list[Field]) -> NDArray[np.uint8]:
    """Pictures in 0..1 -> (n, 64, 64, 3) uint8."""
    return (np.stack(pictures) * 255).round().astype(np.uint8)


def as_input(pixels: NDArray[np.uint8]) -> Tensor:
    """Pixels (n, 64, 64, 3) uint8 -> (n, 3, 64, 64) in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def blur(pictures: Tensor, sd: Tensor) -> Tensor:
    """Gaussian blur of every picture (batch, 3, h, w) with its own standard deviation (batch,) in pixels."""
    batch, channels, height, width = pictures.shape
    at = torch.arange(-7, 8, dtype=pictures.dtype)
    taps = torch.exp(-0.5 * (at / sd.clamp_min(1e-3)[:, None]) ** 2)
    taps = (taps / taps.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    rows = F.pad(pictures.reshape(1, -1, height, width), (7, 7, 7, 7), mode="reflect")
    across = F.conv2d(rows, taps[:, None, None, :], groups=batch * channels)
    return F.conv2d(across, taps[:, None, :, None], groups=batch * channels).reshape(pictures.shape)


def ghost(pictures: Tensor, weight: Tensor) -> Tensor:
    """Every picture mixed with its neighbour in the batch, as between two samples; `weight` (batch,) of the other."""
    return torch.lerp(pictures, pictures.roll(1, 0), weight[:, None, None, None])


def spoil(pictures: Tensor, levels: Tensor, rng: torch.Generator) -> Tensor:
    """Blur, noise and ghosts at `levels` (batch, 3), shares of WORST."""
    blurs, noises, ghosts = (levels * torch.tensor(list(WORST.values()))).unbind(1)
    soft = blur(ghost(pictures, ghosts), blurs)
    return soft + noises[:, None, None, None] * torch.randn(pictures.shape, generator=rng)


def random_levels(count: int, rng: torch.Generator) -> Tensor:
    """Shares of WORST (count, 3): half of the pictures are clean, the others spoilt in one to three ways."""
    levels = torch.rand(count, len(WORST), generator=rng) ** 1.5
    here = torch.rand(count, len(WORST), generator=rng) < 0.5
    return levels * here * (torch.rand(count, 1, generator=rng) < 0.5)


def view(pictures: Tensor, rng: torch.Generator, reach: int = 3) -> Tensor:
    """The same pictures to a person: moved by up to `reach` pixels, tinted by some 3 %, a trace of noise."""
    count, _, height, width = pictures.shape
    padded = F.pad(pictures, (reach,) * 4, mode="reflect")
    moves = torch.randint(2 * reach + 1, (count, 2), generator=rng).tolist()
    moved = torch.stack([one[:, i : i + height, j : j + width] for one, (i, j) in zip(padded, moves, strict=True)])
    gain = 1 + 0.03 * torch.randn(count, 3, 1, 1, generator=rng)
    tint = 0.03 * torch.randn(count, 3, 1, 1, generator=rng)
    return moved * gain + tint + 0.01 * torch.randn(pictures.shape, generator=rng)
