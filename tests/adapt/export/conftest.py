"""Small pipelines with saved adapters of every method, and exports of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch

from adapt.export import export
from adapt.methods import METHODS
from adapt.targets import default_targets
from tests.adapt.methods.conftest import settings
from tests.matrix.image_diffusion import sdxl
from tests.matrix.image_tokens import flux
from tests.matrix.parts import pooled, prompts
from tests.tiny import tiny_sd, tiny_sd3

PIPES: dict[str, Callable[[], Any]] = {"sd": tiny_sd, "sd3": tiny_sd3, "sdxl": sdxl, "flux": flux}
_INSIDE = ("attn.to_q", "attn.to_v", "attn.to_out.0", "attn.add_k_proj", "attn.to_add_out", "ff.net.0.proj", "ff.net.2")
FLUX_TARGETS = [*(f"transformer_blocks.0.{name}" for name in _INSIDE), "single_transformer_blocks.0.proj_out"]
"""diffusers splits kohya's q, k, v and MLP of a single block at the sizes of the real FLUX.1 only."""


def denoiser_of(pipe: Any) -> Any:
    return pipe.unet if hasattr(pipe, "unet") else pipe.transformer


def call_of(family: str) -> dict[str, Any]:
    """Further arguments of the pipeline's call: embeddings where it has no text encoder."""
    if family == "sdxl":
        return {**prompts(16), **pooled(16), "height": 64, "width": 64}
    if family == "flux":
        embeds = {name: value for name, value in (prompts(32) | pooled(32)).items() if "negative" not in name}
        return {**embeds, "height": 64, "width": 64}
    return {}


@cache
def saved(family: str, method: str, seed: int = 0, **changes: Any) -> Path:
    """The folder of an adapter whose update is of the size of the weights."""
    pipe = PIPES[family]()
    denoiser = denoiser_of(pipe)
    torch.manual_seed(seed)
    targets = FLUX_TARGETS if family == "flux" else default_targets(denoiser)
    METHODS[method].attach(denoiser, settings(method, **changes), targets, None, pipe)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in denoiser.named_parameters():
            if p.requires_grad and "magnitude" not in name:
                p += torch.randn(p.shape, generator=draw) * 0.1 * (5.0 if name.startswith("fera.") else 1.0)
    folder = Path(mkdtemp()) / f"{family}-{method}"
    METHODS[method].save(denoiser, folder)
    return folder


def exported(family: str, method: str, form: str, out: Path, **options: Any) -> dict[str, Any]:
    """The facts of an export in three steps."""
    given: dict[str, Any] = {"prompts": ["a", "b c"], "steps": 3, "guidance": 1.0, "call": call_of(family)}
    made = export(saved(family, method), out, form, pipe=PIPES[family](), **(given | options))
    facts: dict[str, Any] = json.loads((made / "export.json").read_text())
    return facts


def worst(facts: dict[str, Any], kind: str = "of_effect") -> float:
    assert facts["error"]
    return float(max(row[kind] for row in facts["error"]))
