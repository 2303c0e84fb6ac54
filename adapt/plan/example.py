"""One picture on its way through the model: what a training step keeps in memory, and what the model draws."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapt.calling import Call, call_of
from adapt.config import TrainConfig
from adapt.fera import Coverage, coverage
from adapt.fera.model import router_of
from adapt.plan import memory
from adapt.plan.data import Looked
from datasets_cache.cached import pixels_of
from datasets_cache.families import Conditioning, encode_caption, encode_picture

SHAPELESS = (NotImplementedError, RuntimeError, ValueError)
"""What models raise that look at numbers, such as lengths of captions, which shapes do not have."""


@dataclass(frozen=True)
class Example:
    """The first training picture, encoded."""

    config: TrainConfig
    pipe: Any
    latent: Tensor
    """(1, c, [t], h, w)"""
    conditioning: Conditioning
    """name -> (1, ...)"""
    caption: str
    beside: bool
    """Whether each picture has one of its class beside it in a step (DreamBooth)."""

    def memory(self, denoiser: Any, twin: Any, encoders: Sequence[Any]) -> memory.Memory:
        """Memory of training twins of denoiser and text encoders, with the activations of one part of a batch."""
        config = self.config
        kept = self._activations(twin)
        captions = self._rows + (config.caption_dropout > 0)
        if kept is not None:
            kept += sum(memory.kept_by_encoder(encoder, captions) for encoder in encoders)
        return memory.estimate(
            self.pipe, denoiser, [twin, *encoders], kept, config.optimizer, ema=config.ema is not None,
            in_place=config.method == "full",
        )  # fmt: skip

    def coverage(self, twin: Any) -> Coverage:
        """What the twin's adapter reaches, its share of the arithmetic too where shapes alone tell it."""
        call = call_of(_with_denoiser(self.pipe, twin))
        try:
            return coverage(twin, lambda: self._call(call, twin))
        except SHAPELESS:
            return coverage(twin)

    def _activations(self, twin: Any) -> int | None:
        """Bytes kept for the backward pass; None where shapes alone do not carry the model through a call."""
        checkpointed = memory.checkpointed(twin) if self.config.checkpointing else (lambda: (0, 0))
        call = call_of(_with_denoiser(self.pipe, twin))
        with _even_gates(twin, self._rows):
            try:
                kept = memory.kept_for_backward(twin, lambda: self._call(call, twin))
            except SHAPELESS:
                return None
        return kept + sum(checkpointed())

    def _call(self, call: Call, twin: Any) -> Tensor:
        def rows(value: Tensor) -> Tensor:
            return value.to("meta").expand(self._rows, *value.shape[1:])

        told = {name: rows(value) for name, value in self.conditioning.items()}
        timestep = torch.full((self._rows,), 500.0, device="meta")
        return call(twin, rows(self.latent), timestep, told)

    @property
    def _rows(self) -> int:
        """Pictures that are computed at once on one device."""
        return max(1, self.config.batch // self.config.accumulate) * (2 if self.beside else 1)

    def pictures(self) -> list[tuple[str, NDArray[np.uint8]]]:
        """The picture as the autoencoder gives it back, and what the model draws for its caption, with titles."""
        from adapt.generating import generate, pictures, sizes_of_run

        sizes = sizes_of_run(self.pipe, self.config.record())
        drawn = generate(
            self.pipe, [self.caption], [0], steps=self.config.sample_steps, guidance=self.config.guidance, sizes=sizes
        )
        made = [pictures(self.pipe, latent)[0] for latent in (self.latent, drawn)]
        first = [picture[0] if picture.ndim == 4 else picture for picture in made]  # of a clip
        titles = ("A training picture", "Drawn now for its caption")
        return list(zip(titles, first, strict=True))


def _with_denoiser(pipe: Any, denoiser: Any) -> Any:
    """The pipeline with another denoiser; the given one stays as it is."""
    from spectra.families import family_of

    other = copy.copy(pipe)
    setattr(other, family_of(pipe).denoiser_attribute, denoiser)
    return other


@contextmanager
def _even_gates(twin: Any, rows: int) -> Iterator[None]:
    """Inside, FeRA's gates are given: its router would have to read numbers."""
    router = router_of(twin)
    if router is None:
        yield
        return
    router.hook.remove()
    experts = {name: config.num_experts for name, config in twin.peft_config.items()}
    gates = {name: torch.ones(rows, count, device="meta", requires_grad=True) for name, count in experts.items()}
    with router.cell.holding(gates):
        yield


def example(config: TrainConfig, pipe: Any, looked: Looked) -> Example:
    """Encode the first picture and its caption; the cache is left alone."""
    one = looked.train[0]
    pixels = pixels_of(one.item.read(), one.fit, str(one.item.path))
    batch = torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1).movedim(-1, 0)[None]
    latent, told = encode_picture(pipe, batch, one.fit.told())
    caption = one.item.captions[0]
    whole = told | encode_caption(pipe, caption, looked.encoder.defaults)
    beside = bool(looked.classes) or looked.to_draw is not None
    return Example(config, pipe, latent[None], {name: value[None] for name, value in whole.items()}, caption, beside)
