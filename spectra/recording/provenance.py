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

    from spectra.families import Family

LIBRARIES = ("spectra-adapt", "torch", "diffusers", "transformers", "peft", "accelerate", "numpy", "xarray", "zarr")
UNKNOWN_SEED = -1


@dataclass(frozen=True)
class Labels:
    """One entry per sample of a call, as in `spectra.schema.Runs`."""

    prompt: list[str]
    negative_prompt: list[str]
    seed: list[int]
    draw: list[int]
    guidance_scale: list[float]
    adapter: list[str]
    adapter_detail: list[str]


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


def labels(
    arguments: Mapping[str, Any], seeds: Seeds, count: int, adapters: tuple[str, str], rule: Any = None
) -> Labels:
    """What tells the `count` samples of a call apart: prompts times images per prompt, images of one prompt adjacent.

    `adapters` are their names and their description, `rule` is a guidance rule at the wheel. Raises UserError if
    prompts and latents do not go together, for then nothing would say which sample is which.
    """
    each = int(arguments.get("num_images_per_prompt") or arguments.get("num_videos_per_prompt") or 1)
    prompts = _prompts(arguments, count // each)
    if len(prompts) * each != count:
        raise UserError(f"the call has {len(prompts)} prompts x {each} images, but its latents have {count} samples")
    negatives = _texts(arguments.get("negative_prompt"), len(prompts))
    seed, draw = seeds.per_sample(count)
    prompts, negatives = ([text for text in texts for _ in range(each)] for texts in (prompts, negatives))
    name, detail = ([value] * count for value in adapters)
    return Labels(prompts, negatives, seed, draw, [guidance(arguments, rule)] * count, name, detail)


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


def guidance(arguments: Mapping[str, Any], rule: Any = None) -> float:
    """The scale that guides the call, NaN where there is none: that of the rule at the wheel, if it has one of its own.

    Where a pipeline combines predictions by a scale besides the one that its network takes as an input, it is that one.
    """
    names = ("true_cfg_scale", "guidance_scale") if _true_cfg(arguments) else ("guidance_scale", "true_cfg_scale")
    given = (getattr(rule, "scale", None), *(arguments.get(name) for name in names))
    return next((float(value) for value in given if isinstance(value, int | float)), math.nan)


def _true_cfg(arguments: Mapping[str, Any]) -> bool:
    """True if a call asks for guidance beside the one that its network has built in."""
    scale = arguments.get("true_cfg_scale")
    negative = (arguments.get(name) for name in ("negative_prompt", "negative_prompt_embeds"))
    return isinstance(scale, int | float) and scale > 1 and any(one is not None for one in negative)


def guidance_rule(pipe: Any, arguments: Mapping[str, Any], family: Family) -> str:
    """How a pipeline combines cond and uncond at this moment of its call: a guider's class, cfg, cfg-rescale or none.

    `pipe` is None for a loop written by hand, of which only the arguments tell. Guidance that a distilled network has
    built in is none here.
    """
    guider = getattr(pipe, "guider", None)
    if guider is not None:
        return _guider_rule(guider)
    guides = getattr(pipe, "do_classifier_free_guidance", None)
    if guides is None and "true_cfg_scale" in arguments:
        guides = _true_cfg(arguments)
    if guides is None:
        guides = guidance(arguments) > family.guidance_off and not family.embedded
    if not guides:
        return "none"
    return "cfg-rescale" if arguments.get("guidance_rescale") else "cfg"


def _guider_rule(guider: Any) -> str:
    if getattr(guider, "num_conditions", 2) < 2:
        return "none"
    if type(guider).__name__ != "ClassifierFreeGuidance":
        return type(guider).__name__
    return "cfg-rescale" if getattr(guider, "guidance_rescale", 0) else "cfg"


def scheduler_json(scheduler: Any) -> str:
    """Class and configuration of a scheduler; null without one."""
    if scheduler is None:
        return "null"
    config = {name: value for name, value in dict(scheduler.config).items() if not name.startswith("_")}
    return json.dumps({"class": type(scheduler).__name__, **config}, sort_keys=True, default=str)


@dataclass
class SchedulerText:
    """`scheduler_json`, made again only for another configuration: diffusers replaces it whole when it changes."""

    config: Any = None
    kind: Any = None
    text: str = ""

    def __call__(self, scheduler: Any) -> str:
        """The text of this scheduler."""
        config = getattr(scheduler, "config", None)
        if not self.text or config is not self.config or type(scheduler) is not self.kind:
            self.config, self.kind, self.text = config, type(scheduler), scheduler_json(scheduler)
        return self.text


def model_hash(pipe: Any) -> str:
    """The hash of the networks; unknown where a scheduler is recorded by itself."""
    from spectra import identity, models

    return models.model_hash(pipe) if identity.networks(pipe) else "unknown"


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
