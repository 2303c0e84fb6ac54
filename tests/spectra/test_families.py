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
from spectra.zoo import gaussian
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
        ("Flux3ModularPipeline", "flux2"),
        ("Lumina2Pipeline", "lumina2"),
        ("QwenImagePipeline", "qwen-image"),
        ("ZImagePipeline", "z-image"),
        ("WanPipeline", "wan"),
        ("StableVideoDiffusionPipeline", "svd"),
        ("LTXPipeline", "ltx"),
        ("AnimateDiffPipeline", "animatediff"),
        ("SanaSprintPipeline", "sana-sprint"),
        ("KandinskyV22Pipeline", "kandinsky2"),
        ("Kandinsky5T2IPipeline", "kandinsky5-image"),
        ("StableCascadeDecoderPipeline", "stable-cascade"),
    ],
)
def test_pipelines_find_their_family_by_the_longest_prefix(pipeline: str, family: str) -> None:
    assert family_of(bare(pipeline)).name == family


def test_every_prefix_of_the_registry_names_a_real_pipeline() -> None:
    names = [name for name in (*dir(diffusers), *dir(gaussian)) if name.endswith("Pipeline")]
    prefixes = [prefix for family in FAMILIES for prefix in family.pipelines]
    assert [prefix for prefix in prefixes if not any(name.startswith(prefix) for name in names)] == []


def test_subclasses_of_known_pipelines_are_known_and_mixins_say_nothing() -> None:
    class Mine(diffusers.StableDiffusionXLPipeline): ...

    class StableDiffusionHelper: ...

    class Other(StableDiffusionHelper): ...

    assert family_of(Mine.__new__(Mine)).name == "sdxl"
    assert family_of(Other()).name == "unknown"


@pytest.mark.parametrize(
    "pipeline", ["FluxPipeline", "QwenImagePipeline", "ChromaPipeline", "OvisImagePipeline", "LongCatImagePipeline"]
)
def test_packed_pictures_are_unpacked_as_the_pipeline_packed_them(pipeline: str) -> None:
    x = torch.randn(2, 4, 8, 12)
    pipe = bare(pipeline, vae_scale_factor=8, default_sample_size=128)
    tokens = type(pipe)._pack_latents(x, 2, 4, 8, 12)
    family = family_of(pipe)
    torch.testing.assert_close(family.plain(tokens, pipe, {"height": 64, "width": 96}), x)


@pytest.mark.parametrize(
    ("pipeline", "pack", "scale"),
    [("QwenImage21Pipeline", "_pack_latents", 16), ("BriaFiboPipeline", "_pack_latents_no_patch", 16)],
)
def test_pictures_of_one_token_per_pixel_are_unpacked_as_the_pipeline_packed_them(
    pipeline: str, pack: str, scale: int
) -> None:
    x = torch.randn(2, 4, 8, 12)
    pipe = bare(pipeline, vae_scale_factor=scale)
    tokens = getattr(type(pipe), pack)(x, 2, 4, 8, 12)
    torch.testing.assert_close(family_of(pipe).plain(tokens, pipe, {"height": 128, "width": 192}), x)


def test_layers_are_unpacked_as_frames() -> None:
    x = torch.randn(2, 3, 4, 8, 12)  # layers before channels
    pipe = bare("QwenImageLayeredPipeline", vae_scale_factor=8)
    tokens = type(pipe)._pack_latents(x, 2, 4, 8, 12, 3)
    torch.testing.assert_close(family_of(pipe).plain(tokens, pipe, {"height": 64, "width": 96}), x.transpose(1, 2))


@pytest.mark.parametrize("call", [{}, {"height": None, "width": 64}, None])
def test_the_shape_of_packed_latents_is_not_guessed(call: dict[str, Any] | None) -> None:
    pipe = bare("FluxPipeline", vae_scale_factor=8, default_sample_size=8)
    with pytest.raises(UserError, match=r"latents of FluxPipeline are rows of tokens.*: give height and width"):
        family_of(pipe).plain(torch.zeros(1, 16, 16), pipe, call)


class Prepared:
    """Settles on 64 x 96 pixels, whatever it is asked for."""

    vae_scale_factor = 8
    default_sample_size = 128

    def __call__(self, height: int | None = None, width: int | None = None) -> torch.Tensor:
        return self.prepare_latents(1, 64, width=96)

    def prepare_latents(self, batch: int, height: int, width: int, num_frames: int | None = None) -> torch.Tensor:
        return torch.zeros(batch, height // 16 * (width // 16), 16)


@pytest.mark.parametrize("asked", [{}, {"height": 512, "width": 512}])
def test_sizes_are_those_that_latents_are_prepared_for(asked: dict[str, int]) -> None:
    pipe, call, family = Prepared(), dict(asked), family_of(bare("FluxPipeline"))
    before = Prepared.prepare_latents
    with family.resolving(pipe, call):
        tokens = pipe(**asked)
    assert call == {"height": 64, "width": 96}
    assert family.plain(tokens, pipe, call).shape == (1, 4, 8, 12)
    assert Prepared.prepare_latents is before


def test_plain_latents_need_no_sizes_and_leave_the_pipeline_alone() -> None:
    pipe, call = Prepared(), {"height": 512}
    before = Prepared.prepare_latents
    with family_of(bare("StableDiffusionPipeline")).resolving(pipe, call):
        assert Prepared.prepare_latents is before
        pipe()
    assert call == {"height": 512}


def test_a_pipeline_that_prepares_no_latents_keeps_the_sizes_of_its_call() -> None:
    call = {"height": 64, "width": 96}
    with family_of(bare("FluxPipeline")).resolving(SimpleNamespace(), call):
        assert call == {"height": 64, "width": 96}


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


def test_a_pipeline_without_its_denoiser_is_refused() -> None:
    with pytest.raises(UserError, match="has no transformer"):
        family_of(SimpleNamespace()).denoiser(SimpleNamespace())
