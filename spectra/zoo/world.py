"""A small procedural world with captions: one shape on a textured background, 64 x 64 pixels.

The bundled models are trained on it, the two adaptation tasks are made from it, and the attribute
reader is taught by it. Everything is drawn from signed distances (negative inside, in pixels), so an
edge is one pixel soft, and every picture is a function of `(seed, index)` alone: no downloads, no files.

Backgrounds carry the frequencies on purpose: `gradient` is the lowest there is, `plain` has none, and
`striped`, `checkered`, `dotted` repeat every 8 to 12 pixels (2 to 3 latent pixels).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating[Any]]
"""A picture-sized array: signed distances, masks (h, w) or colours in 0..1 (h, w, 3)."""

SIDE = 64
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (208, 40, 44), "orange": (240, 138, 36), "yellow": (246, 220, 72), "green": (52, 150, 74),
    "blue": (44, 92, 204), "purple": (128, 58, 170), "white": (244, 244, 240), "black": (26, 26, 30),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
SIZES = ("small", "large")
TEXTURES = ("plain", "gradient", "striped", "checkered", "dotted")
RADIUS = {"small": 13.0, "large": 21.0}
HELD_OUT_ONE_IN = 8


@dataclass(frozen=True)
class Scene:
    """What a caption says of a picture: five attributes."""

    size: str
    colour: str
    shape: str
    texture: str
    background: str

    @property
    def caption(self) -> str:
        """The full caption, every attribute named once."""
        return f"a {self.size} {self.colour} {self.shape} on a {self.texture} {self.background} background"

    @property
    def held_out(self) -> bool:
        """True for one combination in eight, never shown in training (the size is not counted)."""
        key = f"{self.colour} {self.shape} {self.texture} {self.background}"
        return crc32(key.encode()) % HELD_OUT_ONE_IN == 0


def random_scene(rng: np.random.Generator, held_out: bool | None = False) -> Scene:
    """Draw a scene uniformly; `held_out` asks for seen (False), unseen (True) or any (None) combinations."""
    while True:
        colour, background = rng.choice(list(COLOURS), size=2, replace=False)
        scene = Scene(
            str(rng.choice(SIZES)), str(colour), str(rng.choice(SHAPES)), str(rng.choice(TEXTURES)), str(background)
        )
        if held_out is None or scene.held_out == held_out:
            return scene


def loose_caption(scene: Scene, rng: np.random.Generator) -> str:
    """A caption as people write them: mostly complete, sometimes the size or the background is left out."""
    draw = rng.random()
    if draw < 0.08:
        return f"a {scene.colour} {scene.shape} on a {scene.texture} {scene.background} background"
    if draw < 0.14:
        return f"a {scene.size} {scene.colour} {scene.shape}"
    if draw < 0.20:
        return f"a {scene.colour} {scene.shape} on a {scene.background} background"
    return scene.caption


def grid(side: int = SIDE) -> tuple[Field, Field]:
    """Pixel centres (x to the right, y downwards), each (side, side), in pixels of a 64-pixel picture."""
    at = (np.arange(side, dtype=np.float32) + 0.5) * (SIDE / side)
    x, y = np.meshgrid(at, at)
    return x, y


def polygon(x: Field, y: Field, corners: NDArray[np.float32]) -> Field:
    """Signed distance to a closed polygon with `corners` (n, 2): nearest edge, sign by crossing parity."""
    distance = np.full(x.shape, np.inf, np.float32)
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        ex, ey = bx - ax, by - ay
        along = np.clip(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0, 1)
        distance = np.minimum(distance, np.hypot(x - ax - along * ex, y - ay - along * ey))
        crosses = (ay > y) != (by > y)
        inside ^= crosses & (x < ax + (y - ay) * ex / (ey if ey else 1))
    return np.where(inside, -distance, distance).astype(np.float32)


def box(x: Field, y: Field, half_width: float, half_height: float) -> Field:
    """Signed distance to an upright rectangle about the origin."""
    qx, qy = np.abs(x) - half_width, np.abs(y) - half_height
    outside = np.hypot(np.maximum(qx, 0), np.maximum(qy, 0))
    return np.asarray(outside + np.minimum(np.maximum(qx, qy), 0), np.float32)


def _corners(angles: NDArray[np.float32], radii: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.stack([radii * np.sin(angles), -radii * np.cos(angles)], axis=1)


def _triangle(x: Field, y: Field, r: float) -> Field:
    angles = np.arange(3, dtype=np.float32) * (2 * np.pi / 3)
    return polygon(x, y - 0.18 * r, _corners(angles, np.full(3, 1.12 * r, np.float32)))


def _star(x: Field, y: Field, r: float) -> Field:
    angles = np.arange(10, dtype=np.float32) * (np.pi / 5)
    return polygon(x, y, _corners(angles, np.where(np.arange(10) % 2, 0.46 * r, 1.12 * r).astype(np.float32)))


OUTLINES: dict[str, Callable[[Field, Field, float], Field]] = {
    "circle": lambda x, y, r: np.hypot(x, y) - r,
    "square": lambda x, y, r: box(x, y, 0.86 * r, 0.86 * r),
    "triangle": _triangle,
    "star": _star,
    "ring": lambda x, y, r: np.abs(np.hypot(x, y) - 0.72 * r) - 0.28 * r,
    "cross": lambda x, y, r: np.minimum(box(x, y, r, 0.34 * r), box(x, y, 0.34 * r, r)),
}


def coverage(distance: Field) -> Field:
    """How much of a pixel lies inside (0..1): a one-pixel ramp over the edge."""
    covered: Field = np.clip(0.5 - distance, 0, 1)
    return covered


def tones(colour: str) -> tuple[Field, Field]:
    """A colour and its second tone: the same hue nearer to black, or nearer to white where it is dark."""
    first = np.array(COLOURS[colour], np.float32) / 255
    dark = first @ np.array([0.3, 0.59, 0.11], np.float32) < 0.35
    return first, first + (0.42 if dark else -0.36) * (1 - first if dark else first)


def _stripes(x: Field, y: Field, rng: np.random.Generator) -> Field:
    return coverage(4.0 * np.sin((y + rng.uniform(0, 12)) * (2 * np.pi / 12)))


def _checks(x: Field, y: Field, rng: np.random.Generator) -> Field:
    dx, dy = rng.uniform(0, 16, 2)
    return coverage(5.0 * np.sin((x + dx) * (np.pi / 8)) * np.sin((y + dy) * (np.pi / 8)))


def _dots(x: Field, y: Field, rng: np.random.Generator) -> Field:
    dx, dy = rng.uniform(0, 10, 2)
    return coverage(np.hypot((x + dx) % 10 - 5, (y + dy) % 10 - 5) - 2.6)


WEIGHTS: dict[str, Callable[[Field, Field, np.random.Generator], Field]] = {
    "plain": lambda x, y, rng: np.zeros_like(x),
    "gradient": lambda x, y, rng: 1.15 * y / SIDE,
    "striped": _stripes,
    "checkered": _checks,
    "dotted": _dots,
}
"""How much of the second tone each background has at a pixel."""


def backdrop(texture: str, colour: str, rng: np.random.Generator, side: int = SIDE) -> Field:
    """A background (side, side, 3) in 0..1."""
    x, y = grid(side)
    first, second = tones(colour)
    return np.clip(first + WEIGHTS[texture](x, y, rng)[..., None] * (second - first), 0, 1)


def paint(picture: Field, distance: Field, colour: Field) -> Field:
    """Lay one flat-coloured region over a picture."""
    mask = coverage(distance)[..., None]
    return picture * (1 - mask) + colour * mask


def draw(scene: Scene, rng: np.random.Generator, side: int = SIDE) -> Field:
    """Render a scene (side, side, 3) in 0..1; position (+-4 px), size (+-6 %) and colour (+-3 %) vary."""
    picture = backdrop(scene.texture, scene.background, rng, side)
    x, y = grid(side)
    cx, cy = SIDE / 2 + rng.uniform(-4, 4, 2)
    radius = RADIUS[scene.size] * rng.uniform(0.94, 1.06)
    colour = np.clip(tones(scene.colour)[0] + rng.normal(0, 0.02, 3), 0, 1).astype(np.float32)
    return paint(picture, OUTLINES[scene.shape](x - cx, y - cy, radius), colour)


def scene_at(seed: int, index: int, held_out: bool | None = False) -> tuple[Scene, Field]:
    """The `index`-th picture of stream `seed` with its scene; equal arguments give equal pixels."""
    rng = np.random.default_rng([seed, index])
    scene = random_scene(rng, held_out)
    return scene, draw(scene, rng)
