"""What watching costs: the bundled models generating with and without the recorder, interleaved in one process.

Prints seconds per picture (one picture at a time, 30 steps, guidance 3, one thread) and the median of the paired
ratios, and writes benchmarks/results/probe.json.
"""

from __future__ import annotations

import json
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline

import spectra
from spectra.models import call_defaults, load_pipeline

CAPTION = "a large red ring on a striped blue background"
REPEATS = 9


def generate(pipe: DiffusionPipeline, seed: int) -> float:
    """Seconds for one picture."""
    noise = torch.Generator().manual_seed(seed)
    start = time.perf_counter()
    pipe(CAPTION, num_inference_steps=30, guidance_scale=3.0, generator=noise, **call_defaults(pipe))
    return time.perf_counter() - start


def measure(name: str, folder: Path) -> dict[str, object]:
    """One row: medians of both arms and of their paired ratio, with its quartiles."""
    pipe = load_pipeline(name)
    generate(pipe, 0)
    plain, probed = [], []
    for seed in range(REPEATS):
        plain.append(generate(pipe, seed))
        with spectra.record(pipe, folder / f"{name}.zarr", signals=("latent", "x0", "eps", "prediction")):
            probed.append(generate(pipe, seed))
    ratio = np.array(probed) / np.array(plain)
    return {
        "model": name, "plain_seconds": float(np.median(plain)), "probed_seconds": float(np.median(probed)),
        "ratio": float(np.median(ratio)), "ratio_quartiles": [float(q) for q in np.quantile(ratio, (0.25, 0.75))],
    }  # fmt: skip


def main() -> None:
    """Measure, print, write."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(name, Path(folder)) for name in ("mini", "mini-flow")]
    for row in rows:
        print(f"{row['model']:>10}: {row['plain_seconds']:.3f} s a picture, probed / plain {row['ratio']:.3f}")
    versions = {name: version(name) for name in ("torch", "diffusers")}
    out = Path(__file__).parent / "results" / "probe.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps({"threads": 1, "repeats": REPEATS, "versions": versions, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
