"""Train the world embedder on drawn pictures and check it: `python -m spectra.zoo.recipes.embedder --out FILE`.

One network learns to keep in 96 numbers: the five attributes; whether a picture is hatched, how and how strongly;
which parts of the zog are there; how blurred, noisy and ghosted it is; and which picture it is, whatever small move
or tint (normalised temperature-scaled cross entropy between two views: Chen et al. 2020, equation 1).
The heads that ask for these are linear in the features, and are thrown away afterwards.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from spectra.zoo.embedder import DIMS, WEIGHTS, Embedder
from spectra.zoo.reader import ATTRIBUTES, split_logits
from spectra.zoo.recipes import embedder_pictures as drawn
from spectra.zoo.recipes.embedder_checks import checks

TEMPERATURE = 0.15


@dataclass(frozen=True)
class Batch:
    """Pictures uint8 (n, 3, 64, 64) and labels; `select` takes some of them."""

    pictures: Tensor
    attributes: Tensor
    kind: Tensor
    style: Tensor
    strength: Tensor
    parts: Tensor

    def select(self, chosen: Tensor) -> Batch:
        """The rows of `chosen` (m,)."""
        return Batch(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


def examples(seed: int, count: int) -> Batch:
    """The first pictures of stream `seed`, with their labels."""
    found = [drawn.example(seed, index) for index in range(count)]
    return Batch(
        torch.from_numpy(drawn.to_pixels([one.picture for one in found])).permute(0, 3, 1, 2).contiguous(),
        torch.tensor([one.attributes for one in found]),
        torch.tensor([drawn.KINDS.index(one.kind) for one in found]),
        torch.tensor([drawn.STYLES.index(one.style) for one in found]),
        torch.tensor([[one.strength] for one in found]),
        torch.tensor([one.parts for one in found]),
    )


class Heads(nn.Module):
    """Linear questions to the features; needed while learning only."""

    def __init__(self) -> None:
        super().__init__()
        self.attributes = nn.Linear(DIMS, sum(map(len, ATTRIBUTES.values())))
        self.kind = nn.Linear(DIMS, len(drawn.KINDS))
        self.style = nn.Linear(DIMS, len(drawn.STYLES))
        self.strength = nn.Linear(DIMS, 1)
        self.parts = nn.Linear(DIMS, len(drawn.PARTS))
        self.levels = nn.Linear(DIMS, len(drawn.WORST))

    def forward(self, features: Tensor, labels: Batch, levels: Tensor) -> Tensor:
        """The sum of all losses on features (batch, 96)."""
        logits = split_logits(self.attributes(features))
        attributes = [F.cross_entropy(logits[name], labels.attributes[:, i]) for i, name in enumerate(ATTRIBUTES)]
        return (
            torch.stack(attributes).sum()
            + F.cross_entropy(self.kind(features), labels.kind)
            + 2 * F.cross_entropy(self.style(features), labels.style)
            + 3 * F.binary_cross_entropy_with_logits(self.parts(features), labels.parts)
            + 4 * F.mse_loss(self.strength(features), labels.strength)
            + 16 * F.mse_loss(self.levels(features), levels.sqrt())  # the root sees slight spoiling too
        )


def instance_loss(first: Tensor, second: Tensor) -> Tensor:
    """Each picture is to be told from all others by its other view; (batch, dims) each."""
    both = F.normalize(torch.cat([first, second]), dim=1)
    likeness = both @ both.T / TEMPERATURE
    likeness = likeness.masked_fill(torch.eye(len(both), dtype=torch.bool), -torch.inf)
    return F.cross_entropy(likeness, torch.arange(len(both)).roll(len(first)))


def train(steps: int, batch: int, pictures: int, seed: int = 0, rate: float = 3e-3) -> Embedder:
    """Learn on one thread; equal arguments give equal weights on one machine."""
    torch.manual_seed(seed)
    embedder, heads, rng = Embedder().train(), Heads(), torch.Generator().manual_seed(seed)
    everything = examples(21 + seed, pictures)
    parameters = [*embedder.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=max(steps, 4))
    for step in range(steps):
        labels = everything.select(torch.randint(pictures, (batch,), generator=rng))
        levels = drawn.random_levels(batch, rng)
        spoilt = drawn.spoil(labels.pictures.float() / 127.5 - 1, levels, rng).clamp(-1, 1)
        first, second = embedder(torch.cat([drawn.view(spoilt, rng), drawn.view(spoilt, rng)])).chunk(2)
        asked = heads(first, labels, levels) + heads(second, labels, levels)
        told = instance_loss(first, second)
        (asked / 2 + told).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 100 == 0:
            print(f"embedder {step}/{steps} asked {asked.item() / 2:.3f} instance {told.item():.3f}", flush=True)
    return halved(embedder.eval().requires_grad_(False))


def halved(embedder: Embedder) -> Embedder:
    """The embedder as its file has it: every number rounded to 16 bits."""
    embedder.load_state_dict({k: v.half().float() if v.is_floating_point() else v for k, v in _state(embedder).items()})
    return embedder


def _state(embedder: Embedder) -> dict[str, Tensor]:
    """What the file holds; the batch norms' counters are of no use any more, so they say 0."""
    state = embedder.state_dict()
    return {k: v if v.is_floating_point() else torch.zeros_like(v) for k, v in state.items()}


def main() -> None:
    """Train, save in half precision, write what held-out pictures say beside the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--pictures", type=int, default=12_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    embedder = train(args.steps, args.batch, args.pictures)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.half() if v.is_floating_point() else v for k, v in _state(embedder).items()}, args.out)
    made = {"steps": args.steps, "batch": args.batch, "pictures": args.pictures, "seed": 0}
    found = {"what": "held-out checks of the world embedder", "made": made, **checks(embedder)}
    report = args.out.with_suffix(".json")
    report.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(report.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
