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
from torch import Tensor

from adapt.task import Progress, Task, silent
from datasets_cache import store
from datasets_cache.encoding import read_bytes
from datasets_cache.families import decode_latents, native_size
from datasets_cache.picture import decode
from spectra.bands import FilterBank, radial_spectrum, radii
from spectra.models import call_defaults
from spectra.prompts import quiet_cuts
from spectra.recording.provenance import versions

SOURCES = ("base", "adapter", "reference")
BANDS = 4
CHUNK = 8
"""Pictures generated at once."""


def evaluate(task: Task, progress: Progress = silent) -> xr.Dataset:
    """Generate for held-out captions with the pipeline itself, with and without the adapter.

    Returns image(source, sample, y, x, rgb) uint8, and of the final latents energy(source, sample, channel, band) and
    spectrum(source, sample, radius); the reference is the held-out picture of the caption and its encoding.
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

    settings: dict[str, Any] = {"steps": task.config.sample_steps, "guidance": task.config.guidance}
    base = _base_latents(task, prompts, seeds, settings, tick)
    adapted = generate(task.pipe, prompts, seeds, **settings, tick=tick)
    latents = torch.stack([base, adapted, task.heldout.latents(rows)])
    drawn = [pictures(task.pipe, one) for one in (base, adapted)]
    held = [task.heldout.paths[row] for row in rows]
    real = np.stack([decode(read_bytes(path), native_size(task.pipe), str(path)) for path in held])
    return _labelled(latents, np.stack([*drawn, real]), prompts, seeds)


def generate(
    pipe: Any,
    prompts: list[str],
    seeds: list[int],
    *,
    steps: int,
    guidance: float,
    tick: Any = None,
    batch: int = CHUNK,
) -> Tensor:
    """Final latents (n, c, h, w) float32 of the pipeline for prompts and seeds of equal number.

    The initial noise of a sample belongs to its seed alone.
    """
    parts: list[Tensor] = []
    for start in range(0, len(prompts), batch):
        chosen = slice(start, start + batch)
        noise = [torch.Generator().manual_seed(seed) for seed in seeds[chosen]]
        with quiet_cuts():
            made = pipe(
                prompt=prompts[chosen], generator=noise, num_inference_steps=steps, guidance_scale=guidance,
                output_type="latent", **call_defaults(pipe),
            ).images  # fmt: skip
        parts.append(made.float().cpu())
        if tick:
            tick(len(made))
    return torch.cat(parts)


def pictures(pipe: Any, latents: Tensor) -> NDArray[np.uint8]:
    """Decoded pictures (n, h, w, 3) uint8."""
    decoded = torch.cat([decode_latents(pipe, part).cpu() for part in latents.split(CHUNK)])
    return (decoded * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def _samples(task: Task) -> tuple[list[int], list[int]]:
    """Held-out rows and seeds, one pair a sample: every seed for every caption."""
    count = min(task.config.sample_prompts, len(task.heldout))
    pairs = [(row, seed) for row in range(count) for seed in task.config.sample_seeds]
    return [row for row, _ in pairs], [seed for _, seed in pairs]


def _base_latents(task: Task, prompts: list[str], seeds: list[int], settings: dict[str, Any], tick: Any) -> Tensor:
    """The base's latents, kept in the cache: runs on one model and data set share them."""
    known = [task.model_hash, type(task.pipe.scheduler).__name__, dict(task.pipe.scheduler.config), versions(),
             str(task.device.type), CHUNK, prompts, seeds, settings]  # fmt: skip
    key = sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()
    path = store.entry(Path(task.config.cache or store.cache_directory()), "samples", key)
    found = store.read(path)
    if found is not None:
        tick(len(prompts))
        return torch.from_numpy(found["latents"])
    with task.method.base(task.denoiser):
        made = generate(task.pipe, prompts, seeds, **settings, tick=tick)
    store.write(path, {"latents": made.numpy()})
    return made


def _labelled(latents: Tensor, images: NDArray[np.uint8], prompts: list[str], seeds: list[int]) -> xr.Dataset:
    """Measure latents (source, sample, c, h, w) and put everything under names."""
    height, width = latents.shape[-2:]
    bank = FilterBank.octaves(BANDS, (height, width))
    bins = min(height, width)
    data: dict[str, Any] = {
        "image": (("source", "sample", "y", "x", "rgb"), images),
        "energy": (("source", "sample", "channel", "band"), bank.energies(latents).numpy()),
        "spectrum": (("source", "sample", "radius"), radial_spectrum(latents, bins).sum(2).numpy()),
    }
    right = attributes_right(images, prompts)
    if right:
        data["attribute_right"] = (("source", "sample", "attribute"), np.stack(list(right.values()), axis=-1))
    coords = {
        "source": _text(SOURCES),
        "prompt": ("sample", _text(prompts)),
        "seed": ("sample", np.array(seeds)),
        "radius": radii(bins, height, width),
        **{name: ("band", np.array(getattr(bank, name))) for name in ("scale_low", "scale_high", "frequency")},
    }
    named = xr.Dataset(
        data, coords=coords, attrs={"bank": json.dumps(bank.to_dict()), "grid": json.dumps([height, width])}
    )
    return named.assign_coords(attribute=_text(right)) if right else named


def attributes_right(images: NDArray[np.uint8], prompts: list[str]) -> dict[str, NDArray[np.float32]]:
    """Attribute -> (source, sample) 1 or 0 by the bundled reader, NaN where a caption does not name it.

    Empty where the reader does not apply: it reads 64 x 64 pictures of the procedural world, whose captions all speak
    of a textured background.
    """
    from spectra.zoo import reader

    if images.shape[2:4] != (64, 64) or not reader.WEIGHTS.exists():
        return {}
    if not all({"texture", "background"} <= reader.parse(prompt).keys() for prompt in prompts):
        return {}
    scores = [reader.agreement(arm, prompts) for arm in images]
    return {name: np.stack([one[name] for one in scores]).astype(np.float32) for name in scores[0]}


def _text(words: Any) -> NDArray[Any]:
    """Words as zarr keeps them: strings of any length."""
    return np.array([str(word) for word in words], dtype=np.dtypes.StringDType())
