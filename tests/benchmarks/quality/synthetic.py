"""Folders of runs that were never trained: files like those of `adapt train`, with errors that a test chooses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from benchmarks.quality.design import Job
from benchmarks.quality.run import FAILED

LEVELS, SAMPLES, PICTURES, BANDS = 3, 4, 4, 2
ATTRIBUTES = ("colour", "shape")


def texts(*words: str) -> np.ndarray:
    """Words as `adapt train` stores them."""
    return np.array(words, np.dtypes.StringDType())


def errors(seed: int, scale: float = 1.0) -> np.ndarray:
    """Final errors (level, sample) that depend on the training seed and are the same for every arm, times `scale`."""
    rng = np.random.default_rng(seed)
    return scale * (1 + 0.1 * rng.random((LEVELS, SAMPLES)) + 0.05 * np.arange(SAMPLES))


def finish(out: Path, job: Job, error: float) -> None:
    """A run of which only the record is there, as the sweep's are read."""
    folder = out / job.folder
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"validation": {"after": error}}))


def fail(out: Path, job: Job) -> None:
    """A run that ended with an error."""
    folder = out / job.folder
    folder.mkdir(parents=True)
    (folder / FAILED).write_text(json.dumps({"error": "the loss is no number"}))


def write_final(
    out: Path,
    job: Job,
    final: np.ndarray,
    start: float = 3.0,
    parameters: int = 100,
    gates: int = 0,
    energy: float = 1.0,
    steps: Sequence[int] = (0, 60, 120),
) -> None:
    """A final run whose curve falls in a straight line from `start` times the final errors to them, in two parts."""
    folder = out / job.folder
    folder.mkdir(parents=True)
    curve = np.stack([start * final, (start + 1) / 2 * final, final]).astype(np.float32)
    metrics = xr.Dataset(
        {"validation_error": (("eval_step", "level", "sample", "draw"), curve[..., None])},
        {"eval_step": list(steps), "log_snr": ("level", np.linspace(4, -4, LEVELS))},
    )
    if gates:
        metrics["gates"] = (
            ("eval_step", "level", "sample", "expert"),
            np.ones((3, LEVELS, SAMPLES, gates), np.float32),
        )
    metrics.to_zarr(folder / "metrics.zarr", consolidated=False)
    made = np.full((3, PICTURES, 1, BANDS), 2.0, np.float32) * np.arange(1, PICTURES + 1)[:, None, None]
    made[1] *= energy
    right = np.ones((3, PICTURES, len(ATTRIBUTES)), np.float32)
    right[:, 0, 1] = np.nan
    right[1, 1, 0] = 0
    drawn = xr.Dataset(
        {
            "energy": (("source", "sample", "channel", "band"), made),
            "attribute_right": (("source", "sample", "attribute"), right),
        },
        {
            "source": texts("base", "adapter", "reference"),
            "prompt": ("sample", texts("a", "b", "b", "c")),
            "attribute": texts(*ATTRIBUTES),
        },
    )
    drawn.to_zarr(folder / "evaluation.zarr", consolidated=False)
    record = {"trainable_parameters": parameters, "seconds_train": 1.0, "validation": {"after": float(final.mean())}}
    (folder / "run.json").write_text(json.dumps(record))


BOTH = ("mini-flow", "mini")


def experiment(out: Path, scales: dict[str, float], seeds: int = 3, models: tuple[str, ...] = BOTH) -> Path:
    """Sweeps and finals of arms whose errors are `scales` times LoRA's, with a little noise, on both tasks."""
    for model in models:
        for task in ("style", "subject"):
            for arm, scale in scales.items():
                for rate, error in ((0.004, 1.2), (0.008, 1.0), (0.016, 1.1)):
                    finish(out, Job(model, task, arm, rate, 100, "sweep"), scale * error)
                for seed in range(seeds):
                    own = np.random.default_rng([seed, len(arm), len(model), len(task)]).normal(size=(LEVELS, SAMPLES))
                    final = errors(seed, scale) * (1 + 0.001 * own)
                    gates = 3 if arm.startswith("fera") else 0
                    write_final(out, Job(model, task, arm, 0.008, seed, "final"), final, gates=gates)
    return out
