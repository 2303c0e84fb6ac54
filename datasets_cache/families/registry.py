"""What differs between pipeline families when pictures, clips and captions are encoded, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from datasets_cache.families import picture, text
from datasets_cache.families.text import Conditioning, Defaults
from spectra.errors import UserError


@dataclass(frozen=True)
class EncodingFamily:
    """How one kind of pipeline turns captions and pictures into what its denoiser is trained on."""

    text: Callable[[Any, str, Defaults], Conditioning]
    text_parts: tuple[str, ...]
    """Components that decide the embeddings."""
    empty: Callable[[Any, Defaults], Conditioning] | None = None
    """What stands for a dropped caption, where that is not the embedding of an empty one."""
    picture: Callable[[Any, Tensor, Mapping[str, Any]], Conditioning] | None = None
    """(pipe, pixels (1, 3, [t], h, w), facts) -> what the denoiser is told about a picture beside its caption."""
    picture_parts: tuple[str, ...] = ()
    """Components that decide it, beside the autoencoder."""
    vae: Literal["picture", "clip", "frames"] = "picture"
    """What the autoencoder takes: (n, 3, h, w); (n, 3, t, h, w); or the frames of clips as pictures."""
    video: bool = False
    """True where latents have frames."""
    frames: int = 1
    """Fewest pixel frames of a clip."""
    patch: int = 1
    """Latent pixels along each side of a patch that the denoiser takes as one."""
    fold: int = 1
    """Pixels of the autoencoder's latents along each side of a latent pixel, which holds them as channels."""
    side: int | None = None
    """Pixels along a side of a call that names no sizes, where neither its arguments nor the model say it."""


CLIP_AND_T5 = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2")
ONE_READER = ("tokenizer", "text_encoder")

FAMILIES: dict[str, EncodingFamily] = {
    "StableDiffusionPipeline": EncodingFamily(text.stable_diffusion, ONE_READER),
    "StableDiffusionXLPipeline": EncodingFamily(
        text.stable_diffusion_xl, CLIP_AND_T5, text.stable_diffusion_xl_empty, picture.sizes
    ),
    "StableDiffusion3Pipeline": EncodingFamily(
        text.stable_diffusion_3, (*CLIP_AND_T5, "tokenizer_3", "text_encoder_3"), patch=2
    ),
    "FluxPipeline": EncodingFamily(text.flux, CLIP_AND_T5, patch=2),
    "Flux2Pipeline": EncodingFamily(text.flux2, ONE_READER, fold=2),
    "Flux2KleinPipeline": EncodingFamily(text.flux2, ONE_READER, fold=2),
    "ZImagePipeline": EncodingFamily(text.z_image, ONE_READER, patch=2, side=1024),
    "Lumina2Pipeline": EncodingFamily(text.masked, ONE_READER, text.masked_empty, patch=2),
    "QwenImagePipeline": EncodingFamily(text.qwen, ONE_READER, vae="clip", patch=2),
    "PixArtAlphaPipeline": EncodingFamily(text.masked, ONE_READER, text.masked_empty, patch=2),
    "PixArtSigmaPipeline": EncodingFamily(text.masked, ONE_READER, text.masked_empty, patch=2),
    "SanaPipeline": EncodingFamily(text.sana, ONE_READER, text.masked_empty),
    "WanPipeline": EncodingFamily(text.wan, ONE_READER, vae="clip", video=True, patch=2),
    "LTXPipeline": EncodingFamily(text.masked, ONE_READER, text.masked_empty, vae="clip", video=True),
    "StableVideoDiffusionPipeline": EncodingFamily(
        text.no_text, (), picture.no_picture, picture.first_frame, ("image_encoder", "feature_extractor"),
        vae="frames", video=True, frames=2,
    ),
}  # fmt: skip
"""By pipeline class; subclasses are found through their bases."""


def encoding_family(pipe: Any) -> EncodingFamily:
    """The family of a pipeline; UserError when it is not known how to encode for it."""
    for base in type(pipe).__mro__:
        if base.__name__ in FAMILIES:
            return FAMILIES[base.__name__]
    known = ", ".join(FAMILIES)
    raise UserError(f"cannot encode a data set for a {type(pipe).__name__} yet; known pipelines: {known}")
