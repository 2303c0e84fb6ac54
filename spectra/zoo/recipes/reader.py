"""Train the attribute reader on drawn pictures: `python -m spectra.zoo.recipes.reader --out FILE`."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from spectra.zoo import tasks, world
from spectra.zoo.reader import ATTRIBUTES, Reader, split_logits


def example(seed: int, index: int) -> tuple[world.Field, list[int]]:
    """A picture and its labels; a quarter of the pictures are hatched, so that a style does not blind the reader."""
    scene, picture = world.scene_at(seed, index, held_out=None)
    if index % 4 == 0:
        picture = tasks.hatch(picture, float(index % 8))
    labels = [ATTRIBUTES[name].index(getattr(scene, name)) for name in ATTRIBUTES]
    return picture, labels


def examples(seed: int, count: int) -> tuple[Tensor, Tensor]:
    """Pictures uint8 (count, 3, 64, 64) and labels (count, 5)."""
    drawn = [example(seed, index) for index in range(count)]
    pixels = np.stack([(picture * 255).round().astype(np.uint8) for picture, _ in drawn])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.tensor([labels for _, labels in drawn])


def disturb(pictures: Tensor, rng: torch.Generator) -> Tensor:
    """Blur and noise of random strength, as a decoder leaves them."""
    count = len(pictures)
    mix = torch.rand(count, 1, 1, 1, generator=rng) * 0.9
    blurred = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="reflect"), 3, 1)
    strength = torch.rand(count, 1, 1, 1, generator=rng) * 0.12
    return torch.lerp(pictures, blurred, mix) + strength * torch.randn(pictures.shape, generator=rng)


def loss_of(reader: Reader, pictures: Tensor, labels: Tensor) -> Tensor:
    """Sum of the cross entropies of the five attributes."""
    logits = split_logits(reader(pictures))
    return torch.stack([F.cross_entropy(logits[name], labels[:, i]) for i, name in enumerate(ATTRIBUTES)]).sum()


@torch.inference_mode()
def accuracy(reader: Reader, pictures: Tensor, labels: Tensor) -> dict[str, float]:
    """Share of right readings per attribute."""
    logits = split_logits(torch.cat([reader(part.float() / 127.5 - 1) for part in pictures.split(128)]))
    return {n: float((logits[n].argmax(-1) == labels[:, i]).float().mean()) for i, n in enumerate(ATTRIBUTES)}


def main() -> None:
    """Train, print the accuracy on unseen drawings, save in half precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--pictures", type=int, default=20_000)
    args = parser.parse_args()
    torch.manual_seed(0)
    reader, rng = Reader().train(), torch.Generator().manual_seed(0)
    pictures, labels = examples(11, args.pictures)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=args.steps)
    for step in range(args.steps):
        chosen = torch.randint(len(pictures), (args.batch,), generator=rng)
        loss = loss_of(reader, disturb(pictures[chosen].float() / 127.5 - 1, rng), labels[chosen])
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 100 == 0:
            print(f"reader {step}/{args.steps} loss {loss.item():.3f}", flush=True)
    print(accuracy(reader.eval(), *examples(12, 2000)))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.half() if v.is_floating_point() else v for k, v in reader.state_dict().items()}, args.out)


if __name__ == "__main__":
    main()
