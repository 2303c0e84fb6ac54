"""What watching costs: the bundled models generating with and without the recorder, interleaved in one process.

Two pipelines share their networks; one is recorded, the other not, and they take turns with the same seeds. Prints
the median of the paired ratios with its quartiles, for single pictures and batches and for two and four signals, and
what entering and leaving a recording costs once. With CUDA, pipelines of the size of SDXL and FLUX.1 with random
weights are measured too. Writes benchmarks/results/overhead.json.

    python benchmarks/overhead.py [--repeats 9]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import spectra
from spectra.models import call_defaults, load_pipeline

CAPTION = "a large red ring on a striped blue background"
SIGNALS = {2: ("latent", "x0"), 4: ("latent", "x0", "eps", "prediction")}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Generate = Callable[[Any, int, int], None]


def bundled(pipe: Any, seed: int, batch: int) -> None:
    """One call of a bundled model, pictures included."""
    noise = [torch.Generator().manual_seed(seed + i) for i in range(batch)]
    steps = {"num_inference_steps": 30, "guidance_scale": 3.0, "generator": noise}
    pipe([CAPTION] * batch, **steps, **call_defaults(pipe))


def seconds(generate: Generate, pipe: Any, seed: int, batch: int) -> float:
    """Wall time of one call, with all its work on the device done."""
    start = time.perf_counter()
    generate(pipe, seed, batch)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def twin(pipe: Any) -> Any:
    """Another pipeline with the same networks and a scheduler of its own."""
    parts = pipe.components | {"scheduler": type(pipe.scheduler).from_config(pipe.scheduler.config)}
    other = type(pipe)(**parts)
    return quiet(other)


def quiet(pipe: Any) -> Any:
    """The pipeline, without its progress bar."""
    pipe.set_progress_bar_config(disable=True)
    return pipe


def measure(name: str, pipe: Any, generate: Generate, batch: int, signals: int, repeats: int) -> dict[str, Any]:
    """One row: medians of both arms and of their paired ratio, with its quartiles. Who goes first alternates."""
    watched, times = twin(pipe), {"plain": [], "probed": []}
    seconds(generate, pipe, 0, batch)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        with spectra.record(watched, Path(folder) / "c.zarr", signals=SIGNALS[signals]):
            generate(watched, 0, batch)  # creates the cube
            for seed in range(repeats):
                arms = [("plain", pipe), ("probed", watched)]
                for arm, which in arms if seed % 2 else reversed(arms):
                    times[arm].append(seconds(generate, which, seed, batch))
            end = time.perf_counter()
        leaving = time.perf_counter() - end
    return row(name, batch, signals, times) | {"total_seconds": end - start, "leaving_seconds": leaving}


def row(name: str, batch: int, signals: int, times: dict[str, list[float]]) -> dict[str, Any]:
    """Medians and quartiles."""
    ratio = np.array(times["probed"]) / np.array(times["plain"])
    return {
        "model": name, "batch": batch, "signals": signals, "plain_seconds": float(np.median(times["plain"])),
        "probed_seconds": float(np.median(times["probed"])), "ratio": float(np.median(ratio)),
        "ratio_quartiles": [float(q) for q in np.quantile(ratio, (0.25, 0.75))],
    }  # fmt: skip


def large() -> Iterator[tuple[str, Any, Generate]]:
    """Pipelines of the size of SDXL and FLUX.1 in bfloat16 with random weights, prompts given as embeddings."""
    yield "SDXL size", sdxl(**SDXL), embedded(3.0, prompt=(77, 2048), pooled=1280, pixels=1024)
    yield "FLUX.1 size", flux(guidance_embeds=True), embedded(3.5, prompt=(512, 4096), pooled=768, pixels=1024)


SDXL: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "use_linear_projection": True,
}


def sdxl(**config: Any) -> Any:
    """A Stable Diffusion XL pipeline of a UNet alone."""
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    absent = dict.fromkeys(("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    unet = random_weights(UNet2DConditionModel, config)
    return quiet(StableDiffusionXLPipeline(**absent, unet=unet, scheduler=EulerDiscreteScheduler()))


def flux(**config: Any) -> Any:
    """A FLUX.1 pipeline of a transformer alone; without a configuration it has the published size."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    absent = dict.fromkeys(("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    transformer = random_weights(FluxTransformer2DModel, config)
    return quiet(FluxPipeline(**absent, transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler()))


def random_weights(kind: Any, config: dict[str, Any]) -> Any:
    """A network in bfloat16, made where it is used."""
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(DEVICE):
            return kind(**config).eval()
    finally:
        torch.set_default_dtype(torch.float32)


def embedded(scale: float, prompt: tuple[int, int], pooled: int, pixels: int) -> Generate:
    """Calls with random embeddings instead of text, 20 steps, latents not decoded."""

    def generate(pipe: Any, seed: int, batch: int) -> None:
        noise = torch.Generator().manual_seed(seed)
        shapes = {"prompt_embeds": (batch, *prompt), "pooled_prompt_embeds": (batch, pooled)}
        if hasattr(pipe, "unet"):
            shapes |= {f"negative_{name}": shape for name, shape in shapes.items()}
        text = {name: torch.randn(shape, generator=noise).to(DEVICE, torch.bfloat16) for name, shape in shapes.items()}
        call = {"num_inference_steps": 20, "guidance_scale": scale, "height": pixels, "width": pixels}
        pipe(**text, **call, generator=[noise] * batch, output_type="latent")

    return generate


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    rows = []
    for name in ("mini", "mini-flow"):
        pipe = load_pipeline(name)
        for batch in (1, 8):
            for signals in SIGNALS:
                rows.append(measure(name, pipe, bundled, batch, signals, max(repeats // (3 if batch > 1 else 1), 3)))
                show(rows[-1])
    for name, pipe, generate in large() if DEVICE == "cuda" else ():
        rows.append(measure(name, pipe, generate, 1, 4, max(repeats // 3, 3)))
        show(rows[-1])
    versions = {name: version(name) for name in ("torch", "diffusers")}
    out = Path(__file__).parent / "results" / "overhead.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps({"threads": 1, "repeats": repeats, "versions": versions, "rows": rows}, indent=2) + "\n")


def show(row: dict[str, Any]) -> None:
    """Print one row."""
    low, high = row["ratio_quartiles"]
    what = f"{row['model']:>11}, batch {row['batch']}, {row['signals']} signals"
    print(f"{what}: {row['plain_seconds']:.3f} s a call, probed / plain {row['ratio']:.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
