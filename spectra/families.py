"""What differs between model families, as data: where the denoiser is, how latents are laid out and reach the VAE.

A pipeline class is looked up by name, then by the names of its bases, so subclasses of a known pipeline are known too.
Families that the registry does not hold still work when their latents are plain `(b, c, h, w)` or `(b, c, t, h, w)`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from spectra.denormalise import DENORMALISE
from spectra.errors import UserError
from spectra.normalise import NORMALISE
from spectra.recording.tap import tap

if TYPE_CHECKING:
    import torch
    from torch import nn

SIZES = ("height", "width", "num_frames")
PLAIN = {4: "b c h w", 5: "b c t h w"}
HINT = (
    'give layout="PATTERN, AXIS=SIZE, ...", an einops pattern from these latents to "b c h w" or "b c t h w", '
    'for example layout="b (h w) c -> b c h w, h=16, w=16"'
)
# Two-by-two patches folded into the channels, one row per token: FLUX.1 and its kin.
PATCHES = "b (h w) (c p q) -> b c (h p) (w q)"
TOKENS = "b (h w) c -> b c h w"
LAYERS = "b (t h w) (c p q) -> b c t (h p) (w q)"


@dataclass(frozen=True)
class Family:
    """How one family of pipelines keeps its latents.

    `layout` maps the tensor that `scheduler.step` sees to `(b, c, h, w)` or `(b, c, t, h, w)`; an empty one means that
    it already is one of them. `grid` gives the sizes that a packed layout cannot tell, from the pipeline and the
    arguments of its call. `prediction_sign` is the sign that turns the denoiser's output into what the scheduler is
    given. `denormalise` names the rule in `DENORMALISE` that takes plain latents to the decoder of the model that
    `decoder_attribute` names. `guidance_off` is the guidance scale at which the pipeline does not guide: 0 where it
    counts what is added to the prediction. `scaled_data` says that latents are kept at `sigma_data` of the scheduler's
    configuration times their own scale. `causal` says that the first latent frame stands for one frame of the video,
    and each later one for several. `embedded` says that `guidance_scale` is an input of the network, not a factor.
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
    decoder_attribute: str = "vae"
    scaled_data: bool = False
    causal: bool = False
    embedded: bool = False

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
        """Plain latents as the pipeline generates them -> latents as its decoder takes them."""
        unit = float(pipe.scheduler.config.sigma_data) if self.scaled_data else 1.0
        return DENORMALISE[self.denormalise](latents / unit, getattr(pipe, self.decoder_attribute, None))

    def from_vae(self, raw: torch.Tensor, pipe: Any) -> torch.Tensor:
        """Latents as the encoder gives them -> plain latents as the pipeline generates them; inverse of `to_vae`."""
        unit = float(pipe.scheduler.config.sigma_data) if self.scaled_data else 1.0
        return NORMALISE[self.denormalise](raw, getattr(pipe, self.decoder_attribute, None)) * unit

    @contextmanager
    def resolving(self, pipe: Any, call: dict[str, Any]) -> Iterator[None]:
        """Put the sizes that the pipeline settles on into `call`, for the length of one call of the pipeline.

        A call may leave sizes out, and some pipelines round or replace those that they are given (FLUX.1 Kontext);
        `prepare_latents` is told the final ones. Nothing happens for families whose layout needs no sizes.
        """

        def listen(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            given = inspect.signature(original).bind(*args, **kwargs).arguments
            call.update({name: given[name] for name in SIZES if given.get(name) is not None})
            return original(*args, **kwargs)

        if self.grid is None or not hasattr(pipe, "prepare_latents"):
            yield
            return
        with tap(pipe, "prepare_latents", listen):
            yield


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
    """Height and width in pixels. Defaults are not guessed: as many tokens may be a picture of another shape."""
    height, width = call.get("height"), call.get("width")
    if not height or not width:
        name = type(pipe).__name__
        raise UserError(f"latents of {name} are rows of tokens, which do not tell their shape: give height and width")
    return int(height), int(width)


def _patch_grid(pipe: Any, call: Mapping[str, Any]) -> dict[str, int]:
    """Tokens per axis of a model with 2 x 2 patches."""
    height, width = _pixels(pipe, call)
    step = 2 * pipe.vae_scale_factor
    return {"h": height // step, "w": width // step}


def _pixel_grid(pipe: Any, call: Mapping[str, Any]) -> dict[str, int]:
    """Tokens per axis where each is one pixel of what `vae_scale_factor` counts."""
    height, width = _pixels(pipe, call)
    return {"h": height // pipe.vae_scale_factor, "w": width // pipe.vae_scale_factor}


def _pixel_grid_2x2(pipe: Any, call: Mapping[str, Any]) -> dict[str, int]:
    return _pixel_grid(pipe, call) | {"p": 2, "q": 2}


def _patch_grid_2x2(pipe: Any, call: Mapping[str, Any]) -> dict[str, int]:
    return _patch_grid(pipe, call) | {"p": 2, "q": 2}


def _ltx_grid(pipe: Any, call: Mapping[str, Any]) -> dict[str, int]:
    space, time = pipe.vae_spatial_compression_ratio, pipe.vae_temporal_compression_ratio
    frames = (int(call["num_frames"]) - 1) // time + 1
    return {"t": frames, "h": int(call["height"]) // space, "w": int(call["width"]) // space}


def _packed(name: str, pipelines: tuple[str, ...], denormalise: str = "scale_shift", **more: Any) -> Family:
    return Family(name, pipelines, layout=PATCHES, grid=_patch_grid_2x2, denormalise=denormalise, **more)


FRAMES_FIRST = "b t c h w -> b c t h w"
FRAMES_PACKED = "b (t h w) c -> b c t h w"

# Constants of the checkpoints (scale factors, prediction types) are read from the loaded objects, never kept here.
# `pipelines` are prefixes of class names; the longest that fits wins.
FAMILIES: tuple[Family, ...] = (
    Family("sd", ("StableDiffusion", "AltDiffusion", "LatentConsistencyModel"), "unet", "sample", denormalise="scale"),
    Family("sdxl", ("StableDiffusionXL", "Kolors"), "unet", "sample", denormalise="mean_std_scale"),
    Family("sd3", ("StableDiffusion3",)),
    _packed("flux", ("Flux", "VisualCloze"), embedded=True),
    _packed("chroma", ("Chroma",)),
    _packed("ovis-image", ("OvisImage",)),
    _packed("longcat-image", ("LongCatImage",)),
    _packed("krea2", ("Krea2",), "mean_std_frame", guidance_off=0.0),
    _packed("nucleus", ("NucleusMoEImage",), "mean_std_frame", prediction_sign=-1),
    Family("bria", ("BriaPipeline",), layout=PATCHES, grid=_pixel_grid_2x2),
    Family("bria-fibo", ("BriaFiboPipeline",), layout=TOKENS, grid=_pixel_grid, denormalise="mean_std_frame"),
    Family("flux2", ("Flux2", "Flux3"), layout=TOKENS, grid=_patch_grid, denormalise="batch_norm", embedded=True),
    _packed("qwen-image", ("QwenImage",), "mean_std_frame"),
    Family("qwen-image-layered", ("QwenImageLayered",), layout=LAYERS, grid=_patch_grid_2x2, denormalise="mean_std"),
    Family("qwen-image-2.1", ("QwenImage21",), layout=TOKENS, grid=_pixel_grid, denormalise="mean_std_frame"),
    Family("lumina", ("LuminaPipeline",), prediction_sign=-1, denormalise="scale"),
    Family("lumina2", ("Lumina2",), prediction_sign=-1),
    Family("z-image", ("ZImage",), latent_argument="x", prediction_sign=-1, guidance_off=0.0),
    Family("hidream", ("HiDream",), prediction_sign=-1),
    Family("auraflow", ("AuraFlow",), denormalise="scale"),
    Family("pixart", ("PixArt",), denormalise="scale"),
    Family("sana", ("Sana",), denormalise="scale"),
    Family("sana-sprint", ("SanaSprint",), denormalise="scale", scaled_data=True, embedded=True),
    Family("hunyuan-dit", ("HunyuanDiT",), denormalise="scale"),
    Family("cogview", ("CogView",), denormalise="scale"),
    Family("kandinsky2", ("KandinskyV22", "KandinskyPipeline"), "unet", "sample", denormalise="none"),
    Family("kandinsky3", ("Kandinsky3",), "unet", "sample", denormalise="none"),
    Family(
        "kandinsky5-image",
        ("Kandinsky5T2I", "Kandinsky5I2I"),
        layout="b 1 h w c -> b c h w",
        denormalise="scale",
    ),
    Family("stable-cascade-prior", ("StableCascadePrior",), "prior", "sample", denormalise="none"),
    Family(
        "stable-cascade",
        ("StableCascadeDecoder",),
        "decoder",
        "sample",
        "",
        denormalise="scale_factor",
        decoder_attribute="vqgan",
    ),
    Family("hunyuan-video", ("HunyuanVideo",), causal=True),
    Family("wan", ("Wan", "SkyReelsV2"), denormalise="mean_std", causal=True),
    Family("svd", ("StableVideoDiffusion",), "unet", "sample", layout=FRAMES_FIRST),
    Family("cogvideox", ("CogVideoX", "ConsisID"), layout=FRAMES_FIRST, causal=True),
    Family("ltx", ("LTX",), layout=FRAMES_PACKED, grid=_ltx_grid, denormalise="mean_std_buffers", causal=True),
    Family("mochi", ("Mochi",), denormalise="mean_std_scale", causal=True),
    Family("allegro", ("Allegro",)),
    Family("latte", ("Latte",)),
    Family("animatediff", ("AnimateDiff",), "unet", "sample"),
    Family("cosmos", ("CosmosTextToWorld",), denormalise="mean_std_frames", scaled_data=True, causal=True),
    Family("kandinsky5", ("Kandinsky5T2V",), layout="b t h w c -> b c t h w", causal=True),
    Family("sana-video", ("SanaVideo", "SanaImageToVideo"), denormalise="mean_std_found", causal=True),
    Family("gaussian", ("GaussianPipeline",), denormalise="none"),
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
