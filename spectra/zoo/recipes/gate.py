"""Score a bundled model: `python -m spectra.zoo.recipes.gate --model FOLDER`.

240 fixed prompts whose combinations were held out of training, one picture each from its own seed, read by the
attribute reader. Beside it: the same pictures drawn (the reader's ceiling) and passed through the autoencoder.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, StableDiffusion3Pipeline
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import binomtest

from spectra.zoo import reader, world

PROMPTS, STEPS, GUIDANCE = 240, 30, 3.0
THRESHOLDS = {"colour": 0.95, "background": 0.95, "shape": 0.85, "texture": 0.85}


def prompts() -> list[tuple[world.Scene, world.Field]]:
    """The fixed held-out scenes with a drawing of each."""
    return [world.scene_at(2, index, held_out=True) for index in range(PROMPTS)]


def generate(pipe: DiffusionPipeline, captions: list[str], steps: int, guidance: float) -> NDArray[np.uint8]:
    """One picture per caption, seed = its index: uint8 (n, 64, 64, 3)."""
    extra: dict[str, Any] = {}
    if isinstance(pipe, StableDiffusion3Pipeline):
        extra = {"max_sequence_length": 1, "height": 64, "width": 64}
    made = []
    for start in range(0, len(captions), 24):
        part = captions[start : start + 24]
        noise = [torch.Generator().manual_seed(start + k) for k in range(len(part))]
        output = pipe(
            part, num_inference_steps=steps, guidance_scale=guidance, generator=noise, output_type="np", **extra
        )
        made.append((output.images * 255).round().astype(np.uint8))
    return np.concatenate(made)


@torch.inference_mode()
def reconstruct(pipe: DiffusionPipeline, pictures: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Drawings (n, 64, 64, 3) in 0..1 through the autoencoder and back."""
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() * 2 - 1
    decoded = torch.cat([pipe.vae.decode(pipe.vae.encode(p).latent_dist.mean).sample for p in pixels.split(24)])
    return ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def score(pictures: NDArray[np.uint8], captions: list[str]) -> dict[str, dict[str, float]]:
    """Share of right readings per attribute with its 95 % Wilson interval."""
    table = {}
    for attribute, right in reader.agreement(pictures, captions).items():
        interval = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
        table[attribute] = {"right": float(right.mean()), "low": float(interval.low), "high": float(interval.high)}
    return table


def sheet(pictures: NDArray[np.uint8], file: Path, columns: int = 12, scale: int = 2) -> None:
    """A contact sheet of the first pictures."""
    rows = [np.concatenate(list(pictures[i : i + columns]), axis=1) for i in range(0, len(pictures), columns)]
    whole = Image.fromarray(np.concatenate(rows))
    whole.resize((whole.width * scale, whole.height * scale), Image.Resampling.NEAREST).save(file)


def judge(pipe: DiffusionPipeline, steps: int, guidance: float, picture: Path | None = None) -> dict[str, Any]:
    """The model's scores, the ceiling's and the autoencoder's."""
    scenes = prompts()
    captions = [scene.caption for scene, _ in scenes]
    drawn = np.stack([drawing for _, drawing in scenes])
    samples = generate(pipe, captions, steps, guidance)
    if picture is not None:
        sheet(samples[:72], picture)
    return {
        "prompts": len(captions), "steps": steps, "guidance": guidance,
        "samples": score(samples, captions),
        "autoencoder": score(reconstruct(pipe, drawn), captions),
        "drawings": score((drawn * 255).round().astype(np.uint8), captions),
    }  # fmt: skip


def main() -> None:
    """Print the scores as JSON; exit 1 if the gate is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--guidance", type=float, default=GUIDANCE)
    args = parser.parse_args()
    from spectra.models import load_pipeline

    result = judge(load_pipeline(str(args.model)), args.steps, args.guidance, args.sheet)
    passed = all(result["samples"][name]["right"] >= bar for name, bar in THRESHOLDS.items())
    passed &= all(result["autoencoder"][name]["right"] >= 0.97 for name in reader.ATTRIBUTES)
    print(json.dumps(result | {"passed": passed}, indent=1))
    raise SystemExit(0 if passed else 1)


if __name__ == "__main__":
    main()
