from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spectra.errors import UserError
from spectra.families import FAMILIES, family_of, parse_layout, rearrange, with_layout
from tests.tiny import tiny_sd, tiny_sd3

TINY = {"sd": tiny_sd, "sd3": tiny_sd3}


def bare(name: str, **attributes: Any) -> Any:
    """An instance of a diffusers pipeline class without its models."""
    cls = getattr(diffusers, name)
    pipe = cls.__new__(cls)
    pipe.__dict__.update(attributes)
    return pipe


@pytest.mark.parametrize("name", TINY)
def test_sd_and_sd3_are_known_by_denoiser_and_latent_argument(name: str) -> None:
    pipe = TINY[name]()
    family = family_of(pipe)
    assert family.name == name
    seen: list[dict[str, Any]] = []
    denoiser = family.denoiser(pipe)
    denoiser.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(bind(module, args, kwargs)), with_kwargs=True
    )
    pipe("a", num_inference_steps=1, guidance_scale=1.0, output_type="latent")
    assert seen[0][family.latent_argument].shape == (1, 4, 16, 16)


def bind(module: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    import inspect

    return inspect.signature(type(module).forward).bind(module, *args, **kwargs).arguments


@pytest.mark.parametrize("name", TINY)
def test_to_vae_is_what_the_pipeline_decodes(name: str) -> None:
    pipe = TINY[name]()
    pipe.vae.register_to_config(scaling_factor=0.7, shift_factor=0.3 if name == "sd3" else None)
    decoded: list[torch.Tensor] = []
    decode = pipe.vae.decode
    pipe.vae.decode = lambda z, *args, **kwargs: (decoded.append(z), decode(z, *args, **kwargs))[1]
    latents: list[torch.Tensor] = []

    def keep(pipe: Any, step: int, timestep: Any, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
        latents.append(tensors["latents"])
        return {}

    pipe("a", num_inference_steps=2, output_type="np", callback_on_step_end=keep)
    torch.testing.assert_close(family_of(pipe).to_vae(latents[-1], pipe), decoded[0])


@pytest.mark.parametrize("name", TINY)
def test_prediction_sign_turns_the_denoisers_output_into_what_the_scheduler_is_given(name: str) -> None:
    pipe = TINY[name]()
    family = family_of(pipe)
    outputs: list[torch.Tensor] = []
    family.denoiser(pipe).register_forward_hook(lambda module, args, output: outputs.append(output[0]))
    given: list[torch.Tensor] = []
    step = pipe.scheduler.step
    pipe.scheduler.step = lambda out, *args, **kwargs: (given.append(out), step(out, *args, **kwargs))[1]
    pipe("a", num_inference_steps=1, guidance_scale=1.0, output_type="latent")
    torch.testing.assert_close(family.prediction_sign * outputs[0], given[0])


@pytest.mark.parametrize(
    ("pipeline", "family"),
    [
        ("StableDiffusionImg2ImgPipeline", "sd"),
        ("StableDiffusionXLPipeline", "sdxl"),
        ("StableDiffusion3Img2ImgPipeline", "sd3"),
        ("FluxPipeline", "flux"),
        ("FluxKontextPipeline", "flux"),
        ("Flux2Pipeline", "flux2"),
        ("Lumina2Pipeline", "lumina2"),
        ("QwenImagePipeline", "qwen-image"),
        ("ZImagePipeline", "z-image"),
        ("WanPipeline", "wan"),
        ("StableVideoDiffusionPipeline", "svd"),
        ("LTXPipeline", "ltx"),
        ("AnimateDiffPipeline", "animatediff"),
    ],
)
def test_pipelines_find_their_family_by_the_longest_prefix(pipeline: str, family: str) -> None:
    assert family_of(bare(pipeline)).name == family


def test_every_prefix_of_the_registry_names_a_real_pipeline() -> None:
    names = [name for name in dir(diffusers) if name.endswith("Pipeline")]
    prefixes = [prefix for family in FAMILIES for prefix in family.pipelines]
    assert [prefix for prefix in prefixes if not any(name.startswith(prefix) for name in names)] == []


def test_subclasses_of_known_pipelines_are_known_and_mixins_say_nothing() -> None:
    class Mine(diffusers.StableDiffusionXLPipeline): ...

    class StableDiffusionHelper: ...

    class Other(StableDiffusionHelper): ...

    assert family_of(Mine.__new__(Mine)).name == "sdxl"
    assert family_of(Other()).name == "unknown"


@pytest.mark.parametrize(
    ("pipeline", "pack"), [("FluxPipeline", "flux"), ("QwenImagePipeline", "qwen"), ("ChromaPipeline", "c")]
)
def test_packed_pictures_are_unpacked_as_the_pipeline_packed_them(pipeline: str, pack: str) -> None:
    x = torch.randn(2, 4, 8, 12)
    pipe = bare(pipeline, vae_scale_factor=8, default_sample_size=128)
    tokens = type(pipe)._pack_latents(x, 2, 4, 8, 12)
    family = family_of(pipe)
    torch.testing.assert_close(family.plain(tokens, pipe, {"height": 64, "width": 96}), x)


def test_packed_latents_take_the_default_size_where_the_call_has_none() -> None:
    pipe = bare("FluxPipeline", vae_scale_factor=8, default_sample_size=8)
    assert family_of(pipe).plain(torch.zeros(1, 16, 16), pipe, {"height": None, "width": None}).shape == (1, 4, 8, 8)


def test_packed_video_is_unpacked_as_the_pipeline_packed_it() -> None:
    x = torch.randn(1, 5, 3, 4, 6)
    pipe = bare("LTXPipeline", vae_spatial_compression_ratio=32, vae_temporal_compression_ratio=8)
    tokens = type(pipe)._pack_latents(x, 1, 1)
    call = {"height": 128, "width": 192, "num_frames": 17}
    torch.testing.assert_close(family_of(pipe).plain(tokens, pipe, call), x)


def test_video_with_frames_first_gets_channels_first() -> None:
    x = torch.randn(1, 3, 4, 5, 6)
    pipe = bare("StableVideoDiffusionPipeline")
    torch.testing.assert_close(family_of(pipe).plain(x, pipe), x.movedim(1, 2))


@pytest.mark.parametrize("shape", [(2, 4, 8, 8), (2, 4, 3, 8, 8)])
def test_unknown_families_with_plain_latents_pass(shape: tuple[int, ...]) -> None:
    pipe = SimpleNamespace(unet=object())
    x = torch.randn(shape)
    assert family_of(pipe).plain(x, pipe) is x
    assert family_of(pipe).latent_argument == "sample"


def test_unknown_packed_latents_end_with_how_to_give_a_layout() -> None:
    pipe = SimpleNamespace(transformer=object())
    with pytest.raises(UserError, match=r"SimpleNamespace keeps its latents as \(1, 6, 4\).*layout="):
        family_of(pipe).plain(torch.zeros(1, 6, 4), pipe)
    family = with_layout(family_of(pipe), "b (h w) c -> b c h w, h=2, w=3")
    assert family.plain(torch.zeros(1, 6, 4), pipe).shape == (1, 4, 2, 3)


def test_a_layout_that_does_not_fit_is_refused_with_both_shapes() -> None:
    with pytest.raises(UserError, match=r"h=5, w=3 does not fit latents of shape \(1, 6, 4\)"):
        rearrange(torch.zeros(1, 6, 4), "b (h w) c -> b c h w", {"h": 5, "w": 3})


@pytest.mark.parametrize(
    "text", ["", "b c h w", "b n c -> b n c", "b (h w) c -> b h w c", "b (h w) c -> b c h w, h=x", "a -> b c h w, 3=h"]
)
def test_a_layout_that_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="not understood"):
        parse_layout(text)


@given(h=st.integers(1, 5), w=st.integers(1, 5), c=st.integers(1, 4), p=st.integers(1, 3))
def test_a_layout_with_patches_undoes_them(h: int, w: int, c: int, p: int) -> None:
    x = torch.randn(1, c, h * p, w * p)
    tokens = x.unfold(2, p, p).unfold(3, p, p).permute(0, 2, 3, 1, 4, 5).reshape(1, h * w, c * p * p)
    pattern, sizes = parse_layout(f"b (h w) (c p q) -> b c (h p) (w q), h={h}, w={w}, p={p}, q={p}")
    assert torch.equal(rearrange(tokens, pattern, sizes), x)


def test_statistics_per_channel_are_put_back_before_decoding() -> None:
    x = torch.randn(2, 2, 3, 4, 4)
    config = SimpleNamespace(latents_mean=[1.0, -2.0], latents_std=[0.5, 3.0], scaling_factor=2.0)
    pipe = bare("WanPipeline", vae=SimpleNamespace(config=config))
    torch.testing.assert_close(family_of(pipe).to_vae(x, pipe)[:, 1], x[:, 1] * 3 - 2)
    pipe = bare("StableDiffusionXLPipeline", vae=SimpleNamespace(config=config))
    torch.testing.assert_close(family_of(pipe).to_vae(x[:, :, 0], pipe)[:, 1], x[:, 1, 0] * 1.5 - 2)


def test_a_pipeline_without_its_denoiser_is_refused() -> None:
    with pytest.raises(UserError, match="has no transformer"):
        family_of(SimpleNamespace()).denoiser(SimpleNamespace())
