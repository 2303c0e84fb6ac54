"""One case per video pipeline: how to build it tiny, what to call it with, and its own way to lay out latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from torch import Tensor

from tests.matrix.parts import BATCH, TOKENS, embedding, masks, prompts, quiet
from tests.matrix.video_models import (
    allegro,
    animatediff,
    cogvideox,
    cosmos,
    hunyuan,
    kandinsky,
    latte,
    ltx,
    ltx2,
    mochi,
    sana,
    skyreels,
    svd,
    wan,
    wan_image,
)

STEPS = 3
Grid = tuple[int, int, int]  # latent frames, height, width


@dataclass(frozen=True)
class Case:
    """`pack` takes noise (b, c, t, h, w) to the pipeline's latents and `unpack` takes them back, by its own code."""

    build: Callable[[], Any]
    call: Mapping[str, Any]
    family: str
    space: str
    channels: int
    grid: Grid
    pack: Callable[[Any, Tensor], Tensor] = lambda pipe, x: x
    unpack: Callable[[Any, Tensor], Tensor] = lambda pipe, x: x
    gain: Callable[[Any], float] = lambda pipe: 1.0
    causal: bool = True

    def noise(self) -> Tensor:
        return embedding(BATCH, self.channels, *self.grid, seed=7)


def frames_first(pipe: Any, x: Tensor) -> Tensor:
    """As CogVideoX and Stable Video Diffusion bring their latents to and from their VAEs."""
    return x.permute(0, 2, 1, 3, 4)


def _times(pipe: Any) -> float:
    """What pipelines multiply their noise by."""
    return float(pipe.scheduler.init_noise_sigma)


def _kandinsky_prompts() -> dict[str, Tensor]:
    ends = TOKENS * torch.arange(BATCH + 1, dtype=torch.int32)
    words = {"prompt_embeds_qwen": embedding(BATCH, TOKENS, 16), "prompt_embeds_clip": embedding(BATCH, 8)}
    words |= {"prompt_cu_seqlens": ends}
    return words | {f"negative_{name}": value for name, value in words.items()}


LTX_GRID, LTX2_GRID = (2, 2, 3), (3, 16, 32)
PICTURE = embedding(BATCH, 3, 32, 32).clamp(-1, 1) / 2 + 0.5
MASKED = {**prompts(16), **masks()}

CASES: dict[str, Case] = {
    "wan": Case(
        wan, {**prompts(16), "height": 32, "width": 48, "num_frames": 9}, "wan", "flow", 4, (3, 4, 6)
    ),
    "wan-2.2": Case(
        lambda: wan(second=True),
        {**prompts(16), "height": 32, "width": 48, "num_frames": 9, "guidance_scale": 3.0, "guidance_scale_2": 2.0},
        "wan", "flow", 4, (3, 4, 6),
    ),
    "wan-image": Case(
        wan_image, {**prompts(16), "image": PICTURE[:1], "height": 32, "width": 48, "num_frames": 9}, "wan", "flow",
        16, (3, 4, 6),
    ),
    "svd": Case(
        svd, {"image": PICTURE, "height": 16, "width": 24, "num_frames": 3}, "svd", "ve", 4, (3, 8, 12),
        frames_first, frames_first, _times, causal=False,
    ),
    "ltx": Case(
        ltx, {**MASKED, "height": 64, "width": 96, "num_frames": 9}, "ltx", "flow", 8, LTX_GRID,
        lambda pipe, x: pipe._pack_latents(x), lambda pipe, x: pipe._unpack_latents(x, *LTX_GRID),
    ),
    "ltx-2": Case(
        ltx2,
        {**MASKED, "height": 32, "width": 64, "num_frames": 5, "stg_scale": 0.0, "modality_scale": 1.0,
         "audio_stg_scale": 0.0, "audio_modality_scale": 1.0, "spatio_temporal_guidance_blocks": None,
         "use_cross_timestep": False},
        "ltx", "flow", 4, LTX2_GRID, lambda pipe, x: pipe._pack_latents(x),
        lambda pipe, x: x if x.ndim == 5 else pipe._unpack_latents(x, *LTX2_GRID),
    ),
    "cogvideox-ddim": Case(
        lambda: cogvideox(diffusers.CogVideoXDDIMScheduler),
        {**prompts(16), "height": 32, "width": 48, "num_frames": 9, "max_sequence_length": TOKENS},
        "cogvideox", "vp", 4, (3, 4, 6), frames_first, frames_first, _times,
    ),
    "cogvideox-dpm": Case(
        lambda: cogvideox(diffusers.CogVideoXDPMScheduler),
        {**prompts(16), "height": 32, "width": 48, "num_frames": 9, "max_sequence_length": TOKENS},
        "cogvideox", "vp", 4, (3, 4, 6), frames_first, frames_first, _times,
    ),
    "hunyuan-video": Case(
        hunyuan,
        {"prompt_embeds": embedding(BATCH, TOKENS, 16), "pooled_prompt_embeds": embedding(BATCH, 8),
         "prompt_attention_mask": torch.ones(BATCH, TOKENS, dtype=torch.long),
         "height": 32, "width": 48, "num_frames": 9},
        "hunyuan-video", "flow", 4, (3, 4, 6),
    ),
    "mochi": Case(
        mochi, {**prompts(16), **masks(dtype=torch.bool), "height": 32, "width": 48, "num_frames": 13},
        "mochi", "flow", 12, (3, 4, 6),
    ),
    "latte": Case(
        latte, {**prompts(16), "negative_prompt": None, "height": 32, "width": 48, "video_length": 3,
                "clean_caption": False, "mask_feature": False},
        "latte", "vp", 4, (3, 4, 6), gain=_times, causal=False,
    ),
    "allegro": Case(
        allegro, {**MASKED, "negative_prompt": None, "height": 32, "width": 48, "num_frames": 12,
                  "clean_caption": False},
        "allegro", "ve", 4, (3, 4, 6), gain=_times, causal=False,
    ),
    "animatediff": Case(
        animatediff, {**prompts(16), "height": 32, "width": 48, "num_frames": 3},
        "animatediff", "vp", 4, (3, 4, 6), gain=_times, causal=False,
    ),
    "cosmos": Case(
        cosmos, {**prompts(16), "height": 32, "width": 48, "num_frames": 17}, "cosmos", "ve", 4, (3, 4, 6),
        gain=lambda pipe: pipe.scheduler.config.sigma_max,
    ),
    "kandinsky5": Case(
        kandinsky, {**_kandinsky_prompts(), "height": 32, "width": 48, "num_frames": 9}, "kandinsky5", "flow", 4,
        (3, 4, 6), lambda pipe, x: x.permute(0, 2, 3, 4, 1), lambda pipe, x: x.permute(0, 4, 1, 2, 3),
    ),
    "sana-video": Case(
        sana, {**MASKED, "negative_prompt": None, "height": 32, "width": 64, "frames": 9,
               "use_resolution_binning": False, "complex_human_instruction": None},
        "sana-video", "flow", 4, (3, 4, 8),
    ),
    "skyreels": Case(
        skyreels, {**prompts(16), "height": 32, "width": 48, "num_frames": 9}, "wan", "flow", 4, (3, 4, 6)
    ),
}  # fmt: skip


def built(name: str) -> Any:
    return quiet(CASES[name].build())
