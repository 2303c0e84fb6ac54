"""Prior preservation (DreamBooth; Ruiz et al., 2208.12242): a subject's class is learned beside the subject.

Each step has as many class pictures as subject pictures, each under its own caption and with noise of its own, and

    loss = mean over the subject's samples + class_weight * mean over the class's samples.

The class pictures are given by the person, or drawn once by the base model and kept in the cache.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adapt.config import TrainConfig
from adapt.draws import Draws, draw, rows_of
from datasets_cache import store
from datasets_cache.encoding import CachedData
from spectra.errors import UserError

if TYPE_CHECKING:
    from adapt.task import Task

Progress = Callable[[str, int, int], None]
CHUNK = 8
"""Pictures drawn at once."""
_SEEDS = 1 << 40
"""Added to a run's seed for the draws of the class."""


def class_draws(task: Task, data: CachedData, draws: Draws) -> Draws:
    """What chance decides of the class's samples of a step: one for each of `draws`, of the same latent shape.

    A function of seed, step and the sample's place in the whole batch, so that processes share a batch as one would
    make it.
    """
    shape = task.train.shapes[draws.rows[0]]
    rows = _of_shape(data, shape)
    seed, step = draws.key
    whole = draw(seed + _SEEDS, step, task.config.batch, len(rows), shape, task.config.caption_dropout)
    mine = whole.take(draws.place.tolist())
    return replace(mine, rows=[rows[place] for place in mine.rows])


def class_rows(task: Task, data: CachedData, shape: tuple[int, ...], step: int) -> list[int]:
    """The class pictures of a whole step whose subjects have latents of a shape: those that `class_draws` has."""
    rows = _of_shape(data, shape)
    return [rows[place] for place in rows_of(task.config.seed + _SEEDS, step, task.config.batch, len(rows))]


def _of_shape(data: CachedData, shape: tuple[int, ...]) -> list[int]:
    return [row for row, found in enumerate(data.shapes) if found == shape]


def class_data_of(config: TrainConfig, pipe: Any, progress: Progress) -> CachedData | None:
    """The encoded class pictures of a run, or None where the configuration asks for none.

    Args:
        pipe: the base, without an adapter.
        progress: called with `draw` and `encode`.

    Raises:
        UserError: class pictures that cannot be read, or a model that cannot draw them.
    """
    from adapt.task import load_one

    if config.class_data is None and config.class_caption is None:
        return None
    source = config.class_data or str(drawn_class(config, pipe, progress))
    data = load_one(config, source, config.class_caption, pipe, progress)
    if config.class_data is not None:
        return data
    return data.take(sorted(range(len(data)), key=lambda row: data.paths[row])[: config.class_count])


def check_shapes(train: CachedData, classes: CachedData | None) -> None:
    """UserError unless there is a class picture of each latent shape of the subject's pictures."""
    lacking = [] if classes is None else sorted(set(train.shapes) - set(classes.shapes))
    if lacking:
        raise UserError(
            f"no class picture has the latent shape {lacking[0]} of {train.paths[train.shapes.index(lacking[0])]}: "
            "add class pictures of that shape, or turn buckets off"
        )


def drawn_class(config: TrainConfig, pipe: Any, progress: Progress) -> Path:
    """The folder of `class_count` pictures by the base model at seeds 0, 1 ..., with captions; those there are kept.

    The folder belongs to model, scheduler, caption, steps, guidance and resolution, so that runs share it and an
    interrupted drawing goes on.
    """
    assert config.class_caption is not None
    folder = class_folder(config, pipe)
    folder.mkdir(parents=True, exist_ok=True)
    missing = not_drawn(config, pipe)
    for start in range(0, len(missing), CHUNK):
        chosen = missing[start : start + CHUNK]
        for seed, picture in zip(chosen, _draw(config, pipe, chosen), strict=True):
            _keep(_path(folder, seed), picture, config.class_caption)
        progress("draw", config.class_count - len(missing) + start + len(chosen), config.class_count)
    return folder


def class_folder(config: TrainConfig, pipe: Any) -> Path:
    """Where the class pictures of a run are, or will be drawn."""
    return Path(config.cache or store.cache_directory()) / "class" / _key(config, pipe)


def not_drawn(config: TrainConfig, pipe: Any) -> list[int]:
    """Seeds of the class pictures that still have to be drawn."""
    folder = class_folder(config, pipe)
    return [seed for seed in range(config.class_count) if not _path(folder, seed).with_suffix(".txt").exists()]


def check_draws(pipe: Any) -> None:
    """UserError for a model that cannot draw pictures of a class."""
    from datasets_cache.families import encoding_family

    if encoding_family(pipe).video:
        raise UserError(f"a {type(pipe).__name__} draws no pictures of the class; give them as class_data")


def _key(config: TrainConfig, pipe: Any) -> str:
    from spectra.models import call_defaults, model_hash

    scheduler = pipe.scheduler
    known = [
        model_hash(pipe), type(scheduler).__name__, dict(scheduler.config), dict(call_defaults(pipe)),
        config.class_caption, config.sample_steps, config.guidance, config.resolution,
    ]  # fmt: skip
    return sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()


def _draw(config: TrainConfig, pipe: Any, seeds: list[int]) -> NDArray[np.uint8]:
    """Pictures (n, h, w, 3) by the pipeline as it is, of the size that the run trains at."""
    from adapt.generating import generate, pictures, sizes_of_run

    assert config.class_caption is not None
    check_draws(pipe)
    prompts, sizes = [config.class_caption] * len(seeds), sizes_of_run(pipe, config.record())
    return pictures(
        pipe, generate(pipe, prompts, seeds, steps=config.sample_steps, guidance=config.guidance, sizes=sizes)
    )  # fmt: skip


def _keep(path: Path, picture: NDArray[np.uint8], caption: str) -> None:
    """Write a picture, then its caption, each whole or not at all: the caption says that the picture is there."""
    _write(path, lambda file: Image.fromarray(picture).save(file, format="PNG"))
    _write(path.with_suffix(".txt"), lambda file: file.write(f"{caption}\n".encode()))


def _write(path: Path, fill: Callable[[Any], object]) -> None:
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-", delete=False) as file:
            fill(file)
        os.replace(file.name, path)
    except OSError as error:
        raise UserError(f"cannot write to {path.parent}: {error.strerror or error}") from error


def _path(folder: Path, seed: int) -> Path:
    return folder / f"{seed:05d}.png"
