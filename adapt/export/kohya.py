"""Names of layers in the files of kohya's sd-scripts, which ComfyUI and A1111 read: SD 1.5, SDXL and FLUX.1.

SD 1.5 keeps the names of diffusers.  In files of SD 1.5 and SDXL all layers have one rank (see `one_rank`).  SDXL has
those of Stability's own UNet (`input_blocks_4_1_...`).  FLUX.1 has those of Black Forest Labs, where q, k, v (and the
MLP of a single block) are one layer: factors of several layers become one pair whose `up` is block diagonal, so the
rank is the number of layers times their rank and the product is exact.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from adapt.export.factors import Factors
from spectra.errors import UserError

_RESNET = {
    "conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection"
}  # fmt: skip
_OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}


class Fused(NamedTuple):
    """One layer of FLUX.1 as its authors keep it, and the layers of diffusers that are its rows, in order."""

    name: str
    parts: tuple[str, ...]


_DOUBLE = (
    Fused("img_attn_qkv", ("attn.to_q", "attn.to_k", "attn.to_v")),
    Fused("txt_attn_qkv", ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")),
    Fused("img_attn_proj", ("attn.to_out.0",)),
    Fused("txt_attn_proj", ("attn.to_add_out",)),
    Fused("img_mlp_0", ("ff.net.0.proj",)),
    Fused("img_mlp_2", ("ff.net.2",)),
    Fused("txt_mlp_0", ("ff_context.net.0.proj",)),
    Fused("txt_mlp_2", ("ff_context.net.2",)),
    Fused("img_mod_lin", ("norm1.linear",)),
    Fused("txt_mod_lin", ("norm1_context.linear",)),
)
_SINGLE = (
    Fused("linear1", ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")),
    Fused("linear2", ("proj_out",)),
    Fused("modulation_lin", ("norm.linear",)),
)


def kohya_tensors(
    pipe: Any, denoiser: nn.Module, factors: Mapping[str, Factors], texts: Mapping[str, Mapping[str, Factors]]
) -> dict[str, Tensor]:
    """The tensors of a kohya file.

    Raises:
        UserError: another family, a layer that its files have no name for, or DoRA.
    """
    family = family_of_kohya(pipe)
    named = FAMILIES[family](denoiser, factors)
    tensors: dict[str, Tensor] = {}
    for name, found in named.items():
        tensors |= _entry(f"lora_unet_{name}", found)
    for part, of_encoder in texts.items():
        for name, found in of_encoder.items():
            tensors |= _entry(f"{_text_prefix(part, family)}_{name.replace('.', '_')}", found)
    return tensors


def family_of_kohya(pipe: Any) -> str:
    """`sd`, `sdxl` or `flux`; UserError for other pipelines."""
    kinds = {"StableDiffusionPipeline": "sd", "StableDiffusionXLPipeline": "sdxl", "FluxPipeline": "flux"}
    for base in type(pipe).__mro__:
        if base.__name__ in kinds:
            return kinds[base.__name__]
    raise UserError(
        f"kohya files are written for SD 1.5, SDXL and FLUX.1, not for {type(pipe).__name__}; export static-lora"
    )


def _entry(name: str, found: Factors) -> dict[str, Tensor]:
    if found.magnitude is not None:
        raise UserError("kohya files hold no DoRA here, because diffusers drops its magnitudes; export static-lora")
    alpha = torch.tensor(float(found.rank))
    return {f"{name}.lora_down.weight": found.down, f"{name}.lora_up.weight": found.up, f"{name}.alpha": alpha}


def _text_prefix(part: str, family: str) -> str:
    if part == "text_encoder":
        return "lora_te" if family == "sd" else "lora_te1"
    return "lora_te2"


def _same_names(denoiser: nn.Module, factors: Mapping[str, Factors]) -> dict[str, Factors]:
    return {name.replace(".", "_"): found for name, found in one_rank(factors).items()}


def _stability_names(denoiser: nn.Module, factors: Mapping[str, Factors]) -> dict[str, Factors]:
    rename = stability_name(denoiser)
    return {rename(name).replace(".", "_"): found for name, found in one_rank(factors).items()}


def one_rank(factors: Mapping[str, Factors]) -> dict[str, Factors]:
    """The same updates, all of the largest rank, filled up with zeros.

    diffusers (0.42) gives attention layers of another alpha than most layers the alpha of most, and alpha is the rank.
    """
    rank = max(found.rank for found in factors.values())
    return {name: _widened(found, rank) for name, found in factors.items()}


def _widened(found: Factors, rank: int) -> Factors:
    down = found.down.new_zeros(rank, *found.down.shape[1:])
    up = found.up.new_zeros(found.up.shape[0], rank, *found.up.shape[2:])
    down[: found.rank], up[:, : found.rank] = found.down, found.up
    return Factors(down, up, found.magnitude)


def stability_name(unet: Any) -> Callable[[str], str]:
    """The rule from diffusers' names of a UNet's layers to those of Stability's UNet of the same sizes."""
    depth = int(unet.config.layers_per_block)

    def rename(name: str) -> str:
        if name in _OUTSIDE:
            return _OUTSIDE[name]
        match = re.match(r"(down_blocks\.\d+|up_blocks\.\d+|mid_block)\.(\w+)\.(\d+)\.(.+)", name)
        if match is None:
            raise UserError(f"kohya files of SDXL have no name for the layer {name}; leave it out of 'targets'")
        block, kind, index, rest = match.group(1), match.group(2), int(match.group(3)), match.group(4)
        rest = _RESNET.get(rest, rest)
        return f"{_place(unet, depth, block, kind, index)}.{'op' if kind == 'downsamplers' else rest}"

    return rename


def _place(unet: Any, depth: int, block: str, kind: str, index: int) -> str:
    """Where Stability's UNet keeps a part of a block; its blocks are counted one by one."""
    side, _, number = block.partition(".")
    if side == "mid_block":
        return f"middle_block.{2 * index if kind == 'resnets' else 2 * index + 1}"
    first = int(number) * (depth + 1)
    if side == "down_blocks":
        if kind == "downsamplers":
            return f"input_blocks.{first + depth + 1}.0"
        return f"input_blocks.{first + index + 1}.{0 if kind == 'resnets' else 1}"
    if kind == "upsamplers":
        attentive = bool(getattr(unet.get_submodule(block), "attentions", None))
        return f"output_blocks.{first + depth}.{2 if attentive else 1}"
    return f"output_blocks.{first + index}.{0 if kind == 'resnets' else 1}"


def _flux_names(denoiser: nn.Module, factors: Mapping[str, Factors]) -> dict[str, Factors]:
    left = dict(factors)
    found: dict[str, Factors] = {}
    for block, number, theirs, groups in _flux_blocks(factors):
        for fused in groups:
            parts = [f"{block}.{part}" for part in fused.parts]
            if any(part in left for part in parts):
                sizes = [_outputs(denoiser, part) for part in parts]
                found[f"{theirs}_{number}_{fused.name}"] = joined([left.pop(part, None) for part in parts], sizes)
    if left:
        raise UserError(
            f"kohya files of FLUX.1 are written for layers inside its blocks, because diffusers drops others when it "
            f"reads them; leave {min(left)} out of 'targets', or export static-lora"
        )
    return found


def _flux_blocks(factors: Mapping[str, Factors]) -> list[tuple[str, int, str, tuple[Fused, ...]]]:
    kinds = {"transformer_blocks": ("double_blocks", _DOUBLE), "single_transformer_blocks": ("single_blocks", _SINGLE)}
    blocks = sorted({tuple(name.split(".")[:2]) for name in factors if name.split(".")[0] in kinds})
    return [
        (f"{kind}.{number}", int(number), kinds[kind][0], kinds[kind][1])
        for kind, number in (block[:2] for block in blocks)
    ]


def joined(parts: list[Factors | None], sizes: list[int]) -> Factors:
    """Factors of layers with one input as those of one layer with all their outputs: ups on the diagonal, downs below
    each other.  Layers without an update have zeros, and all have one rank, as diffusers asks of what it splits.
    """
    given = [part for part in parts if part is not None]
    if len(parts) == 1:
        return given[0]
    rank, into = max(part.rank for part in given), given[0].down.shape[1]
    alike = [
        Factors(torch.zeros(rank, into), torch.zeros(out, rank)) if part is None else _widened(part, rank)
        for part, out in zip(parts, sizes, strict=True)
    ]
    return Factors(torch.cat([part.down for part in alike]), torch.block_diag(*(part.up for part in alike)))


def _outputs(denoiser: nn.Module, name: str) -> int:
    layer: Any = denoiser.get_submodule(name)
    return int(getattr(layer, "base_layer", layer).out_features)


FAMILIES: dict[str, Callable[[nn.Module, Mapping[str, Factors]], dict[str, Factors]]] = {
    "sd": _same_names,
    "sdxl": _stability_names,
    "flux": _flux_names,
}
"""By kind: (denoiser, layer -> factors) -> kohya's name -> factors."""
