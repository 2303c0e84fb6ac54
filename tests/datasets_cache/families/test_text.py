"""What is told of captions, and of dropped ones, against what pipelines hand to their denoisers."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor

from datasets_cache.families import encode_caption, encode_empty, encoding_family, text_identity
from spectra.errors import UserError
from spectra.families import family_of
from spectra.models import call_defaults
from spectra.prompts import quiet_cuts
from tests.matrix.train_calls import arguments
from tests.matrix.train_models import MODELS, opened

GUIDED: dict[str, dict[str, Any]] = {
    "flux": {"true_cfg_scale": 2.0, "negative_prompt": ["", ""]},
    "qwen-image": {"true_cfg_scale": 2.0, "negative_prompt": ["", ""]},
    "svd": {"min_guidance_scale": 2.0, "max_guidance_scale": 2.0},
}
READERS = [name for name in MODELS if name not in ("svd", "flux-schnell", "sd2", "pixart-alpha")]
UNGUIDED = ("flux2",)
"""Models of which the pipeline asks one answer a step."""


def handed(name: str) -> list[dict[str, Any]]:
    """Arguments of the denoiser in two guided steps."""
    pipe = opened(name)
    seen: list[dict[str, Any]] = []
    denoiser = family_of(pipe).denoiser(pipe)
    signature = inspect.signature(denoiser.forward)
    watch = denoiser.register_forward_pre_hook(
        lambda _, args, named: seen.append(signature.bind(*args, **named).arguments), with_kwargs=True
    )
    call = arguments(name) | {"num_inference_steps": 2} | GUIDED.get(name, {"guidance_scale": 2.0})
    try:
        with quiet_cuts():
            pipe(**call)
    finally:
        watch.remove()
    return seen


def rows(named: list[dict[str, Any]], key: str) -> list[Tensor]:
    """Every sample's entry of that name, nested ones included."""
    whole = [one | (one.get("added_cond_kwargs") or {}) for one in named]
    return [row.float() for one in whole if one.get(key) is not None for row in one[key]]


def among(value: Tensor, found: list[Tensor]) -> bool:
    """Whether a pipeline handed this on, perhaps without padding."""
    return any(torch.allclose(value[: len(row)].expand_as(row), row, atol=1e-5) for row in found)


@pytest.mark.parametrize("name", [name for name in READERS if name not in UNGUIDED])
def test_a_dropped_caption_is_what_the_pipeline_guides_away_from(name: str) -> None:
    pipe, named = opened(name), handed(name)
    with quiet_cuts():
        empty = encode_empty(pipe, call_defaults(pipe))
        told = encode_caption(pipe, "a dot", call_defaults(pipe))
    assert empty.keys() == told.keys()
    for key in ("encoder_hidden_states", "encoder_attention_mask", "text_embeds", "pooled_projections", "cap_feats"):
        if key in empty:
            assert among(empty[key], rows(named, key)), key
            assert among(told[key], rows(named, key)), key
            assert empty[key].shape == told[key].shape
    words = next(iter(told))
    assert not torch.allclose(empty[words], told[words])


def test_a_dropped_picture_is_what_svd_guides_away_from() -> None:
    pipe, named = opened("svd"), handed("svd")
    empty = encode_empty(pipe, {})
    assert empty.keys() == {"encoder_hidden_states", "image_latents"}
    assert all(not value.any() for value in empty.values())
    assert among(empty["encoder_hidden_states"], rows(named, "encoder_hidden_states"))
    assert encode_caption(pipe, "anything", {}) == {}


def test_captions_of_any_length_are_told_in_equal_shapes() -> None:
    for name in READERS:
        pipe = opened(name)
        with quiet_cuts():
            shapes = [
                {key: value.shape for key, value in encode_caption(pipe, text, call_defaults(pipe)).items()}
                for text in ("", "a dot", "words " * 300)
            ]
        assert shapes[0] == shapes[1] == shapes[2], name


def test_the_identity_of_texts_follows_the_encoder_and_the_arguments() -> None:
    pipe = opened("wan")
    before = text_identity(pipe, {})
    weight = next(pipe.text_encoder.parameters())
    with torch.no_grad():
        weight.add_(1)
        changed = text_identity(pipe, {})
        weight.sub_(1)
    assert len({before, changed, text_identity(pipe, {"max_sequence_length": 3})}) == 3


def test_an_unknown_pipeline_is_refused() -> None:
    with pytest.raises(UserError, match="cannot encode a data set for a Unheard yet; known pipelines: StableDiffusion"):
        encoding_family(type("Unheard", (), {})())
