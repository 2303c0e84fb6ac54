"""What is measured of pictures and of denoisers: features, attributes, errors on the validation grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from adapt.calling import call_of
from adapt.config import TrainConfig
from adapt.evaluation.attaching import Attached
from adapt.evaluation.references import References
from adapt.evaluation.store import Growing, Row
from adapt.methods import METHODS
from adapt.octaves import BANDS, stills
from adapt.task import Task, objective_for
from adapt.validate import Grid, Validation, levels_of, make_grid, numbers, validate
from spectra.families import family_of

if TYPE_CHECKING:
    from adapt.export import ScheduledLoras
    from adapt.networks import Network

STEP = 64
"""Pictures in memory at once."""
Fixed = dict[str, tuple[tuple[str, ...], Any]]
Tick = Callable[[int], None]


@dataclass(frozen=True)
class Bench:
    """Held-out pictures and the cells on which every adapter's error is measured."""

    task: Task
    grid: Grid

    @classmethod
    def of(cls, pipe: Any, config: TrainConfig, references: References, model_hash: str) -> Bench | None:
        """A task without training, around a pipeline as it is; None without held-out pictures."""
        held = references.heldout
        if held is None:
            return None
        objective = objective_for(config, pipe, held.shapes[0])
        task = Task(
            config, pipe, family_of(pipe).denoiser(pipe), call_of(pipe), model_hash, objective, METHODS["lora"], [],
            None, train=held, heldout=held,
        )  # fmt: skip
        return cls(task, make_grid(task))

    def facts(self) -> dict[str, int]:
        """Sizes of the grid."""
        levels, samples, draws = self.grid.shape
        return {"pictures": samples, "draws": draws, "levels": levels, "bands": BANDS}

    def fixed(self) -> Fixed:
        """Coordinates of the levels."""
        return dict(levels_of(self.task, self.grid))

    def growing(self) -> dict[str, Growing]:
        """Errors of each adapter."""
        dims, shape = ("level", "heldout", "draw"), self.grid.shape
        return {"validation_error": Growing(dims, shape), "band_error": Growing((*dims, "band"), (*shape, BANDS))}

    def measure(self, row: Row, pipe: Any, on: Attached) -> None:
        """Errors of the pipeline's denoiser with what is on it; captions are read anew where that changes them."""
        config = self.task.config.model_copy(update={"text_encoder": on.reads_otherwise})
        task = replace(self.task, denoiser=family_of(pipe).denoiser(pipe), config=config)
        found = validate(task, self.grid) if on.player is None else played(task, self.grid, on.player)
        row.put("validation_error", numbers(found.error))
        row.put("band_error", numbers(found.band_error))


def played(task: Task, grid: Grid, player: ScheduledLoras) -> Validation:
    """As `validate`, one level after another, each with the weights that the player sets at its log-SNR."""
    found = []
    for level, log_snr in enumerate(levels_of(task, grid)["log_snr"][1].tolist()):
        player.play(task.pipe, log_snr)
        found.append(validate(task, replace(grid, timesteps=grid.timesteps[level : level + 1])))
    return Validation(torch.cat([one.error for one in found]), None, torch.cat([one.band_error for one in found]))


def captions_of(prompts: Sequence[str], model: str) -> list[str]:
    """What the bundled reader hears of each prompt: of a bundled model every word, else captions of its world alone.

    A bundled model draws nothing but that world, so there a prompt counts for whatever it names.
    """
    from adapt.networks import bundled
    from spectra.zoo import reader

    every = bundled.fits(model, (reader.SIDE, reader.SIDE))
    return [prompt if every or reader.of_world(prompt) else "" for prompt in prompts]


def attributes_of(captions: Sequence[str], size: tuple[int, int]) -> list[str]:
    """What the bundled reader is asked about: all its attributes, where some captions name one; else none."""
    from spectra.zoo import reader

    asked = reader.reads(size) and any(reader.parse(caption) for caption in captions)
    return list(reader.ATTRIBUTES) if asked else []


def right(images: NDArray[np.uint8], captions: Sequence[str]) -> NDArray[np.float32]:
    """(n, attribute) 1 or 0 by the reader; NaN where a caption does not name it."""
    from spectra.zoo import reader

    found = reader.agreement(images, captions)
    return np.stack([found[name] for name in reader.ATTRIBUTES], axis=-1).astype(np.float32)


def look(row: Row, networks: Sequence[Network], captions: Sequence[str], attributes: bool, tick: Tick) -> None:
    """Features and attributes of the pictures that a row holds, some at a time."""
    for start in range(0, len(captions) if networks or attributes else 0, STEP):
        images = row.get("image", start, start + STEP)
        if attributes:
            row.put("attribute_right", right(images, captions[start : start + STEP]), start)
        for network in networks:
            row.put(f"feature_{network.name}", network.pictures(images), start)
            tick(len(images))


def features_of(data: Any, network: Network, tick: Tick) -> NDArray[np.float32]:
    """Features (n, dims) of the pictures of a data set, some at a time."""
    parts = []
    for start in range(0, len(data), STEP):
        rows = range(start, min(start + STEP, len(data)))
        parts.append(network.pictures(stills(np.stack([data.picture(row) for row in rows]))))
        tick(len(rows))
    return np.concatenate(parts)
