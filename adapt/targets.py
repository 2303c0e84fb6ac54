"""Which layers an adapter reaches: one list per denoiser class, the same for every method.

A target is the end of a layer's dotted name, or all of it, with `*` for any one part (`adapt.fera.matching`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from adapt.fera.matching import base_modules, check_layers, check_patterns, expanded, linear_endings, matched, means
from spectra.errors import UserError

__all__ = ["PRESETS", "TARGETS", "Targets", "default_targets", "matched", "resolve_targets"]

PRESETS = ("default", "attention")
"""`default`: everything but what embeds or applies time and text.  `attention`: the projections of attention only."""

_QKV = ("to_q", "to_k", "to_v")
_ATTENTION = (*_QKV, "to_out.0")
_CONTEXT = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
_FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")
_FEED_FORWARD_CONTEXT = ("ff_context.net.0.proj", "ff_context.net.2")
_SWIGLU = ("feed_forward.linear_1", "feed_forward.linear_2", "feed_forward.linear_3")


@dataclass(frozen=True)
class Targets:
    """Targets of one class of denoisers: those of attention, the others, and those that some of its models lack."""

    attention: tuple[str, ...]
    others: tuple[str, ...]
    optional: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """All of them, in the order of their listing."""
        return (*self.attention, *self.others)

    def preset(self, name: str) -> tuple[str, ...]:
        """Those that belong to a preset."""
        return self.attention if name == "attention" else self.all


_UNET = Targets(
    (*_ATTENTION, "add_k_proj", "add_v_proj"),
    (
        *_FEED_FORWARD,
        *("conv1", "conv2", "conv_shortcut", "proj_in", "proj_out"),
        *("downsamplers.0.conv", "upsamplers.0.conv", "conv_in", "conv_out"),
    ),
    (
        *("add_k_proj", "add_v_proj", *_FEED_FORWARD, "proj_in", "proj_out"),
        *("conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv"),
    ),
)
_SVD = Targets(
    _ATTENTION,
    (
        *(*_FEED_FORWARD, "ff_in.net.0.proj", "ff_in.net.2"),
        *("spatial_res_block.conv1", "spatial_res_block.conv2", "conv_shortcut", "proj_in", "proj_out"),
        *("downsamplers.0.conv", "upsamplers.0.conv", "conv_in", "conv_out"),
    ),
    ("conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv"),
)
_SD3 = Targets(
    (*_ATTENTION, *_CONTEXT),
    (*_FEED_FORWARD, *_FEED_FORWARD_CONTEXT, "pos_embed.proj", "proj_out"),
    ("to_add_out", *_FEED_FORWARD_CONTEXT),
)
_FLUX = Targets(
    (*_ATTENTION, *_CONTEXT),
    (*_FEED_FORWARD, *_FEED_FORWARD_CONTEXT, "proj_mlp", "proj_out", "x_embedder"),
    ("proj_mlp",),
)
_PIXART = Targets(_ATTENTION, (*_FEED_FORWARD, "pos_embed.proj", "proj_out"))
_WAN = Targets(
    (*_ATTENTION, "add_k_proj", "add_v_proj"), ("ffn.net.0.proj", "ffn.net.2", "proj_out"), ("add_k_proj", "add_v_proj")
)
_COGVIEW = Targets(_ATTENTION, (*_FEED_FORWARD, "patch_embed.proj", "proj_out"))
_SANA = ("ff.conv_inverted", "ff.conv_point")

TARGETS: dict[str, Targets] = {
    "UNet2DConditionModel": _UNET,
    "UNetMotionModel": _UNET,
    "UNetSpatioTemporalConditionModel": _SVD,
    "SD3Transformer2DModel": _SD3,
    "FluxTransformer2DModel": _FLUX,
    "ChromaTransformer2DModel": _FLUX,
    "BriaTransformer2DModel": _FLUX,
    "OvisImageTransformer2DModel": _FLUX,
    "LongCatImageTransformer2DModel": _FLUX,
    "Flux2Transformer2DModel": Targets(
        (*_ATTENTION, *_CONTEXT, "to_qkv_mlp_proj", "single_transformer_blocks.*.attn.to_out"),
        ("ff.linear_in", "ff.linear_out", "ff_context.linear_in", "ff_context.linear_out", "proj_out", "x_embedder"),
    ),
    "QwenImageTransformer2DModel": Targets(
        (*_ATTENTION, *_CONTEXT),
        ("img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2", "img_in", "proj_out"),
    ),
    "AuraFlowTransformer2DModel": Targets(
        (*_ATTENTION, *_CONTEXT),
        (
            *("ff.linear_1", "ff.linear_2", "ff.out_projection", "pos_embed.proj", "proj_out"),
            *("ff_context.linear_1", "ff_context.linear_2", "ff_context.out_projection"),
        ),
    ),
    "Lumina2Transformer2DModel": Targets(_ATTENTION, (*_SWIGLU, "x_embedder", "norm_out.linear_2")),
    "ZImageTransformer2DModel": Targets(
        _ATTENTION,
        ("feed_forward.w1", "feed_forward.w2", "feed_forward.w3", "all_x_embedder.*", "all_final_layer.*.linear"),
    ),
    "PixArtTransformer2DModel": _PIXART,
    "HunyuanDiT2DModel": Targets(
        _ATTENTION, (*_FEED_FORWARD, "skip_linear", "pos_embed.proj", "proj_out"), ("skip_linear",)
    ),
    "SanaTransformer2DModel": Targets(_ATTENTION, (*_SANA, "patch_embed.proj", "proj_out")),
    "SanaVideoTransformer3DModel": Targets(_ATTENTION, (*_SANA, "ff.conv_temp", "proj_out")),
    "WanTransformer3DModel": _WAN,
    "SkyReelsV2Transformer3DModel": _WAN,
    "LTXVideoTransformer3DModel": Targets(_ATTENTION, (*_FEED_FORWARD, "proj_in", "proj_out")),
    "HunyuanVideoTransformer3DModel": Targets(
        (*_ATTENTION, *_CONTEXT), (*_FEED_FORWARD, *_FEED_FORWARD_CONTEXT, "proj_mlp", "proj_out"), ("proj_mlp",)
    ),
    "CogVideoXTransformer3DModel": _COGVIEW,
    "CogView3PlusTransformer2DModel": _COGVIEW,
    "CogView4Transformer2DModel": _COGVIEW,
    "AllegroTransformer3DModel": _PIXART,
    "LatteTransformer3DModel": _PIXART,
    "MochiTransformer3DModel": Targets(  # its pooler of the text has a to_q too
        tuple(f"attn1.{name}" for name in (*_ATTENTION, *_CONTEXT)),
        (*_FEED_FORWARD, *_FEED_FORWARD_CONTEXT, "patch_embed.proj", "proj_out"),
    ),
    "CosmosTransformer3DModel": Targets(_ATTENTION, (*_FEED_FORWARD, "patch_embed.proj", "proj_out")),
}
"""Convolutions are in: a fine texture lives at resolutions that have no attention.  Left out are embeddings of time and
text and the projections that modulate by them, 3D and depthwise convolutions, and fused parameters without a layer.
"""


def default_targets(denoiser: nn.Module, preset: str = "default") -> list[str]:
    """The targets of a preset for this class of denoiser, without those that this model lacks.

    Raises:
        UserError: an unknown class, or a model that lacks a target which its class should have.
    """
    kind = type(denoiser).__name__
    if kind not in TARGETS:
        endings = ", ".join(linear_endings(denoiser)) or "it has none"
        raise UserError(
            f"no default targets are known for a {kind}; name the layers to adapt as 'targets'. "
            f"Names of its Linear and Conv2d layers end in: {endings}"
        )
    known = TARGETS[kind]
    have = [target for target in known.preset(preset) if matched(denoiser, target)]
    lost = set(known.preset(preset)) - set(have) - set(known.optional)
    if lost:
        raise UserError(
            f"this {kind} lacks the layers {', '.join(sorted(lost))}; name the layers to adapt as 'targets'"
        )
    return expanded(denoiser, have)


def resolve_targets(denoiser: nn.Module, asked: Sequence[str] | None) -> list[str]:
    """The targets asked for, each of which must match a layer; one name of `PRESETS` stands for its list; None is
    `default`.  What holds a `*` comes back as full names.

    Raises:
        UserError: a target that matches nothing, with the nearest names that would, or something that is no layer.
    """
    if asked is None or (len(asked) == 1 and asked[0] in PRESETS):
        return default_targets(denoiser, "default" if asked is None else asked[0])
    check_patterns(denoiser, list(asked), "targets")
    meant = (name for name, _ in base_modules(denoiser) if any(means(target, name) for target in asked))
    check_layers(denoiser, meant, "targets")
    return expanded(denoiser, asked)
