"""Which layers an adapter reaches: one list per denoiser class, the same for every method."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from spectra.errors import UserError

_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")

TARGETS: dict[str, tuple[str, ...]] = {
    "UNet2DConditionModel": (
        *_ATTENTION,
        *_FEED_FORWARD,
        *("conv1", "conv2", "conv_shortcut", "proj_in", "proj_out"),
        *("downsamplers.0.conv", "upsamplers.0.conv", "conv_in", "conv_out"),
    ),
    "SD3Transformer2DModel": (
        *_ATTENTION,
        *("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
        *_FEED_FORWARD,
        *("ff_context.net.0.proj", "ff_context.net.2", "pos_embed.proj", "proj_out"),
    ),
}
"""Endings of module names.  Convolutions are in: a fine texture lives at resolutions that have no attention."""

OPTIONAL: dict[str, frozenset[str]] = {
    "UNet2DConditionModel": frozenset(("conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv")),
    "SD3Transformer2DModel": frozenset(("to_add_out", "ff_context.net.0.proj", "ff_context.net.2")),
}
"""Endings that small or shallow models of the class may lack."""


def default_targets(denoiser: nn.Module) -> list[str]:
    """The endings for this class of denoiser that the model has.

    Raises:
        UserError: an unknown class, or a model that lacks an ending which its class should have.
    """
    kind = type(denoiser).__name__
    if kind not in TARGETS:
        raise UserError(f"no default targets are known for a {kind}; name the layers to adapt as 'targets'")
    have = [ending for ending in TARGETS[kind] if matched(denoiser, ending)]
    lost = set(TARGETS[kind]) - set(have) - OPTIONAL[kind]
    if lost:
        raise UserError(
            f"this {kind} lacks the layers {', '.join(sorted(lost))}; name the layers to adapt as 'targets'"
        )
    return have


def resolve_targets(denoiser: nn.Module, asked: Sequence[str] | None) -> list[str]:
    """The endings asked for, each of which must match a layer, or the default ones.

    Raises:
        UserError: an ending that matches nothing, with the nearest names that would.
    """
    if asked is None:
        return default_targets(denoiser)
    for ending in asked:
        if not matched(denoiser, ending):
            near = difflib.get_close_matches(ending, _endings(denoiser), n=3, cutoff=0.4)
            hint = f"; near it: {', '.join(near)}" if near else ""
            raise UserError(f"the target {ending!r} matches no Linear or Conv2d of {type(denoiser).__name__}{hint}")
    return list(dict.fromkeys(asked))


def matched(denoiser: nn.Module, ending: str) -> list[str]:
    """Names of the Linear and Conv2d layers with this ending (PEFT's rule: whole name parts)."""
    return [name for name in _layers(denoiser) if name == ending or name.endswith(f".{ending}")]


def _layers(denoiser: nn.Module) -> Iterable[str]:
    kinds: tuple[Any, ...] = (nn.Linear, nn.Conv2d)
    return (name for name, module in denoiser.named_modules() if isinstance(module, kinds))


def _endings(denoiser: nn.Module) -> list[str]:
    parts = (name.split(".") for name in _layers(denoiser))
    return sorted(
        {".".join(split[-count:]) for split in parts for count in (1, 2, 3) if not split[-count:][0].isdigit()}
    )
