"""Latents of every family against its own autoencoder and its own pipeline."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from datasets_cache.families import (
    call_sizes,
    check_pixels,
    decode_latents,
    encode_picture,
    encode_pixels,
    native_size,
    size_step,
    vae_identity,
)
from spectra.errors import UserError
from spectra.families import family_of
from spectra.prompts import quiet_cuts
from tests.matrix.train_calls import arguments
from tests.matrix.train_models import MODELS, opened

VIDEOS = [name for name, model in MODELS.items() if model.frames]
PICTURES = [name for name in MODELS if name not in VIDEOS]
DISTINCT = ["sd", "sdxl", "sd3", "flux", "flux2", "z-image", "lumina2", "qwen-image", "pixart-sigma", "sana", *VIDEOS]


def pixels(name: str, count: int = 1) -> Tensor:
    """(count, 3, [t], h, w) in -1..1"""
    model = MODELS[name]
    shape = (count, 3, model.frames, *model.size) if model.frames else (count, 3, *model.size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(3)) * 2 - 1


def facts(name: str) -> dict[str, Any]:
    return {"original": (500, 300), "crop": (4, 7), "target": MODELS[name].size}


@torch.no_grad()
def by_vae(pipe: Any, given: Tensor) -> Tensor:
    """The autoencoder's own latents, asked as its documentation says."""
    kind = type(pipe.vae).__name__
    if kind == "AutoencoderDC":
        return pipe.vae.encode(given).latent  # type: ignore[no-any-return]
    if kind == "AutoencoderKLTemporalDecoder":
        return torch.stack([pipe.vae.encode(frame).latent_dist.mode() for frame in given.unbind(2)], 2)
    given = given.unsqueeze(2) if kind == "AutoencoderKLQwenImage" else given
    return pipe.vae.encode(given).latent_dist.mode()  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", DISTINCT)
def test_an_encoded_picture_is_the_autoencoders_own_latent(name: str) -> None:
    """`Family.to_vae`, which is checked against what pipelines decode, takes it back."""
    pipe, given = opened(name), pixels(name, 2)
    latents = encode_pixels(pipe, given)
    expected = by_vae(pipe, given)
    assert latents.dtype == torch.float32
    assert expected.std() > 1e-3
    torch.testing.assert_close(family_of(pipe).to_vae(latents, pipe), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", DISTINCT)
def test_a_picture_alone_is_encoded_as_in_company(name: str) -> None:
    pipe, given = opened(name), pixels(name, 2)
    torch.testing.assert_close(encode_pixels(pipe, given)[1:], encode_pixels(pipe, given[1:]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", DISTINCT)
def test_decoded_latents_are_the_pictures_of_the_pipeline(name: str) -> None:
    pipe, call = opened(name), arguments(name) | {"num_inference_steps": 2}

    def made(kind: str) -> Tensor:
        with quiet_cuts():
            noise = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
            told = copy.deepcopy(call)  # Z-Image writes its template into the list of prompts
            result = pipe(**told | {"output_type": kind, "generator": noise})
        found: Tensor = result.frames if MODELS[name].frames else result.images
        return found

    latents = family_of(pipe).plain(made("latent"), pipe, call)
    expected = made("pt")
    expected = expected.transpose(1, 2) if MODELS[name].frames else expected
    decoded = decode_latents(pipe, latents)
    torch.testing.assert_close(decoded, expected, rtol=1e-4, atol=1e-4)
    assert decoded.std() > 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_the_sizes_of_a_call_are_those_of_its_latents(name: str) -> None:
    pipe, model = opened(name), MODELS[name]
    latent, _ = encode_picture(pipe, pixels(name), facts(name))
    frames = {"num_frames": model.frames} if model.frames else {}
    assert call_sizes(pipe, latent.shape) == {"height": model.size[0], "width": model.size[1], **frames}
    assert not any(side % size_step(pipe) for side in model.size)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("sd", (64, 64)), ("sdxl", (64, 64)), ("flux", (1024, 1024)), ("flux2", (1024, 1024)), ("lumina2", (64, 64)),
        ("qwen-image", (512, 512)), ("z-image", (1024, 1024)), ("wan", (480, 832)), ("ltx", (512, 704)),
        ("svd", (576, 1024)), ("sana", (1024, 1024)),
    ],
)  # fmt: skip
def test_the_native_size_is_that_of_a_call_without_sizes(name: str, size: tuple[int, int]) -> None:
    assert native_size(opened(name)) == size


@pytest.mark.parametrize("name", ["wan", "ltx"])
def test_a_picture_is_a_clip_of_one_frame(name: str) -> None:
    pipe, given = opened(name), pixels(name)[:, :, 0]
    assert torch.equal(encode_pixels(pipe, given), encode_pixels(pipe, given[:, :, None]))
    assert encode_pixels(pipe, given).shape[2] == 1
    assert decode_latents(pipe, encode_pixels(pipe, given)).shape == (1, 3, 1, *MODELS[name].size)


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        ("flux", (3, 64, 72), "multiples of 16 pixels, not 72 x 64"),
        ("flux2", (3, 72, 64), "multiples of 16 pixels, not 64 x 72"),
        ("sd", (3, 2, 64, 64), r"learns from pictures, not from clips of 2 frames; set frames = 1"),
        ("wan", (3, 6, 32, 32), "cannot learn from clips of 6 frames; set frames to 5"),
        ("svd", (3, 16, 24), "cannot learn from clips of 1 frame; set frames to 2"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(name: str, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_pixels(opened(name), shape)


def test_sdxl_is_told_the_sizes_of_a_picture() -> None:
    told = encode_picture(opened("sdxl"), pixels("sdxl"), facts("sdxl"))[1]
    assert told.keys() == {"time_ids"}
    assert told["time_ids"].tolist() == [500, 300, 4, 7, 64, 96]


def test_svd_is_told_the_first_frame_and_the_frame_rate() -> None:
    pipe, clip = opened("svd"), pixels("svd")
    _, told = encode_picture(pipe, clip, facts("svd"))
    assert told["added_time_ids"].tolist() == pytest.approx([6, 127, 0.02])
    assert encode_picture(pipe, clip, facts("svd") | {"fps": 25})[1]["added_time_ids"][0] == 24
    later, sooner = clip.clone(), clip.clone()
    later[:, :, 1:] = 0
    sooner[:, :, 0] = 0
    assert all(torch.equal(encode_picture(pipe, later, facts("svd"))[1][key], told[key]) for key in told)
    for key in ("encoder_hidden_states", "image_latents"):
        assert not torch.allclose(encode_picture(pipe, sooner, facts("svd"))[1][key], told[key])


def test_the_identity_of_latents_follows_what_decides_them() -> None:
    pipe = opened("svd")
    before = vae_identity(pipe)
    weight = next(pipe.image_encoder.parameters())
    with torch.no_grad():
        weight.add_(1)
        changed = vae_identity(pipe)
        weight.sub_(1)
    assert before != changed
    known = {name: vae_identity(opened(name)) for name in DISTINCT}
    for name in ("flux", "z-image"):
        assert known.pop(name) == known["lumina2"], "one autoencoder, one rule: their caches are shared"
    assert len(set(known.values())) == len(known)
