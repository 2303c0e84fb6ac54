"""Pictures and clips by a pipeline of any family, from prompts or from first frames, and their files."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from datasets_cache.families import decode_latents, encoding_family, native_size
from datasets_cache.families.text import cleaning
from datasets_cache.items import BadPicture
from datasets_cache.picture import seen
from spectra.errors import UserError
from spectra.families import family_of
from spectra.models import call_defaults
from spectra.prompts import quiet_cuts

CHUNK = 8
"""Pictures generated at once."""
FRAME_RATE = 16.0
"""Frames a second of clips by pipelines that are not told any (Wan's own)."""

Sizes = Mapping[str, int]
"""`height`, `width` and, for videos, `num_frames`, as `datasets_cache.families.call_sizes` gives them."""
Pictures = NDArray[np.uint8]


def generate(
    pipe: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int,
    guidance: float,
    sizes: Sizes | None = None,
    images: Sequence[Image.Image] | None = None,
    tick: Callable[[int], None] | None = None,
    batch: int = CHUNK,
    on_step_end: Callable[..., dict[str, Any]] | None = None,
) -> Tensor:
    """Final latents (n, c, [t], h, w) float32 of the pipeline for prompts and seeds of equal number.

    The initial noise of a sample belongs to its seed alone.

    Args:
        guidance: scale of the guidance; what the network is told, where it is distilled from guided answers.
        sizes: default: the picture size that the model was made for, and its own number of frames.
        images: for models that animate pictures, the first frame of each sample; prompts are then not read.
        tick: called with the number of samples just made.
        on_step_end: the `callback_on_step_end` of the pipeline's calls.

    Raises:
        UserError: a model that animates pictures, and none were given.
    """
    if animates(pipe) and images is None:
        raise UserError(f"a {type(pipe).__name__} animates pictures; give the picture that each clip begins with")
    parts: list[Tensor] = []
    for start in range(0, len(prompts), batch):
        chosen = slice(start, start + batch)
        told: dict[str, Any] = {"image": list(images[chosen])} if images else {"prompt": list(prompts[chosen])}
        noise = [torch.Generator().manual_seed(seed) for seed in seeds[chosen]]
        call = (
            told
            | call_of_sizes(pipe, sizes)
            | guided(pipe, guidance, len(noise))
            | call_defaults(pipe)
            | cleaning(pipe)
        )
        call |= {} if on_step_end is None else {"callback_on_step_end": on_step_end}
        parts.append(_latents(pipe, call | {"generator": noise, "num_inference_steps": steps}))
        if tick:
            tick(len(noise))
    return torch.cat(parts)


def _latents(pipe: Any, call: dict[str, Any]) -> Tensor:
    family = family_of(pipe)
    with quiet_cuts(), family.resolving(pipe, call):
        made = pipe(**call, output_type="latent")
    final: Tensor = made.frames if hasattr(made, "frames") else made.images
    if family.layout.startswith("b (") and final.ndim > 3:  # not tokens: FLUX.2 Klein gives what its VAE decodes
        return family.from_vae(final.float(), pipe).cpu()
    return family.plain(final, pipe, call).float().cpu()


def animates(pipe: Any) -> bool:
    """True for models that are given a picture instead of a prompt."""
    return not encoding_family(pipe).text_parts


def call_of_sizes(pipe: Any, sizes: Sizes | None) -> dict[str, Any]:
    """The sizes of a call, which no pipeline may replace by others that it knows."""
    exact = {"use_resolution_binning": False} if "use_resolution_binning" in _arguments(pipe) else {}
    named = dict(sizes) if sizes else dict(zip(("height", "width"), native_size(pipe), strict=True))
    return named | exact


def guided(pipe: Any, guidance: float, count: int) -> dict[str, Any]:
    """Arguments that guide `count` samples with a scale, against what dropped captions are trained with."""
    known = _arguments(pipe)
    if "max_guidance_scale" in known:  # rises over the frames
        return {"min_guidance_scale": min(1.0, guidance), "max_guidance_scale": guidance}
    if "true_cfg_scale" in known and not family_of(pipe).embedded:  # guides where it is given what to guide from
        against = {"negative_prompt": [""] * count} if guidance > 1 else {}
        return {"true_cfg_scale": guidance, **against}
    return {"guidance_scale": guidance - 1 + family_of(pipe).guidance_off}


def _arguments(pipe: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(type(pipe).__call__).parameters


def sizes_of_run(pipe: Any, settings: Mapping[str, Any]) -> dict[str, int]:
    """The sizes that a run was trained with, from its configuration; an empty one gives the model's own."""
    side = settings.get("resolution")
    height, width = (side, side) if side else native_size(pipe)
    frames = {"num_frames": int(settings["frames"])} if encoding_family(pipe).video and "frames" in settings else {}
    return {"height": height, "width": width, **frames}


def pictures(pipe: Any, latents: Tensor) -> Pictures:
    """Decoded pictures (n, h, w, 3), or clips (n, t, h, w, 3), uint8."""
    at_once = 1 if encoding_family(pipe).video else CHUNK
    decoded = torch.cat([decode_latents(pipe, part).cpu() for part in latents.split(at_once)])
    return (decoded * 255).round().to(torch.uint8).movedim(1, -1).numpy()


def first_frames(prompts: Sequence[str]) -> list[Image.Image]:
    """Pictures that prompts are the paths of, for models that animate pictures; UserError where one cannot be read."""
    return [_opened(Path(prompt)) for prompt in prompts]


def _opened(path: Path) -> Image.Image:
    reason = "is not a picture"
    try:
        return seen(path.read_bytes(), str(path))
    except BadPicture as bad:
        reason = bad.reason
    except (OSError, ValueError):  # no such file, or no such name
        pass
    raise UserError(f"{str(path)!r} {reason}; this model animates pictures, so give their paths")


def frame_rate(pipe: Any) -> float:
    """Frames a second of the clips that a pipeline makes."""
    known = _arguments(pipe)
    return float(next((known[name].default for name in ("frame_rate", "fps") if name in known), FRAME_RATE))


def save_png(pixels: Pictures, path: Path, rate: float = FRAME_RATE, text: PngInfo | None = None) -> None:
    """Write pixels (h, w, 3) as a PNG, or (t, h, w, 3) as an animated one with `rate` frames a second."""
    first, *rest = (Image.fromarray(frame) for frame in (pixels if pixels.ndim == 4 else pixels[None]))
    moving: dict[str, Any] = {"save_all": True, "append_images": rest, "duration": 1000 / rate} if rest else {}
    first.save(path, format="PNG", pnginfo=text, **moving)
