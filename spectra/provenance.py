"""What a pipeline call says about itself: prompts, seeds, guidance, adapters, scheduler, versions."""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spectra.errors import UserError

if TYPE_CHECKING:
    import torch

LIBRARIES = ("spectra-adapt", "torch", "diffusers", "transformers", "peft", "accelerate", "numpy", "xarray", "zarr")
UNKNOWN_SEED = -1


@dataclass(frozen=True)
class Labels:
    """One entry per sample of a call."""

    prompt: list[str]
    negative_prompt: list[str]
    seed: list[int]
    draw: list[int]
    guidance_scale: list[float]
    adapter: list[str]
    adapter_detail: list[str]
    guidance_rule: list[str]
    split: list[str]


@dataclass(frozen=True)
class Seeds:
    """Seeds of the generators of a call, read before it: a generator that was used already has no seed to tell."""

    values: tuple[int, ...]
    shared: bool

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Seeds:
        """The seeds of a call with these arguments; unknown where latents were given or nothing was seeded."""
        generator = arguments.get("generator")
        if generator is None or arguments.get("latents") is not None:
            return cls((UNKNOWN_SEED,), shared=True)
        many = isinstance(generator, list | tuple)
        return cls(tuple(_seed(one) for one in (generator if many else [generator])), shared=not many)

    def per_sample(self, count: int) -> tuple[list[int], list[int]]:
        """(seed, draw) of each of `count` samples."""
        if self.shared or len(self.values) != count:
            seed = self.values[0] if self.shared else UNKNOWN_SEED
            return [seed] * count, list(range(count))
        return list(self.values), [0] * count


def _seed(generator: torch.Generator) -> int:
    import torch

    seed = generator.initial_seed()
    fresh = torch.Generator(generator.device).manual_seed(seed)
    return seed if torch.equal(fresh.get_state(), generator.get_state()) else UNKNOWN_SEED


def labels(arguments: Mapping[str, Any], seeds: Seeds, count: int, adapter: str) -> Labels:
    """What tells the `count` samples of a call apart: prompts times images per prompt, images of one prompt adjacent.

    Raises UserError if prompts and latents do not go together, for then nothing would say which sample is which.
    """
    each = int(arguments.get("num_images_per_prompt") or arguments.get("num_videos_per_prompt") or 1)
    prompts = _prompts(arguments, count // each)
    if len(prompts) * each != count:
        raise UserError(f"the call has {len(prompts)} prompts x {each} images, but its latents have {count} samples")
    negatives = _texts(arguments.get("negative_prompt"), len(prompts))
    seed, draw = seeds.per_sample(count)
    prompts, negatives = ([text for text in texts for _ in range(each)] for texts in (prompts, negatives))
    rule = ["cfg" if guidance(arguments) > 1 else "none"] * count
    scales, adapters, nothing = [guidance(arguments)] * count, [adapter] * count, [""] * count
    return Labels(prompts, negatives, seed, draw, scales, adapters, nothing, rule, nothing)


def _prompts(arguments: Mapping[str, Any], count: int) -> list[str]:
    """The prompts as text; empty where embeddings, or nothing, were given instead."""
    prompt, embeddings = arguments.get("prompt"), arguments.get("prompt_embeds")
    if prompt is None and embeddings is not None:
        count = len(embeddings)
    return (
        [str(text) for text in prompt] if isinstance(prompt, list | tuple) else _texts(prompt, 1 if prompt else count)
    )


def _texts(value: Any, count: int) -> list[str]:
    if isinstance(value, list | tuple):
        return [str(text) for text in value] * (count if len(value) == 1 else 1)
    return [str(value or "")] * count


def guidance(arguments: Mapping[str, Any]) -> float:
    """The guidance scale of the call, NaN where the pipeline has none."""
    given = (arguments.get(name) for name in ("guidance_scale", "true_cfg_scale"))
    return next((float(value) for value in given if isinstance(value, int | float)), math.nan)


def active_adapters(pipe: Any) -> str:
    """Names of the PEFT adapters that act on a pipeline's networks, joined by +; empty without any."""
    if "peft" not in sys.modules:
        return ""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch import nn

    networks = (part for part in pipe.components.values() if isinstance(part, nn.Module))
    layers = (layer for network in networks for layer in network.modules() if isinstance(layer, BaseTunerLayer))
    acting = (layer for layer in layers if not layer.disable_adapters)
    return "+".join(dict.fromkeys(name for layer in acting for name in layer.active_adapters))


def scheduler_json(scheduler: Any) -> str:
    """Class and configuration of a scheduler."""
    config = {name: value for name, value in dict(scheduler.config).items() if not name.startswith("_")}
    return json.dumps({"class": type(scheduler).__name__, **config}, sort_keys=True, default=str)


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that make the numbers, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def command() -> str:
    """The command line of this process."""
    return shlex.join(sys.argv)
