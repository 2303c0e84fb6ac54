"""One case per picture pipeline: how to build it tiny, what to call it with, and the pipeline's own packing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.matrix import image_diffusion, image_flow, image_tokens
from tests.matrix.parts import BATCH, embedding, masks, pooled, prompts
from tests.tiny import tiny_sd, tiny_sd3


def _as_is(pipe: Any, latents: Tensor) -> Tensor:
    return latents


def _no_unpacking(pipe: Any, latents: Tensor, grid: tuple[int, int]) -> Tensor:
    return latents


def _returned(pipe: Any, result: Any) -> Tensor:
    latents: Tensor = result.images
    return latents


@dataclass(frozen=True)
class Case:
    """A pipeline of the matrix.

    `grid` is that of the plain latents, `pixels` the pixels along one side of a latent pixel, 0 where a call has no
    sizes. `call` holds what stands
    for the prompts; `on` and `off` switch guidance. `given` lays plain noise out as the argument `latents` wants it;
    `unpack` is the pipeline's own way from what it steps to plain latents of `grid`, and `returned` takes its result
    to what it steps. `short` is a call that leaves sizes out, or has the pipeline replace them, and yields `grid` all
    the same. `direct` pipelines hand on what the denoiser predicts, up to its sign.
    """

    family: str
    build: Callable[[], Any]
    call: Mapping[str, Any]
    grid: tuple[int, int] = (8, 12)
    pixels: int = 8
    channels: int = 4
    on: Mapping[str, Any] = field(default_factory=lambda: {"guidance_scale": 3.0})
    off: Mapping[str, Any] = field(default_factory=lambda: {"guidance_scale": 1.0})
    given: Callable[[Any, Tensor], Tensor] = _as_is
    unpack: Callable[[Any, Tensor, tuple[int, int]], Tensor] = _no_unpacking
    returned: Callable[[Any, Any], Tensor] = _returned
    short: Mapping[str, Any] | None = None
    direct: bool = True

    def noise(self) -> Tensor:
        return embedding(BATCH, self.channels, *self.grid, seed=11)

    def size(self) -> dict[str, int]:
        return {"height": self.grid[0] * self.pixels, "width": self.grid[1] * self.pixels} if self.pixels else {}


def _packed(pipe: Any, x: Tensor) -> Tensor:
    tokens: Tensor = pipe._pack_latents(x, *x.shape)
    return tokens


def _unpacked(pipe: Any, latents: Tensor, grid: tuple[int, int]) -> Tensor:
    height, width = (side * pipe.vae_scale_factor for side in grid)
    plain: Tensor = pipe._unpack_latents(latents, height, width, pipe.vae_scale_factor)
    return plain[:, :, 0] if plain.ndim == 5 else plain


def _unpacked_by_token(pipe: Any, latents: Tensor, grid: tuple[int, int]) -> Tensor:
    height, width = (side // 2 * pipe.vae_scale_factor for side in grid)
    plain: Tensor = pipe._unpack_latents(latents, height, width, pipe.vae_scale_factor)
    return plain


def _unpacked_by_patch(pipe: Any, latents: Tensor, grid: tuple[int, int]) -> Tensor:
    height, width = (side * pipe.vae_scale_factor for side in grid)
    plain: Tensor = pipe._unpack_latents(latents, height, width)
    return plain[:, :, 0]


def _packed_by_patch(pipe: Any, x: Tensor) -> Tensor:
    tokens: Tensor = pipe._pack_latents(x, *x.shape, 2)
    return tokens


def _unpacked_by_patch_size(pipe: Any, latents: Tensor, grid: tuple[int, int]) -> Tensor:
    height, width = (side * pipe.vae_scale_factor for side in grid)
    plain: Tensor = pipe._unpack_latents(latents, height, width, 2, pipe.vae_scale_factor)
    return plain[:, :, 0]


def _folded(pipe: Any, latents: Tensor, grid: tuple[int, int]) -> Tensor:
    """FLUX.2 keeps patches in the channels; positions say where a token belongs."""
    ids = pipe._prepare_latent_ids(torch.zeros(len(latents), 1, *grid))
    plain: Tensor = pipe._unpack_latents_with_ids(latents, ids)
    return plain


def _normalised(pipe: Any, result: Any) -> Tensor:
    """Klein returns what its autoencoder decodes; this is how it takes an encoded picture the other way."""
    statistics = pipe.vae.bn
    mean, variance = (value.view(1, -1, 1, 1) for value in (statistics.running_mean, statistics.running_var))
    folded = (pipe._patchify_latents(result.images) - mean) / torch.sqrt(variance + pipe.vae.config.batch_norm_eps)
    tokens: Tensor = pipe._pack_latents(folded)
    return tokens


def _embeddings(pipe: Any, result: Any) -> Tensor:
    latents: Tensor = result.image_embeddings
    return latents


def _scaled(pipe: Any, result: Any) -> Tensor:
    """Sprint returns latents of unit scale, and steps those of its scheduler's."""
    latents: Tensor = result.images * pipe.scheduler.config.sigma_data
    return latents


def _channels_last(pipe: Any, x: Tensor) -> Tensor:
    return x.movedim(1, -1).unsqueeze(1)


def _channels_first(pipe: Any, latents: Tensor, grid: tuple[int, int]) -> Tensor:
    return latents.squeeze(1).movedim(-1, 1)


def _image(pipe: Any, result: Any) -> Tensor:
    latents: Tensor = result.image
    return latents


def _listed(tensors: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
    return {name: list(tensor) for name, tensor in tensors.items()}


def _defaulted(build: Callable[[], Any]) -> Callable[[], Any]:
    """The same pipeline with a default size of 12 latent pixels."""

    def made() -> Any:
        pipe = build()
        pipe.default_sample_size = 12
        return pipe

    return made


def _flux(name: str, in_channels: int = 16) -> Callable[[], Any]:
    return _defaulted(partial(image_tokens.flux, name, in_channels))


def _positive(tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("negative")}


WORDS = {"prompt": ["a red dot", "a blue square"]}
T5_TEXT = prompts(16) | masks()
UNBINNED = T5_TEXT | {"use_resolution_binning": False, "negative_prompt": None}
FLUX_TEXT = prompts(32) | pooled(32)
PICTURE = {"image": embedding(BATCH, 3, 64, 96).clamp(0, 1)}
MASK = {"mask_image": torch.ones(BATCH, 1, 64, 96)}
HALF = {"height": 64}  # and the width is the pipeline's default
TOKENS: dict[str, Any] = {"given": _packed, "unpack": _unpacked}
TRUE_CFG: dict[str, Any] = {"on": {"true_cfg_scale": 3.0}, "off": {"true_cfg_scale": 1.0}}
FLUX: dict[str, Any] = TOKENS | TRUE_CFG
KREA: dict[str, Any] = {"given": _packed, "unpack": _unpacked_by_patch}
PATCHED: dict[str, Any] = {"given": _packed_by_patch, "unpack": _unpacked_by_patch_size}
LAYERS = {"prompt_embeds": embedding(BATCH, 5, 2, 16), "negative_prompt_embeds": embedding(BATCH, 5, 2, 16, seed=2)}
LAYERS |= masks("prompt_embeds_mask", torch.bool)
FLUX2: dict[str, Any] = {"unpack": _folded, "channels": 16, "grid": (4, 6), "pixels": 16, "short": HALF}
LLAMA = {
    "prompt_embeds_llama3": embedding(2, BATCH, 5, 16),
    "negative_prompt_embeds_llama3": embedding(2, BATCH, 5, 16, seed=5),
}
CASCADE = {
    "prompt_embeds_pooled": embedding(BATCH, 1, 16),
    "negative_prompt_embeds_pooled": embedding(BATCH, 1, 16, seed=3),
}
ENDS = torch.tensor([0, 5, 10])  # of the prompts, one after the other
QWEN_AND_CLIP = prompts(16, "prompt_embeds_qwen") | pooled(16, "prompt_embeds_clip")
QWEN_AND_CLIP |= {"prompt_cu_seqlens": ENDS, "negative_prompt_cu_seqlens": ENDS}
SPRINT = {"intermediate_timesteps": None, "use_resolution_binning": False}
ALONE = {"guidance_scale": 1.0, "negative_prompt_embeds": None, "negative_prompt_embeds_pooled": None}
BERT_AND_T5 = UNBINNED | prompts(16, "prompt_embeds_2") | masks("prompt_attention_mask_2")

CASES: dict[str, Case] = {
    "StableDiffusionPipeline": Case("sd", partial(tiny_sd, "epsilon"), WORDS, grid=(16, 24), pixels=4),
    "StableDiffusionXLPipeline": Case("sdxl", image_diffusion.sdxl, prompts(16) | pooled(16)),
    "StableDiffusion3Pipeline": Case("sd3", tiny_sd3, WORDS, grid=(16, 12), pixels=4),
    "FluxPipeline": Case("flux", _flux("FluxPipeline"), FLUX_TEXT, **FLUX, short=HALF),
    "FluxImg2ImgPipeline": Case(
        "flux", _flux("FluxImg2ImgPipeline"), FLUX_TEXT | PICTURE | {"strength": 0.7}, **FLUX, short=HALF
    ),
    "FluxFillPipeline": Case(
        "flux",
        _flux("FluxFillPipeline", 288),
        _positive(FLUX_TEXT) | PICTURE | MASK,
        **TOKENS,
        on={},
        off={},
        short=HALF,
    ),
    "FluxKontextPipeline": Case(
        "flux",
        _flux("FluxKontextPipeline"),
        FLUX_TEXT | {"image": embedding(BATCH, 4, 4, 6), "max_area": 64 * 96},
        **FLUX,
        short={"height": 192, "width": 288},
    ),
    "Flux2Pipeline": Case("flux2", _defaulted(image_tokens.flux2), _positive(prompts(32)), **FLUX2),
    "Flux2KleinPipeline": Case(
        "flux2",
        _defaulted(partial(image_tokens.flux2, "Flux2KleinPipeline")),
        prompts(32),
        **FLUX2,
        returned=_normalised,
    ),
    "ChromaPipeline": Case(
        "chroma", _defaulted(image_tokens.chroma), prompts(32) | masks(dtype=torch.bool), **TOKENS, short=HALF
    ),
    "QwenImagePipeline": Case(
        "qwen-image", _defaulted(image_tokens.qwen), prompts(32), pixels=4, **FLUX, short={"height": 32}
    ),
    "Krea2Pipeline": Case("krea2", image_tokens.krea2, LAYERS, pixels=4, **KREA, off={"guidance_scale": 0.0}),
    "NucleusMoEImagePipeline": Case(
        "nucleus", _defaulted(image_tokens.nucleus), prompts(32), pixels=4, **PATCHED, short={"height": 32}
    ),
    "OvisImagePipeline": Case(
        "ovis-image", _defaulted(image_tokens.ovis), prompts(32) | {"negative_prompt": None}, **TOKENS, short=HALF
    ),
    "BriaPipeline": Case("bria", image_tokens.bria, prompts(32), given=_packed, unpack=_unpacked_by_token),
    "ZImagePipeline": Case("z-image", image_flow.z_image, _listed(prompts(16)), off={"guidance_scale": 0.0}),
    "LuminaPipeline": Case("lumina", image_flow.lumina, T5_TEXT),
    "Lumina2Pipeline": Case("lumina2", image_flow.lumina2, T5_TEXT),
    "HiDreamImagePipeline": Case(
        "hidream", image_flow.hidream, prompts(16, "prompt_embeds_t5") | pooled(32) | LLAMA, grid=(4, 16)
    ),
    "AuraFlowPipeline": Case("auraflow", image_flow.aura_flow, T5_TEXT),
    "SanaPipeline": Case("sana", image_flow.sana, UNBINNED | prompts(8)),
    "SanaSprintPipeline": Case(
        "sana-sprint",
        image_flow.sana_sprint,
        _positive(T5_TEXT | prompts(8)) | SPRINT,
        on={},
        off={},
        direct=False,
        returned=_scaled,
    ),
    "CogView4Pipeline": Case("cogview", image_flow.cogview4, prompts(16)),
    "CogView3PlusPipeline": Case("cogview", image_diffusion.cogview3, prompts(16)),
    "PixArtAlphaPipeline": Case("pixart", image_diffusion.pixart, UNBINNED),
    "PixArtSigmaPipeline": Case("pixart", partial(image_diffusion.pixart, "PixArtSigmaPipeline"), UNBINNED),
    "HunyuanDiTPipeline": Case("hunyuan-dit", image_diffusion.hunyuan_dit, BERT_AND_T5),
    "KandinskyV22Pipeline": Case(
        "kandinsky2",
        image_diffusion.kandinsky22,
        {"image_embeds": embedding(BATCH, 16), "negative_image_embeds": embedding(BATCH, 16, seed=2)},
        grid=(8, 16),
    ),
    "Kandinsky3Pipeline": Case(
        "kandinsky3", image_diffusion.kandinsky3, prompts(16) | masks("attention_mask"), grid=(8, 16)
    ),
    "Kandinsky5T2IPipeline": Case(
        "kandinsky5-image",
        image_flow.kandinsky5,
        QWEN_AND_CLIP,
        given=_channels_last,
        unpack=_channels_first,
        returned=_image,
    ),
    "StableCascadePriorPipeline": Case(
        "stable-cascade-prior",
        image_diffusion.stable_cascade_prior,
        prompts(16) | CASCADE,
        off=ALONE,
        returned=_embeddings,
    ),
    "StableCascadeDecoderPipeline": Case(
        "stable-cascade",
        image_diffusion.stable_cascade_decoder,
        prompts(16) | CASCADE | {"image_embeddings": embedding(BATCH, 4, 4, 6)},
        pixels=0,
    ),
}
