"""A task without a data set: a tiny network and latents made up on the spot, for tests of single steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from zlib import crc32

import torch
from torch import Tensor, nn

from adapt.config import TrainConfig
from adapt.methods import METHODS
from adapt.objectives import objective_of
from adapt.task import Task
from spectra.bands import FilterBank

SHAPE = (4, 8, 8)
WIDTH = 6


@dataclass(frozen=True)
class Data:
    """Latents and conditioning by formula, with the parts of a cached data set that a step reads."""

    shapes: tuple[tuple[int, ...], ...]
    caption_lists: tuple[tuple[str, ...], ...]
    offset: float = 0.0
    picture: bool = False
    """True if pictures bring conditioning of their own."""

    def __len__(self) -> int:
        return len(self.shapes)

    @property
    def captions(self) -> tuple[str, ...]:
        return tuple(every[0] for every in self.caption_lists)

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(Path(f"{row}.png") for row in range(len(self)))

    @property
    def empty(self) -> dict[str, Tensor]:
        return {"text": torch.zeros(1, WIDTH)}

    def latents(self, rows: Any) -> Tensor:
        made = [
            torch.randn(self.shapes[row], generator=torch.Generator().manual_seed(1000 + row)) + self.offset
            for row in rows
        ]
        return torch.stack(made)

    def conditioning(self, rows: Any, pick: Any = None) -> dict[str, Tensor]:
        chosen = [self.caption_lists[row][one] for row, one in zip(rows, pick or [0] * len(rows), strict=True)]
        told = {"text": torch.stack([embedding(caption) for caption in chosen])}
        return told | ({"size": torch.stack([torch.full((2,), float(row)) for row in rows])} if self.picture else {})


def embedding(caption: str) -> Tensor:
    """A vector (WIDTH,) of a caption."""
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(crc32(caption.encode())))


def data(count: int = 7, captions: int = 1, name: str = "subject", shape: tuple[int, ...] = SHAPE, **more: Any) -> Data:
    """`count` pictures of one shape with so many captions each."""
    lists = tuple(tuple(f"{name} {row} {one}" for one in range(captions)) for row in range(count))
    return Data((shape,) * count, lists, **more)


class Net(nn.Module):
    """A denoiser that remembers what it was asked: a pointwise map, moved by timestep and text."""

    dtype = torch.float32

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mix, self.text = nn.Linear(SHAPE[0], SHAPE[0]), nn.Linear(WIDTH, SHAPE[0])
        self.asked: list[dict[str, Tensor]] = []
        self.adapted = True
        self.peft_config = {"default": SimpleNamespace(bank=FilterBank((0.8, 1.6)), bands=3)}

    @contextmanager
    def base(self) -> Iterator[None]:
        """Inside, a part of the map answers alone."""
        self.adapted = False
        yield
        self.adapted = True

    def forward(self, x: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        mixed = torch.movedim(self.mix(torch.movedim(x, 1, -1)), -1, 1)
        if not self.adapted:
            return 0.7 * mixed
        moved = (self.text(text) * timestep[:, None] / 1000).reshape(len(x), -1, *(1,) * (x.ndim - 2))
        return cast(Tensor, mixed + moved)


def call(net: Any, noisy: Tensor, timestep: Tensor, conditioning: dict[str, Tensor]) -> Tensor:
    """The family's call of `Net`."""
    net.asked.append({"noisy": noisy, "timestep": timestep, **conditioning, "adapted": torch.tensor(net.adapted)})
    answer: Tensor = net(noisy, timestep.float(), conditioning["text"])
    return answer


def task(scheduler: Any, train: Data | None = None, heldout: Data | None = None, **changes: Any) -> Task:
    """A task on made-up data; `changes` are settings, and `class_set` the class's data."""
    classes = changes.pop("class_set", None)
    settings = {"model": "m", "data": "d", "out": Path("o"), "method": "lora", "batch": 6, "caption_dropout": 0.0}
    config = TrainConfig(**(settings | changes))
    train = train or data()
    return Task(
        config=config, pipe=None, denoiser=Net(), call=call, model_hash="0",
        objective=objective_of(scheduler, config.weighting, config.gamma),
        method=replace(METHODS[config.method], gates=lambda net: None, base=lambda net: net.base()),
        targets=[], prior=None, train=cast(Any, train), heldout=cast(Any, heldout or train), class_data=classes,
    )  # fmt: skip
