"""Encode the world once: `python -m spectra.zoo.recipes.latents --vae FOLDER --out FILE`.

Writes one safetensors file: `latents` (n, 4, 16, 16) float16, the means of the posterior, and `tokens` (n, 24).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor

from spectra.zoo import world
from spectra.zoo.recipes.text import token_ids

SEED = 1


@torch.inference_mode()
def encode(vae: AutoencoderKL, start: int, count: int) -> tuple[Tensor, list[str]]:
    """Posterior means (count, 4, 16, 16) and captions of pictures `start ...` of the training stream."""
    drawn = [world.scene_at(SEED, index) for index in range(start, start + count)]
    captions = [
        world.loose_caption(scene, np.random.default_rng([SEED, start + k, 1])) for k, (scene, _) in enumerate(drawn)
    ]
    pixels = torch.from_numpy(np.stack([picture for _, picture in drawn])).permute(0, 3, 1, 2) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16):
        return vae.encode(pixels.float()).latent_dist.mean.float(), captions


def main() -> None:
    """Encode and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=60_000)
    args = parser.parse_args()
    vae = AutoencoderKL.from_pretrained(args.vae).eval()
    latents, captions = [], []
    for start in range(0, args.count, 200):
        chunk, texts = encode(vae, start, min(200, args.count - start))
        latents.append(chunk.half())
        captions += texts
        if start % 4000 == 0:
            print(f"{start}/{args.count}", flush=True)
    stacked = torch.cat(latents)
    print("channel std", stacked.float().std((0, 2, 3)).tolist(), "mean", stacked.float().mean((0, 2, 3)).tolist())
    save_file({"latents": stacked.contiguous(), "tokens": token_ids(captions).to(torch.int16)}, args.out)


if __name__ == "__main__":
    main()
