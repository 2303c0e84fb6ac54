"""After training: pictures by the base and by the adapter at the same prompts and seeds, beside the held-out ones."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from adapt import x0_steps
from adapt.generating import CHUNK, animates, generate, pictures
from adapt.methods.text_encoders import base_encoders
from adapt.octaves import coordinates, measured, octaves, stills
from adapt.task import Progress, Task, silent
from datasets_cache import store
from datasets_cache.families import call_sizes
from spectra.errors import UserError
from spectra.recording.provenance import versions

SOURCES = ("base", "adapter", "reference")

__all__ = ["attributes_right", "evaluate", "generate", "pictures"]


def evaluate(task: Task, progress: Progress = silent) -> xr.Dataset:
    """Generate for held-out captions with the pipeline itself, with and without the adapter.

    Returns image(source, sample, y, x, rgb) uint8, and of the final latents energy(source, sample, channel, band) and
    spectrum(source, sample, radius); the reference is the held-out picture of the caption and its encoding. Clips are
    video(source, sample, frame, y, x, rgb), of which `image` is the middle frame; energies are means over frames.
    Of the first sample also x0_image and x0_energy (`adapt.x0_steps`), by base and adapter; where a model does not tell
    x0, the attribute `x0_left_out` says why.
    Deterministic for equal weights on one kind of machine.
    """
    rows, seeds = _samples(task)
    prompts = [task.heldout.captions[row] for row in rows]
    task.denoiser.eval()
    done, total = 0, 2 * len(rows)

    def tick(count: int) -> None:
        nonlocal done
        done += count
        progress("sample", done, total)

    held = np.stack([task.heldout.picture(row) for row in rows])
    settings: dict[str, Any] = {
        "steps": task.config.sample_steps, "guidance": task.config.guidance,
        "sizes": call_sizes(task.pipe, task.heldout.shapes[rows[0]]),
    }  # fmt: skip
    images = [Image.fromarray(clip[0]) for clip in held] if animates(task.pipe) else None
    pictured = [task.heldout.keys[row] for row in rows] if images else []
    base = _base_latents(task, prompts, seeds, settings, images, pictured, tick)
    adapted = generate(task.pipe, prompts, seeds, **settings, images=images, tick=tick)
    latents = torch.stack([base, adapted, task.heldout.latents(rows)])
    drawn = [pictures(task.pipe, one) for one in (base, adapted)]
    named = _labelled(latents, np.stack([*drawn, held.reshape(drawn[0].shape)]), prompts, seeds)
    first = {"prompt": prompts[0], "seed": seeds[0], "image": images[0] if images else None, **settings}
    return _with_x0(task, named, first, pictured[:1])


def _samples(task: Task) -> tuple[list[int], list[int]]:
    """Held-out rows of one shape, the most frequent, and seeds, one pair a sample: every seed for every caption."""
    shapes = task.heldout.shapes
    shape = max(shapes, key=shapes.count)
    rows = [row for row in range(len(shapes)) if shapes[row] == shape][: task.config.sample_prompts]
    pairs = [(row, seed) for row in rows for seed in task.config.sample_seeds]
    return [row for row, _ in pairs], [seed for _, seed in pairs]


def _base_latents(
    task: Task,
    prompts: list[str],
    seeds: list[int],
    settings: dict[str, Any],
    images: list[Image.Image] | None,
    pictured: list[str],
    tick: Any,
) -> Tensor:
    """The base's latents, kept in the cache: runs on one model and data set share them."""
    path = _entry(task, [CHUNK, prompts, seeds, settings, pictured])
    found = store.read(path)
    if found is not None:
        tick(len(prompts))
        return torch.from_numpy(found["latents"])
    with task.method.base(task.denoiser), base_encoders(task.pipe):
        made = generate(task.pipe, prompts, seeds, **settings, images=images, tick=tick)
    store.write(path, {"latents": made.numpy()})
    return made


def _entry(task: Task, known: list[Any]) -> Path:
    """Where the cache keeps what the base made of what is `known`."""
    scheduler = task.pipe.scheduler
    every = [task.model_hash, type(scheduler).__name__, dict(scheduler.config), versions(), str(task.device.type)]
    key = sha256(json.dumps([*every, *known], sort_keys=True, default=str).encode()).hexdigest()
    return store.entry(Path(task.config.cache or store.cache_directory()), "samples", key)


def _with_x0(task: Task, named: xr.Dataset, first: dict[str, Any], pictured: list[str]) -> xr.Dataset:
    """Add what base and adapter foresee of the first sample, or why they tell nothing."""
    try:
        base = _base_x0(task, first, pictured)
        adapter = x0_steps.foresee(task.pipe, **first)
    except UserError as error:
        return named.assign_attrs(x0_left_out=str(error))
    return named.merge(x0_steps.labelled(task.pipe, {"base": base, "adapter": adapter}))


def _base_x0(task: Task, first: dict[str, Any], pictured: list[str]) -> x0_steps.Foreseen:
    """What the base foresees, kept in the cache like its pictures."""
    told = {name: value for name, value in first.items() if name != "image"}
    path = _entry(task, ["x0", x0_steps.COUNT, told, pictured])
    found = store.read(path)
    if found is None:
        with task.method.base(task.denoiser), base_encoders(task.pipe):
            made = x0_steps.foresee(task.pipe, **first)
        found = {name: value.numpy() for name, value in vars(made).items()}
        store.write(path, found)
    return x0_steps.Foreseen(**{name: torch.from_numpy(value) for name, value in found.items()})


def _labelled(latents: Tensor, images: NDArray[np.uint8], prompts: list[str], seeds: list[int]) -> xr.Dataset:
    """Measure latents (source, sample, c, [t], h, w) and put everything under names."""
    seen, found = stills(images, lead=2), measured(latents, lead=2)
    data: dict[str, Any] = {
        "image": (("source", "sample", "y", "x", "rgb"), seen),
        "energy": (("source", "sample", "channel", "band"), found["energy"]),
        "spectrum": (("source", "sample", "radius"), found["spectrum"]),
    }
    if images.ndim == 6 and images.shape[2] > 1:
        data["video"] = (("source", "sample", "frame", "y", "x", "rgb"), images)
    right = attributes_right(seen, prompts)
    if right:
        data["attribute_right"] = (("source", "sample", "attribute"), np.stack(list(right.values()), axis=-1))
    coords = {
        "source": _text(SOURCES),
        "prompt": ("sample", _text(prompts)),
        "seed": ("sample", np.array(seeds)),
        **coordinates(latents),
    }
    notes = {"bank": json.dumps(octaves(latents).to_dict()), "grid": json.dumps(list(latents.shape[-2:]))}
    named = xr.Dataset(data, coords=coords, attrs=notes)
    return named.assign_coords(attribute=_text(right)) if right else named


def attributes_right(images: NDArray[np.uint8], prompts: list[str]) -> dict[str, NDArray[np.float32]]:
    """Attribute -> (source, sample) 1 or 0 by the bundled reader, NaN where a caption does not name it.

    Empty where the reader does not apply: it reads 64 x 64 pictures of the procedural world, whose captions all speak
    of a textured background.
    """
    from spectra.zoo import reader

    if not reader.reads(images.shape[2:4]) or not all(reader.of_world(prompt) for prompt in prompts):
        return {}
    scores = [reader.agreement(arm, prompts) for arm in images]
    return {name: np.stack([one[name] for one in scores]).astype(np.float32) for name in scores[0]}


def _text(words: Any) -> NDArray[Any]:
    """Words as zarr keeps them: strings of any length."""
    return np.array([str(word) for word in words], dtype=np.dtypes.StringDType())
