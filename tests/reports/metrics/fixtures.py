"""A synthetic evaluation with known effects, in the format that `adapt evaluate` writes.

Adapter k has a strength: 0 is the base, 1 draws the references' style in full. By default the first two adapters are
equally strong (no difference is true), the others are weaker. A strength moves everything at once:

    validation error   the base's times 1 - 0.3 strength, for each held-out picture and draw, times noise of 2 %
    features           content of the prompt + 1.5 strength along one direction (the references are at strength 1)
    unrelated part     drifts by a fifth of that; pictures and attributes with it
    pictures           hatched by `strength`; energies and spectra are those of the pictures
    attributes         wrong in 10 % of the cells of the base, in 10 + 15 strength % of the adapters'

`copies` of an adapter's features can be set to training pictures: those are memorised.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from spectra.bands import FilterBank, radii
from spectra.zoo.tasks import hatch
from spectra.zoo.world import scene_at
from tests.reports.fixtures import BANDS, HASH, NOISE, SCALES, VERSIONS, band_energies, latents, radial_spectrum, text

DIMS = 8
BANK = FilterBank(SCALES)
KINDS = ("fera", "lora", "dora", "ia3", "loha", "lokr")
HOSTILE = (
    "<script>document.title='owned'</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }} {% raw %}",
    "</style><style>*{display:none}", "javascript:alert(1)", "a\u202eb & <b>bold</b> \u0000 'quote\"",
)  # fmt: skip
NETWORK = {
    "name": "world", "what": "small feature network of the bundled world", "source": "bundled", "sha256": "5d41" * 16,
    "size": 64, "resize": "none: pictures are 64 x 64", "quantisation": "uint8 in", "dims": DIMS, "reads_text": True,
}  # fmt: skip


def strengths(adapters: int) -> tuple[float, ...]:
    """Of the base and the adapters: 0, 1, 1, then weaker and weaker."""
    return (0.0, 1.0, 1.0, *(0.8 ** (k + 1) for k in range(adapters)))[: adapters + 1]


@cache
def scene(index: int) -> tuple[str, np.ndarray]:
    """A caption and its picture in 0..1; do not change it."""
    found, made = scene_at(3, index)
    return found.caption, made


@cache
def styled(index: int) -> np.ndarray:
    """The same picture in the style of the references; do not change it."""
    return np.asarray(hatch(scene(index)[1], 2.0))


def picture(index: int, strength: float, rng: np.random.Generator) -> np.ndarray:
    """A picture (64, 64, 3) uint8 worn to some strength, with a little noise of its own."""
    mixed = strength * styled(index) + (1 - strength) * scene(index)[1] + rng.normal(0, 0.01, (64, 64, 3))
    return np.asarray((np.clip(mixed, 0, 1) * 255).round(), np.uint8)


def content(indices: np.ndarray) -> np.ndarray:
    """What features say of the contents of prompts, (n, DIMS)."""
    return np.stack([np.random.default_rng([2, i]).normal(0, 1, DIMS) for i in indices])


def direction() -> np.ndarray:
    """The direction of the style, (DIMS,), of length 1."""
    return np.asarray(np.eye(DIMS)[0])


def features(indices: np.ndarray, strength: float | np.ndarray, seed: int) -> np.ndarray:
    """Features (n, DIMS) float32 of pictures of prompts; noise is shared by equal seeds, as pairs share theirs."""
    noise = np.random.default_rng([seed, 3]).normal(0, 0.5, (len(indices), DIMS))
    moved = np.multiply.outer(np.broadcast_to(strength, len(indices)), 1.5 * direction())
    return np.asarray(3.0 + content(indices) + moved + noise, np.float32)


def evaluation(
    adapters: int = 3,
    prompts: int = 8,
    seeds: int = 2,
    unrelated: int = 4,
    heldout: int = 24,
    train: int = 12,
    levels: int = 4,
    draws: int = 2,
    strength: Sequence[float] | None = None,
    jitter: float = 0.02,
    copies: int = 0,
    networks: Sequence[str] = ("world",),
    references: bool = True,
    validation: bool = True,
    attributes: bool = True,
    hostile: bool = False,
    own_captions: bool = False,
    seed: int = 0,
) -> xr.Dataset:
    """A finished evaluation of the base and `adapters` adapters; parts can be left out.

    `copies` samples of the last adapter have the features of training pictures, almost. `jitter` is the noise of
    validation errors and of features between adapters. With `own_captions` the references are pictures of the prompts.
    """
    amounts = tuple(strength) if strength is not None else strengths(adapters)
    rng = np.random.default_rng([seed, 1])
    index = np.repeat(np.arange(prompts + unrelated), seeds)
    asked = index < prompts
    data: dict[str, Any] = _drawn(index, asked, amounts, rng)
    coords = _labels(index, asked, seeds, len(amounts), prompts, unrelated, hostile, seed)
    data["status"] = ("adapter", np.ones(len(amounts), np.uint8))
    if attributes:
        data |= _attributes(asked, amounts, rng)
        coords["attribute"] = text("shape", "colour", "background")
    for name in networks:
        data |= _features(name, index, asked, amounts, jitter, rng)
    if validation:
        data |= _validation(amounts, levels, heldout, draws, jitter, rng)
        coords |= {"noise_level": ("level", NOISE[:levels]), "log_snr": ("level", -2 * np.log(NOISE[:levels]))}
    if references:
        data |= _references(heldout, train, networks, hostile, 0 if own_captions else 100)
    if copies:
        for name in networks:
            made, kept = data[f"feature_{name}"][1], data[f"reference_feature_{name}"][1]
            made[-1, :copies] = kept[heldout : heldout + copies] * 1.0001
    return xr.Dataset(data, coords, {"format": 1, "protocol": json.dumps(_protocol(coords, networks, references))})


def write_evaluation(path: Path, dataset: xr.Dataset) -> Path:
    """Write an evaluation as EVAL.zarr, with its protocol in the attributes of the root."""
    dataset.to_zarr(path, mode="w", consolidated=False)
    return path


def _drawn(
    index: np.ndarray, asked: np.ndarray, amounts: tuple[float, ...], rng: np.random.Generator
) -> dict[str, Any]:
    worn = np.where(asked, 1.0, 0.2)
    images = np.stack([
        np.stack([picture(int(i), s * w, rng) for i, w in zip(index, worn, strict=True)]) for s in amounts
    ])  # fmt: skip
    fields = [latents(made / 255) for made in images]
    return {
        "image": (("adapter", "sample", "y", "x", "rgb"), images),
        "energy": (("adapter", "sample", "channel", "band"), _stack(band_energies, fields)),
        "spectrum": (("adapter", "sample", "radius"), _stack(radial_spectrum, fields)),
    }


def _stack(measure: Any, fields: list[np.ndarray]) -> np.ndarray:
    return np.stack([measure(x) for x in fields]).astype(np.float32)


def _labels(
    index: np.ndarray, asked: np.ndarray, seeds: int, size: int, prompts: int, unrelated: int, hostile: bool, seed: int
) -> dict[str, Any]:
    said = [scene(int(i))[0] for i in range(prompts + unrelated)]
    labels = ["base", *(f"{KINDS[k % len(KINDS)]}-{k}" for k in range(size - 1))]
    if hostile:
        said = [f"{HOSTILE[i % len(HOSTILE)]} {i}" for i in range(len(said))]
        labels[1:] = [f"{HOSTILE[i % len(HOSTILE)]} {label}" for i, label in enumerate(labels[1:])]
    kinds = ["base", *(KINDS[k % len(KINDS)] for k in range(size - 1))]
    return {
        "adapter": text(*labels), "kind": ("adapter", text(*kinds)),
        "path": ("adapter", text("", *(f"runs/{label}/adapter" for label in labels[1:]))),
        "digest": ("adapter", text("", *(f"{k + 1:064x}" for k in range(size - 1)))),
        "prompt": ("sample", text(*(said[i] for i in index))),
        "seed": ("sample", np.tile(np.arange(seeds), prompts + unrelated) + 100 * seed),
        "part": ("sample", text(*np.where(asked, "asked", "unrelated"))),
        "radius": radii(16, 16, 16),
        **{name: ("band", np.array(getattr(BANK, name))) for name in ("scale_low", "scale_high", "frequency")},
    }  # fmt: skip


def _attributes(asked: np.ndarray, amounts: tuple[float, ...], rng: np.random.Generator) -> dict[str, Any]:
    shared, own = rng.random((len(asked), 3)), rng.random((len(amounts), len(asked), 3))
    luck = np.where(rng.random(own.shape) < 0.3, own, shared)
    right = np.stack([part > 0.1 + 0.15 * s for part, s in zip(luck, amounts, strict=True)]).astype(np.float32)
    right[:, 0, 2] = np.nan  # the first caption names no background
    return {"attribute_right": (("adapter", "sample", "attribute"), right)}


def _features(
    name: str, index: np.ndarray, asked: np.ndarray, amounts: tuple[float, ...], jitter: float, rng: np.random.Generator
) -> dict[str, Any]:
    made = [features(index, np.where(asked, s, 0.2 * s), 1) for s in amounts]
    own = [x + (k > 0) * rng.normal(0, 10 * jitter, x.shape).astype(np.float32) for k, x in enumerate(made)]
    return {
        f"feature_{name}": (("adapter", "sample", f"dim_{name}"), np.stack(own)),
        f"text_{name}": (("sample", f"dim_{name}"), (3.0 + content(index)).astype(np.float32)),
    }


def _validation(
    amounts: tuple[float, ...], levels: int, heldout: int, draws: int, jitter: float, rng: np.random.Generator
) -> dict[str, Any]:
    shape = (levels, heldout, draws)
    base = np.linspace(0.35, 1.4, levels)[:, None, None] * np.random.default_rng(11).lognormal(0, 0.25, shape)
    errors = np.stack([base * (1 - 0.3 * s) * rng.lognormal(0, jitter * (s > 0), shape) for s in amounts])
    parts = np.array([0.4, 0.3, 0.2, 0.1]) * np.random.default_rng(12).lognormal(0, 0.1, (*shape, BANDS))
    dims = ("adapter", "level", "heldout", "draw")
    return {"validation_error": (dims, errors), "band_error": ((*dims, "band"), errors[..., None] * parts)}


def _references(heldout: int, train: int, networks: Sequence[str], hostile: bool, first: int) -> dict[str, Any]:
    index = first + np.arange(heldout + train)
    rng = np.random.default_rng(6)
    images = np.stack([picture(int(i), 1.0, rng) for i in index])
    field = latents(images / 255)
    captions = [scene(int(i))[0] for i in index]
    if hostile:
        captions = [f"{HOSTILE[i % len(HOSTILE)]} {i}" for i in range(len(captions))]
    data: dict[str, Any] = {
        "reference_image": (("reference", "y", "x", "rgb"), images),
        "reference_caption": ("reference", text(*captions)),
        "reference_part": ("reference", text(*["heldout"] * heldout, *["train"] * train)),
        "reference_energy": (("reference", "channel", "band"), band_energies(field).astype(np.float32)),
        "reference_spectrum": (("reference", "radius"), radial_spectrum(field).astype(np.float32)),
    }
    return data | {f"reference_feature_{n}": (("reference", f"dim_{n}"), features(index, 1.0, 4)) for n in networks}


def _protocol(coords: dict[str, Any], networks: Sequence[str], references: bool) -> dict[str, Any]:
    part = np.asarray(coords["part"][1])
    said = np.asarray(coords["prompt"][1])
    return {
        "model": "mini", "model_hash": HASH, "steps": 30, "guidance": 1.0, "sizes": {"height": 64, "width": 64},
        "scheduler": {"class": "DDIMScheduler", "config": {"num_train_timesteps": 1000}}, "device": "cpu",
        "prompts": list(dict.fromkeys(said[part == "asked"].tolist())),
        "unrelated": list(dict.fromkeys(said[part == "unrelated"].tolist())),
        "seeds": sorted(set(np.asarray(coords["seed"][1]).tolist())),
        "data": "style" if references else None, "train": "style" if references else None,
        "networks": [{**NETWORK, "name": name} for name in networks], "versions": VERSIONS,
        "command": ["adapt", "evaluate", "runs/fera-0", "--model", "mini", "--out", "EVAL.zarr"],
    }  # fmt: skip
