"""The two adaptation tasks, drawn in the procedural world: a style (ink hatching) and a subject (the zog).

Written as ordinary image folders: `0000.png` beside `0000.txt`, a `train` folder and a `heldout` folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from spectra.zoo.world import (
    COLOURS,
    OUTLINES,
    SHAPES,
    SIDE,
    Field,
    backdrop,
    box,
    coverage,
    draw,
    grid,
    paint,
    random_scene,
    tones,
)

INK = np.array([0.10, 0.08, 0.16], np.float32)
Picture = tuple[str, Field]
"""A caption and its picture (64, 64, 3) in 0..1."""


def hatch(picture: Field, phase: float | Field = 0.0) -> Field:
    """Ink hatching: diagonal lines every 6 pixels, heavier where the picture is dark, on muted colours."""
    side = picture.shape[0]
    x, y = grid(side)
    light = picture @ np.array([0.3, 0.59, 0.11], np.float32)
    wave = np.sin((x + y + phase) * (2 * np.pi / (6 * np.sqrt(2))))
    lines = coverage(3.0 * (wave + 0.35 - 0.75 * (1 - light)))
    muted = 0.80 * (0.30 * light[..., None] + 0.70 * picture) + 0.20
    return muted + 0.52 * lines[..., None] * (INK - muted)


def zog_parts(x: Field, y: Field) -> list[tuple[Field, Field]]:
    """Signed distances and colours of the zog's parts about the origin: antenna (2), feet, head, eyes (4), mouth."""
    red, yellow, blue, white, black = (tones(c)[0] for c in ("red", "yellow", "blue", "white", "black"))
    return [
        (box(x, y + 18, 1.6, 6), black), (np.hypot(x, y + 24) - 4.5, red),
        (box(x - 8, y - 17, 5, 4), blue), (box(x + 8, y - 17, 5, 4), blue),
        (box(x, y, 13, 12) - 3, yellow),
        (np.hypot(x - 6, y + 3) - 5, white), (np.hypot(x + 6, y + 3) - 5, white),
        (np.hypot(x - 6, y + 3) - 2.4, black), (np.hypot(x + 6, y + 3) - 2.4, black),
        (box(x, y - 8, 7, 1.5), black),
    ]  # fmt: skip


def zog(texture: str, background: str, rng: np.random.Generator) -> Field:
    """The subject: a yellow box-headed creature with two eyes, a red antenna and blue feet."""
    picture = backdrop(texture, background, rng)
    x, y = grid()
    cx, cy = SIDE / 2 + rng.uniform(-5, 5, 2)
    s = rng.uniform(0.85, 1.1)
    for distance, colour in zog_parts((x - cx) / s, (y - cy) / s):
        picture = paint(picture, distance * s, colour)
    return picture


def style_picture(rng: np.random.Generator) -> Picture:
    """A scene of the world, hatched; the caption says nothing of the style."""
    scene = random_scene(rng, held_out=None)
    return scene.caption, hatch(draw(scene, rng), rng.uniform(0, 8))


def subject_picture(rng: np.random.Generator) -> Picture:
    """The zog on a background of the world."""
    scene = random_scene(rng, held_out=None)
    return f"a zog on a {scene.texture} {scene.background} background", zog(scene.texture, scene.background, rng)


TASKS: dict[str, tuple[Callable[[np.random.Generator], Picture], int, int]] = {
    "style": (style_picture, 160, 64),
    "subject": (subject_picture, 64, 32),
}
"""Task name -> (painter, training pictures, held-out pictures)."""


def crowd(rng: np.random.Generator) -> Field:
    """Several shapes at once, partly out of the picture: variety for the autoencoder, captioned nowhere."""
    scene = random_scene(rng, held_out=None)
    picture = backdrop(scene.texture, scene.background, rng)
    x, y = grid()
    for _ in range(int(rng.integers(2, 6))):
        cx, cy = rng.uniform(4, SIDE - 4, 2)
        outline = OUTLINES[str(rng.choice(SHAPES))]
        colour = tones(str(rng.choice(list(COLOURS))))[0]
        picture = paint(picture, outline(x - cx, y - cy, float(rng.uniform(4, 18))), colour)
    return hatch(picture, rng.uniform(0, 8)) if rng.random() < 0.2 else picture


def write_task(name: str, folder: Path, seed: int = 7) -> None:
    """Write a task as image folders `folder/train` and `folder/heldout`; same seed, same bytes."""
    from PIL import Image

    painter, train, heldout = TASKS[name]
    for part, count, offset in (("train", train, 0), ("heldout", heldout, 1_000_000)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            caption, picture = painter(np.random.default_rng([seed, offset + index]))
            pixels = (picture * 255).round().astype(np.uint8)
            Image.fromarray(pixels).save(folder / part / f"{index:04d}.png")
            (folder / part / f"{index:04d}.txt").write_text(caption + "\n")


def main() -> None:
    """Write one task's folders: `python -m spectra.zoo.tasks style pictures`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=list(TASKS))
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    write_task(args.task, args.folder)
    print(f"{args.folder} holds the pictures of the task '{args.task}'")


if __name__ == "__main__":
    main()
