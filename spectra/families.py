"""What differs between model families, as data: where the denoiser is, how latents are laid out and reach the VAE.

A pipeline class is looked up by name, then by the names of its bases, so subclasses of a known pipeline are known too.
Families that the registry does not hold still work when their latents are plain `(b, c, h, w)` or `(b, c, t, h, w)`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from spectra.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import nn

PLAIN = {4: "b c h w", 5: "b c t h w"}
HINT = (
    'give layout="PATTERN, AXIS=SIZE, ...", an einops pattern from these latents to "b c h w" or "b c t h w", '
    'for example layout="b (h w) c -> b c h w, h=16, w=16"'
)
# Two-by-two patches folded into the channels, one row per token: FLUX.1 and its kin.
PATCHES = "b (h w) (c p q) -> b c (h p) (w q)"


@dataclass(frozen=True)
class Family:
    """How one family of pipelines keeps its latents.

    `layout` maps the tensor that `scheduler.step` sees to `(b, c, h, w)` or `(b, c, t, h, w)`; an empty one means that
    it already is one of them. `grid` gives the sizes that a packed layout cannot tell, from the pipeline and the
    arguments of its call. `prediction_sign` is the sign that turns the denoiser's output into what the scheduler is
    given. `denormalise` names the rule in `DENORMALISE` that takes plain latents to the VAE's decoder. `guidance_off`
    is the guidance scale at which the pipeline does not guide: 0 where it counts what is added to the prediction.
    """

    name: str
    pipelines: tuple[str, ...] = ()
    denoiser_attribute: str = "transformer"
    latent_argument: str = "hidden_states"
    layout: str = ""
    grid: Callable[[Any, Mapping[str, Any]], dict[str, int]] | None = None
    prediction_sign: int = 1
    denormalise: str = "scale_shift"
    guidance_off: float = 1.0

    def denoiser(self, pipe: Any) -> nn.Module:
        """The network that predicts: the UNet or the transformer."""
        module: nn.Module | None = getattr(pipe, self.denoiser_attribute, None)
        if module is None:
            name = type(pipe).__name__
            raise UserError(f"{name} has no {self.denoiser_attribute}, which a pipeline of family {self.name} needs")
        return module

    def plain(self, latents: torch.Tensor, pipe: Any, call: Mapping[str, Any] | None = None) -> torch.Tensor:
        """Latents as the pipeline keeps them -> `(b, c, h, w)` or `(b, c, t, h, w)`. Raises UserError if it cannot."""
        if not self.layout:
            return _already_plain(latents, pipe)
        sizes = self.grid(pipe, call or {}) if self.grid is not None else {}
        return rearrange(latents, self.layout, sizes)

    def to_vae(self, latents: torch.Tensor, pipe: Any) -> torch.Tensor:
        """Plain latents as the pipeline generates them -> latents as the VAE decodes them."""
        return DENORMALISE[self.denormalise](latents, pipe.vae.config)


def _already_plain(latents: torch.Tensor, pipe: Any) -> torch.Tensor:
    if latents.ndim not in PLAIN:
        name, shape = type(pipe).__name__, tuple(latents.shape)
        raise UserError(f"{name} keeps its latents as {shape}, whose layout is unknown: {HINT}")
    return latents


def rearrange(latents: torch.Tensor, layout: str, sizes: Mapping[str, int]) -> torch.Tensor:
    """`einops.rearrange` whose failures say which layout met which shape."""
    import einops

    try:
        out: torch.Tensor = einops.rearrange(latents, layout, **sizes)
    except (einops.EinopsError, RuntimeError) as error:
        given = ", ".join(f"{axis}={size}" for axis, size in sizes.items()) or "no sizes"
        shape = tuple(latents.shape)
        raise UserError(f"the layout {layout!r} with {given} does not fit latents of shape {shape}: {HINT}") from error
    return out


def parse_layout(text: str) -> tuple[str, dict[str, int]]:
    """`"b (h w) c -> b c h w, h=16, w=16"` -> the pattern and its sizes. Raises UserError on anything else."""
    pattern, *pairs = (part.strip() for part in text.split(","))
    target = "".join(pattern.partition("->")[2].split())
    sizes = [re.fullmatch(r"([a-z]\w*)\s*=\s*([1-9]\d*)", pair) for pair in pairs]
    if not _is_target(target) or not all(sizes):
        raise UserError(f"layout {text!r} is not understood: {HINT}")
    return pattern, {size[1]: int(size[2]) for size in sizes if size}


def _is_target(target: str) -> bool:
    """True for `bchw`, `bcthw` and forms with composed axes, such as `bc(hp)(wq)`."""
    depth, axes = 0, 0
    for letter in target:
        axes += depth == 0 and letter != ")"
        depth += {"(": 1, ")": -1}.get(letter, 0)
    return depth == 0 and axes in PLAIN and target.startswith("bc")


def with_layout(family: Family, layout: str | None) -> Family:
    """`family` with the layout that a user gave; None leaves it alone."""
    if layout is None:
        return family
    pattern, sizes = parse_layout(layout)
    return replace(family, layout=pattern, grid=lambda pipe, call: sizes)


def _pixels(pipe: Any, call: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width in pixels as the pipeline resolves them when they are left out of the call."""
    default = getattr(pipe, "default_sample_size", 0) * getattr(pipe, "vae_scale_factor", 8)
    return int(call.get("height") or default), int(call.get("width") or default)


def _patch_grid(pipe: Any, call: Mapping[str, Any]) -> dict[str, int]:
    """Tokens per axis of a model with 2 x 2 patches."""
    height, width = _pixels(pipe, call)
    step = 2 * pipe.vae_scale_factor
    return {"h": height // step, "w": width // step}


def _patch_grid_2x2(pipe: Any, call: Mapping[str, Any]) -> dict[str, int]:
    return _patch_grid(pipe, call) | {"p": 2, "q": 2}


def _ltx_grid(pipe: Any, call: Mapping[str, Any]) -> dict[str, int]:
    space, time = pipe.vae_spatial_compression_ratio, pipe.vae_temporal_compression_ratio
    frames = (int(call["num_frames"]) - 1) // time + 1
    return {"t": frames, "h": int(call["height"]) // space, "w": int(call["width"]) // space}


def _scale_shift(latents: torch.Tensor, config: Any) -> torch.Tensor:
    shift: float = getattr(config, "shift_factor", None) or 0.0
    return latents / float(config.scaling_factor) + shift


def _mean_std(latents: torch.Tensor, config: Any) -> torch.Tensor:
    return latents * _per_channel(latents, config.latents_std) + _per_channel(latents, config.latents_mean)


def _mean_std_scale(latents: torch.Tensor, config: Any) -> torch.Tensor:
    """The configuration decides, by carrying per-channel statistics or not (SDXL, Mochi)."""
    if getattr(config, "latents_mean", None) is None or getattr(config, "latents_std", None) is None:
        return _scale_shift(latents, config)
    std, mean = (_per_channel(latents, values) for values in (config.latents_std, config.latents_mean))
    return latents * std / float(config.scaling_factor) + mean


def _per_channel(latents: torch.Tensor, values: Any) -> torch.Tensor:
    return latents.new_tensor(values).reshape(1, -1, *(1,) * (latents.ndim - 2))


def _none(latents: torch.Tensor, config: Any) -> torch.Tensor:
    return latents


def _packed_statistics(latents: torch.Tensor, config: Any) -> torch.Tensor:
    raise UserError("this family normalises its packed latents; decode them with the pipeline itself")


DENORMALISE: dict[str, Callable[[torch.Tensor, Any], torch.Tensor]] = {
    "scale_shift": _scale_shift,
    "mean_std": _mean_std,
    "mean_std_scale": _mean_std_scale,
    "packed_statistics": _packed_statistics,
    "none": _none,
}


def _packed(name: str, pipelines: tuple[str, ...], denormalise: str = "scale_shift") -> Family:
    return Family(name, pipelines, layout=PATCHES, grid=_patch_grid_2x2, denormalise=denormalise)


FRAMES_FIRST = "b t c h w -> b c t h w"

# Constants of the checkpoints (scale factors, prediction types) are read from the loaded objects, never kept here.
# `pipelines` are prefixes of class names; the longest that fits wins.
FAMILIES: tuple[Family, ...] = (
    Family("sd", ("StableDiffusion", "AltDiffusion", "LatentConsistencyModel"), "unet", "sample"),
    Family("sdxl", ("StableDiffusionXL", "Kolors"), "unet", "sample", denormalise="mean_std_scale"),
    Family("sd3", ("StableDiffusion3",)),
    _packed("flux", ("Flux", "VisualCloze")),
    _packed("chroma", ("Chroma",)),
    Family("flux2", ("Flux2",), layout="b (h w) c -> b c h w", grid=_patch_grid, denormalise="packed_statistics"),
    _packed("qwen-image", ("QwenImage",), "mean_std"),
    Family("lumina", ("LuminaPipeline",), prediction_sign=-1),
    Family("lumina2", ("Lumina2",), prediction_sign=-1),
    Family("z-image", ("ZImage",), latent_argument="x", prediction_sign=-1, guidance_off=0.0),
    Family("hidream", ("HiDream",), prediction_sign=-1),
    Family("auraflow", ("AuraFlow",)),
    Family("pixart", ("PixArt",)),
    Family("sana", ("Sana",)),
    Family("hunyuan-dit", ("HunyuanDiT",)),
    Family("cogview", ("CogView",)),
    Family("kandinsky2", ("KandinskyV22", "KandinskyPipeline"), "unet", "sample", denormalise="none"),
    Family("kandinsky3", ("Kandinsky3",), "unet", "sample"),
    Family("hunyuan-video", ("HunyuanVideo",)),
    Family("wan", ("Wan", "SkyReelsV2"), denormalise="mean_std"),
    Family("svd", ("StableVideoDiffusion",), "unet", "sample", layout=FRAMES_FIRST),
    Family("cogvideox", ("CogVideoX",), layout=FRAMES_FIRST),
    Family("ltx", ("LTX",), layout="b (t h w) c -> b c t h w", grid=_ltx_grid, denormalise="packed_statistics"),
    Family("mochi", ("Mochi",), denormalise="mean_std_scale"),
    Family("allegro", ("Allegro",)),
    Family("latte", ("Latte",)),
    Family("animatediff", ("AnimateDiff",), "unet", "sample"),
    Family("pixels", ("DDPM", "DDIM", "PNDM"), "unet", "sample", denormalise="none"),
)


def family_of(pipe: Any) -> Family:
    """The family of a pipeline, by the name of its class or of a base; else one that takes its latents as they come."""
    for base in type(pipe).__mro__:
        name = base.__name__ if base.__name__.endswith("Pipeline") else ""  # mixins carry the names of families too
        known = {prefix: family for family in FAMILIES for prefix in family.pipelines if name.startswith(prefix)}
        if known:
            return known[max(known, key=len)]
    return _unknown(pipe)


def _unknown(pipe: Any) -> Family:
    """A family for a pipeline that the registry does not hold: a UNet takes `sample`, a transformer `hidden_states`."""
    unet = getattr(pipe, "unet", None) is not None
    return Family("unknown", (), *(("unet", "sample") if unet else ("transformer", "hidden_states")))
