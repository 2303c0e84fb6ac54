"""Synthetic runs and a synthetic cube, in exactly the formats that `adapt train` and `spectra probe` write.

The numbers are made so that the truth is known: the validation error of an arm is the base's times a
decay that ends at `effect`, times noise that belongs to the seed, the sample and both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter

from spectra.bands import FilterBank, radii
from spectra.cube import append, create
from spectra.schema import Header, Runs
from spectra.zoo.tasks import hatch
from spectra.zoo.world import Scene, draw, scene_at

SCALES = (0.8, 1.6, 3.2)
BANDS = len(SCALES) + 1
NOISE = np.geomspace(12.0, 0.08, 8)
HASH = "sha256:" + "5d41402abc4b2a76" * 4
VERSIONS = {"python": "3.11.9", "torch": "2.13.0", "diffusers": "0.42.1", "spectra-adapt": "0.1.0"}


def text(*words: str) -> np.ndarray:
    """Words as zarr keeps them: strings of any length."""
    return np.array(words, dtype=np.dtypes.StringDType())


def latents(pictures: np.ndarray) -> np.ndarray:
    """Stand-in latents (n, 4, 16, 16) of pictures (n, 64, 64, 3): colour means and edges of 4 x 4 blocks."""
    blocks = pictures.reshape(len(pictures), 16, 4, 16, 4, 3)
    means, edges = blocks.mean(axis=(2, 4)), blocks[:, :, 0].mean(axis=(3, 4)) - blocks[:, :, 3].mean(axis=(3, 4))
    return np.concatenate([means.transpose(0, 3, 1, 2) - 0.5, edges[:, None]], axis=1)


def band_energies(x: np.ndarray) -> np.ndarray:
    """Energies (..., band) of x (..., h, w) for differences of Gaussians, low to high."""
    smooth = [gaussian_filter(x, (0,) * (x.ndim - 2) + (s, s), mode="reflect") for s in SCALES]
    bands = [smooth[2], smooth[1] - smooth[2], smooth[0] - smooth[1], x - smooth[0]]
    return np.stack([(band**2).sum((-2, -1)) for band in bands], axis=-1)


def radial_spectrum(x: np.ndarray, bins: int = 16) -> np.ndarray:
    """Energy of the DCT modes of x (n, c, h, w), summed over channels and binned by radius (n, bins)."""
    modes = (dctn(x, axes=(-2, -1), norm="ortho") ** 2).sum(axis=1)
    k = np.arange(16) / 32
    index = np.minimum((np.hypot(*np.meshgrid(k, k)) / 0.5 * bins).astype(int), bins - 1)
    return np.stack([modes[:, index == b].sum(axis=-1) for b in range(bins)], axis=-1)


def pictures(samples: int, quality: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[Scene]]:
    """Base, adapted and held-out pictures (n, 64, 64, 3) in 0..1; at quality 1 the style is fully there."""
    base, adapted, real, scenes = [], [], [], []
    rng = np.random.default_rng([seed, 77])
    for i in range(samples):
        scene, plain = scene_at(3, i)
        target = hatch(draw(scene, np.random.default_rng([5, i])), 2.0)
        worn = quality * hatch(plain, 2.0) + (1 - quality) * plain
        blurred = gaussian_filter(worn, (0.9 * (1 - quality), 0.9 * (1 - quality), 0))
        base.append(plain)
        adapted.append(np.clip(blurred + rng.normal(0, 0.01, blurred.shape), 0, 1))
        real.append(target)
        scenes.append(scene)
    return np.stack(base), np.stack(adapted), np.stack(real), scenes


def validation_error(
    effect: float, speed: float, seed: int, steps: np.ndarray, samples: int, jitter: float
) -> np.ndarray:
    """Errors (eval_step, level, sample, draw); equal cells at step 0 for all methods and seeds."""
    grid = np.random.default_rng(11)
    base = np.linspace(0.35, 1.4, len(NOISE))[:, None, None] * grid.lognormal(0, 0.25, (len(NOISE), samples, 2))
    rng = np.random.default_rng([seed, int(effect * 1000)])
    seed_part = jitter * np.random.default_rng([seed, 1]).normal() + 0.3 * jitter * rng.normal()
    end = effect * np.exp(seed_part + jitter * rng.normal(size=base.shape))
    bend = 1 + 0.03 * np.linspace(-1, 1, len(NOISE))[:, None, None] * (effect < 0.5)
    decay = (1 - np.exp(-speed * steps / steps[-1])) / (1 - np.exp(-speed))
    return np.asarray(base[None] * (1 - decay[:, None, None, None] * (1 - end * bend)[None]))


def gates(steps: np.ndarray, samples: int, sharp: float, seed: int) -> np.ndarray:
    """Gates (eval_step, level, sample, 3), summing to 3, that move over the noise levels."""
    rng = np.random.default_rng([seed, 5])
    place = np.linspace(-1, 1, len(NOISE))[None, :, None, None] + 0.15 * rng.normal(size=(1, len(NOISE), samples, 1))
    centres = np.array([-0.8, 0.0, 0.8]) if sharp > 1 else rng.permutation([-0.5, 0.1, 0.5])
    logits = -sharp * (0.4 + 0.6 * steps[:, None, None, None] / steps[-1]) * (place - centres) ** 2
    odds = np.exp(logits)
    return np.asarray(3 * odds / odds.sum(-1, keepdims=True))


def write_metrics(folder: Path, errors: np.ndarray, steps: np.ndarray, moving: np.ndarray | None) -> None:
    data: dict[str, Any] = {
        "train_loss": ("step", np.linspace(1, 0.5, int(steps[-1])).astype(np.float32)),
        "validation_error": (("eval_step", "level", "sample", "draw"), errors.astype(np.float32)),
    }
    if moving is not None:
        data["gates"] = (("eval_step", "level", "sample", "expert"), moving.astype(np.float32))
    coords = {"eval_step": steps, "noise_level": ("level", NOISE), "log_snr": ("level", -2 * np.log(NOISE))}
    xr.Dataset(data, coords=coords).to_zarr(folder / "metrics.zarr", consolidated=False)


def attributes(samples: int, quality: float, seed: int) -> np.ndarray:
    """What a reader might find (source, sample, attribute); the first caption names no background."""
    rng = np.random.default_rng([seed, 9])
    base, held = np.ones((samples, 3)), np.ones((samples, 3))
    right = np.stack([base, rng.random((samples, 3)) < quality + 0.1, held]).astype(np.float32)
    right[:, 0, 2] = np.nan
    return right


def write_evaluation(folder: Path, quality: float, seed: int, samples: int, prompts: list[str] | None) -> None:
    base, adapted, real, scenes = pictures(samples, quality, seed)
    fields = [latents(x) for x in (base, adapted, real)]
    pixels = (np.stack([base, adapted, real]) * 255).round().astype(np.uint8)
    data = {
        "image": (("source", "sample", "y", "x", "rgb"), pixels),
        "energy": (
            ("source", "sample", "channel", "band"), np.stack([band_energies(x) for x in fields]).astype(np.float32)
        ),
        "spectrum": (
            ("source", "sample", "radius"), np.stack([radial_spectrum(x) for x in fields]).astype(np.float32)
        ),
        "attribute_right": (("source", "sample", "attribute"), attributes(samples, quality, seed)),
    }  # fmt: skip
    said = prompts or [scene.caption for scene in scenes]
    coords = {
        "source": text("base", "adapter", "reference"),
        "prompt": ("sample", text(*said)),
        "seed": ("sample", np.arange(samples)),
        "radius": radii(16, 16, 16),
        "attribute": text("shape", "colour", "background"),
    }
    xr.Dataset(data, coords=coords).to_zarr(folder / "evaluation.zarr", consolidated=False)


def add_experts(run: Path, samples: int = 6, seed: int = 0) -> Path:
    """Write what switching experts off changes: expert e acts in band e, helps at the noisiest half, harms below."""
    rng = np.random.default_rng([seed, 8])
    effect = 0.01 * rng.lognormal(0, 0.1, (len(NOISE), samples, 3, BANDS))
    for e in range(3):
        effect[:, :, e, e] *= 50
    sign = np.where(np.arange(len(NOISE)) < len(NOISE) // 2, 1.0, -1.0)[:, None, None, None]
    error = 0.1 * sign * effect
    data = {
        "expert_effect": (("level", "sample", "expert", "band"), effect.astype(np.float32)),
        "expert_error": (("level", "sample", "expert", "band"), error.astype(np.float32)),
        "expert_total": (("level", "sample", "expert"), error.sum(-1).astype(np.float32)),
    }
    if samples != xr.open_zarr(run / "metrics.zarr", chunks=None, consolidated=False).sizes["sample"]:
        raise ValueError("experts are measured on the run's own samples")
    xr.Dataset(data).to_zarr(run / "metrics.zarr", mode="a", consolidated=False)
    return run


def add_steps(run: Path, steps: int = 8) -> Path:
    """Write the pictures of x0 at some steps of the first sample: from grey to the finished picture."""
    store = xr.open_zarr(run / "evaluation.zarr", chunks=None, consolidated=False)
    final = store.image.sel(source=["base", "adapter"]).isel(sample=0).values.astype(float)
    part = np.linspace(0, 1, steps)[None, :, None, None, None]
    pictures = (128 * (1 - part) + final[:, None] * part).round().astype(np.uint8)
    energy = np.linspace(0.1, 1, steps)[None, :, None] * np.array([8.0, 4.0, 2.0, 1.0])
    data = {
        "x0_image": (("x0_source", "x0_step", "y", "x", "rgb"), pictures),
        "x0_energy": (("x0_source", "x0_step", "band"), np.repeat(energy, 2, axis=0).astype(np.float32)),
    }
    coords = {
        "x0_source": text("base", "adapter"), "x0_step": np.linspace(0, 19, steps).astype(int),
        "x0_noise_level": ("x0_step", np.geomspace(12, 0.1, steps)),
    }  # fmt: skip
    xr.Dataset(data, coords).to_zarr(run / "evaluation.zarr", mode="a", consolidated=False)
    return run


def write_run(
    folder: Path, method: str = "lora", prior: bool = False, seed: int = 0, effect: float = 0.40, speed: float = 3.0,
    samples: int = 24, quality: float = 0.8, jitter: float = 0.02, steps: int = 400, prompts: list[str] | None = None,
    record: dict[str, Any] | None = None, config: dict[str, Any] | None = None,
) -> Path:  # fmt: skip
    """Write one run directory `folder`; `effect` is the final error over the base's."""
    folder.mkdir(parents=True)
    at = np.arange(0, steps + 1, steps // 8)
    errors = validation_error(effect, speed, seed, at, samples, jitter)
    write_metrics(folder, errors, at, gates(at, samples, 3.0 if prior else 1.0, seed) if method == "fera" else None)
    write_evaluation(folder, quality, seed, min(samples, 8), prompts)
    command = ["adapt", "train", "--model", "mini", "--data", "style", "--method", method, "--seed", str(seed)]
    command += ["--prior", "runs/mini.zarr"] if prior else []
    settings = {"lr": 0.004, "rank": 12, "batch": 16, "seed": seed, "out": str(folder), **(config or {})}
    routed = method == "fera"
    whole = {
        "format": 1, "status": "complete", "name": folder.name, "method": method,
        "prior": {"cube": "runs/mini.zarr", "model_hash": HASH} if prior else None, "model": "mini", "model_hash": HASH,
        "data": "style", "seed": seed, "steps": steps, "config": settings, "adapter_parameters": 228_400,
        "trainable_parameters": 228_400 + 1_260 * routed, "seconds_train": 61.5 + 9.2 * routed + seed,
        "seconds_total": 80.0 + seed, "peak_memory_mib": 912.0 + 40 * routed, "versions": VERSIONS, "command": command,
        "finished": f"2026-01-0{1 + seed % 9}T10:00:00+00:00", **(record or {}),
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(whole))
    (folder / "adapter").mkdir()
    return folder


def write_three_arms(root: Path, seeds: int = 3, samples: int = 24) -> list[Path]:
    """LoRA, FeRA without and FeRA with prior, each with `seeds` training seeds."""
    made = []
    for seed in range(seeds):
        made.append(write_run(root / f"lora-{seed}", "lora", seed=seed, effect=0.46, quality=0.72, samples=samples))
        made.append(
            write_run(root / f"fera-{seed}", "fera", seed=seed, effect=0.457, speed=3.3, quality=0.78, samples=samples)
        )
        made.append(
            write_run(
                root / f"prior-{seed}", "fera", True, seed, effect=0.435, speed=4.2, quality=0.86, samples=samples
            )
        )
    return made


def write_cube(
    path: Path, runs: int = 12, steps: int = 31, model_hash: str = HASH, adapter: list[str] | None = None,
    late: bool = False, guidance: list[float] | None = None, facts: dict[str, str] | None = None,
) -> Path:  # fmt: skip
    """A cube in which bands are decided from low to high: band k at about step 2 + 5 k."""
    rng = np.random.default_rng(3)
    t = np.linspace(0, 1, steps)
    noise = np.geomspace(14, 0.05, steps)
    final = np.array([0.70, 0.06, 0.05, 0.19]) * rng.lognormal(0, 0.1, (runs, 1, BANDS)) * 1024
    white = np.array([0.019, 0.022, 0.079, 0.88]) * 1024
    centre = (np.arange(BANDS) * 5 + 2 + rng.normal(0, 0.6, (runs, 1, BANDS))) / steps
    known = 1 / (1 + np.exp(-14 * (t[None, :, None] - centre)))
    x0 = final * known**1.5
    latent = final * (t**2)[None, :, None] + white * ((1 - t) ** 2)[None, :, None]
    x0[:, -1] = np.nan
    coherence = np.clip(known**0.7, 0, 1)
    coherence[..., -1] *= 0.5 if late else 1
    coherence[:, -1] = np.nan
    radius = (np.arange(16) + 0.5) / 32
    red = 1 / (radius**2 + 0.002)
    start, end = np.full(16, 64.0), 64 * red / red.mean()
    shape = (t**2)[:, None] * end + ((1 - t) ** 2)[:, None] * start
    energy = np.stack([latent, x0], axis=2)[:, :, :, None, :].repeat(4, axis=3) / 4
    spectrum = np.stack([shape, shape], axis=1)[None].repeat(runs, axis=0)
    header = Header(
        ("latent", "x0"), FilterBank(SCALES), (16, 16), 4, None, 16, tuple(np.linspace(999, 0, steps)),
        tuple(np.ones(steps)), tuple(noise),
        {"model_hash": model_hash, "family": "sd", "dtype": "float32", **(facts or {})},
        {"model": "mini", "command": "spectra probe --model mini --out mini.zarr", "versions": json.dumps(VERSIONS)},
    )  # fmt: skip
    create(path, header)
    prompts = [f"a large red circle on a plain blue background {i // 2}" for i in range(runs)]
    append(path, Runs(
        energy.astype(np.float32), spectrum.astype(np.float32), coherence.astype(np.float32), prompts, [""] * runs,
        [i % 2 for i in range(runs)], [0] * runs, guidance or [1.0] * runs, adapter or [""] * runs,
        [""] * runs, ["none"] * runs, [""] * runs,
    ))  # fmt: skip
    return path
