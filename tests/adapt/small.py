"""Small data sets and short runs for the tests of training."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
from PIL import Image

from adapt.config import TrainConfig
from adapt.loop import RunResult, train
from tests.tiny import tiny_sd3_folder, tiny_sd_folder


def write_pictures(folder: Path, count: int, seed: int = 0, size: tuple[int, int] = (64, 64)) -> Path:
    """`count` coloured ramps with captions."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        ramp = np.linspace(rng.uniform(0, 255, 3), rng.uniform(0, 255, 3), size[0]).astype(np.uint8)
        Image.fromarray(np.repeat(ramp[:, None], size[1], axis=1)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"ramp {seed} {i}\n")
    return folder


@cache
def data() -> Path:
    """A folder with `train` (6 pictures) and `heldout` (4)."""
    folder = Path(mkdtemp()) / "data"
    write_pictures(folder / "train", 6, seed=0)
    write_pictures(folder / "heldout", 4, seed=1)
    return folder


@cache
def model(family: str) -> Path:
    """The folder of a tiny model, `sd` or `sd3`."""
    made = {"sd": tiny_sd_folder, "sd3": tiny_sd3_folder}[family]
    return made(Path(mkdtemp()) / family)


@cache
def encodings() -> Path:
    """A cache folder that the tests share."""
    return Path(mkdtemp()) / "cache"


def config(out: Path, family: str = "sd", **changes: Any) -> TrainConfig:
    """A configuration of four short steps."""
    settings: dict[str, Any] = {
        "model": str(model(family)), "data": data() / "train", "out": out, "method": "lora", "steps": 4, "batch": 3,
        "eval_samples": 2, "eval_levels": 3, "eval_every": 2, "sample_prompts": 2, "sample_steps": 2, "threads": 1,
        "cache": encodings(),
    }  # fmt: skip
    return TrainConfig(**(settings | changes))


@cache
def finished(method: str, family: str = "sd") -> RunResult:
    """A finished run, trained once for all tests that only look at it."""
    return train(config(Path(mkdtemp()) / f"{family}-{method}", family, method=method))
