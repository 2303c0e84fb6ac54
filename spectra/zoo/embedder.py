"""The world embedder: a small network that turns pictures of the procedural world into feature vectors.

It was trained on drawn pictures only, never on samples, to keep apart what the bundled tasks are about: attributes,
hatching (whether, how, how strong), the zog and its near misses, blur, noise and ghosts. Distances and cosines of its
features are measures on the bundled features, not FID, CLIP or DINO scores, and mean nothing for other pictures.
Weights: `weights/embedder.safetensors`, made and checked (`weights/embedder.json`) by
`python -m spectra.zoo.recipes.embedder`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

DIMS = 96
WEIGHTS = Path(__file__).parent / "weights" / "embedder.safetensors"
REPORT = WEIGHTS.with_suffix(".json")


def _stage(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.SiLU())


class Embedder(nn.Module):
    """Pictures (batch, 3, 64, 64) in -1..1 -> features (batch, 96), each of variance one over the training pictures."""

    def __init__(self) -> None:
        super().__init__()
        widths = ((3, 32, 5, 2), (32, 48, 3, 2), (48, 64, 3, 1), (64, 96, 3, 2), (96, 96, 3, 1), (96, 96, 3, 2))
        self.body = nn.Sequential(*(_stage(*width) for width in widths), nn.Flatten())
        self.head = nn.Linear(96 * 4 * 4, DIMS, bias=False)
        self.scale = nn.BatchNorm1d(DIMS, affine=False)

    def forward(self, pictures: Tensor) -> Tensor:
        """Features (batch, 96)."""
        return torch.as_tensor(self.scale(self.head(self.body(pictures))))


@cache
def load() -> Embedder:
    """The shipped embedder, ready to use."""
    embedder = Embedder()
    embedder.load_state_dict({name: value.float() for name, value in load_file(WEIGHTS).items()})
    return embedder.eval().requires_grad_(False)


@torch.inference_mode()
def embed(pictures: NDArray[np.uint8], batch: int = 64, embedder: Embedder | None = None) -> NDArray[np.float32]:
    """Features (n, 96) of pictures (n, 64, 64, 3) uint8, by the shipped embedder unless another is given."""
    network = embedder or load()
    device = next(network.parameters()).device
    parts = torch.from_numpy(np.ascontiguousarray(pictures)).split(batch)
    pixels = (part.permute(0, 3, 1, 2).to(device).float() / 127.5 - 1 for part in parts)
    return torch.cat([network(part).cpu() for part in pixels]).numpy()
