"""Small data sets of pictures and of clips, with captions."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
from PIL import Image

SIDE, COUNT = 64, 3


@cache
def pictures() -> Path:
    """A folder with `train` and `heldout`, of captioned pictures."""
    return _folders(1)


@cache
def clips(frames: int) -> Path:
    """The same with animated pictures of so many frames."""
    return _folders(frames)


def _folders(frames: int) -> Path:
    root = Path(mkdtemp())
    for seed, part in enumerate(("train", "heldout")):
        (root / part).mkdir()
        for number in range(COUNT):
            _write(root / part / f"{number}.png", np.random.default_rng([seed, number]), frames)
    return root


def _write(path: Path, chance: np.random.Generator, frames: int) -> None:
    """A ramp of colours that moves, and its caption."""
    ramp = np.linspace(chance.uniform(0, 255, 3), chance.uniform(0, 255, 3), SIDE).astype(np.uint8)
    whole = np.repeat(ramp[:, None], SIDE, axis=1)
    first, *rest = (Image.fromarray(np.roll(whole, 8 * step, axis=0)) for step in range(frames))
    moving: dict[str, Any] = {"save_all": True, "append_images": rest, "duration": 100} if rest else {}
    first.save(path, **moving)
    path.with_suffix(".txt").write_text(f"ramp {path.stem}")
