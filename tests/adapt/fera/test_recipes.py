"""Recipes on single calls, laid out by the code of diffusers' own pipelines; whole pipelines are in tests/matrix."""

from __future__ import annotations

import diffusers
import pytest
import torch
from diffusers.pipelines.longcat_image.pipeline_longcat_image import prepare_pos_ids
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXConditionPipeline

from adapt.fera import recipes
from adapt.fera.view import view_of
from spectra.errors import UserError
from tests.adapt.fera.calls import REFERENCE, B, C, H, W, X, denoiser, noise, packed, positions, read

pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")


# Conditions beside the noisy latents


@pytest.mark.parametrize(
    ("channels", "what"), [(9, "inpainting"), (8, "InstructPix2Pix"), (5, "depth"), (7, "upscale")]
)
def test_unets_with_conditions_in_further_channels(channels: int, what: str) -> None:
    sample = torch.cat([X, noise(B, channels - C, H, W, seed=2)], 1)
    latent, timestep = read("UNet2DConditionModel", {"sample": sample, "timestep": torch.tensor(7)},
                            in_channels=channels, out_channels=4)  # fmt: skip
    assert torch.equal(latent, X)
    assert torch.equal(timestep, torch.full((B,), 7.0))


def test_the_inpainting_unet_of_kandinsky_predicts_a_variance_too() -> None:
    sample = torch.cat([X, noise(B, 5, H, W, seed=2)], 1)
    latent, _ = read("UNet2DConditionModel", {"sample": sample}, in_channels=9, out_channels=8,
                     encoder_hid_dim_type="image_proj")  # fmt: skip
    assert torch.equal(latent, X)


@pytest.mark.parametrize(
    ("name", "channels"),
    [("WanTransformer3DModel", 9), ("SkyReelsV2Transformer3DModel", 9), ("HunyuanVideoTransformer3DModel", 9),
     ("HunyuanVideo15Transformer3DModel", 9)],
)  # fmt: skip
def test_videos_from_pictures(name: str, channels: int) -> None:
    x = noise(B, C, 3, H, W)
    given = torch.cat([x, noise(B, channels - C, 3, H, W, seed=2)], 1)
    assert torch.equal(read(name, {"hidden_states": given}, in_channels=channels, out_channels=C)[0], x)


@pytest.mark.parametrize("name", ["CogVideoXTransformer3DModel", "ConsisIDTransformer3DModel"])
def test_videos_from_pictures_frames_first(name: str) -> None:
    x = noise(B, C, 3, H, W)
    given = torch.cat([x, noise(B, C, 3, H, W, seed=2)], 1).transpose(1, 2)
    assert torch.equal(read(name, {"hidden_states": given}, in_channels=2 * C, out_channels=C)[0], x)


def test_kandinsky_5_from_a_picture() -> None:
    x = noise(B, C, 3, H, W)
    given = torch.cat([x, noise(B, C + 1, 3, H, W, seed=2)], 1).movedim(1, -1)
    assert torch.equal(read("Kandinsky5Transformer3DModel", {"hidden_states": given}, out_visual_dim=C)[0], x)


# Tokens


@pytest.mark.parametrize(
    ("name", "per"),
    [("FluxTransformer2DModel", 1e-3), ("ChromaTransformer2DModel", 1e-3), ("OvisImageTransformer2DModel", 1e-3),
     ("BriaTransformer2DModel", 1.0)],
)  # fmt: skip
def test_packed_tokens_with_references_after_them(name: str, per: float) -> None:
    ids = positions(8, 4)
    ids[:, 0] = 1
    call = {
        "hidden_states": torch.cat([packed(X), packed(REFERENCE)], 1),
        "img_ids": torch.cat([positions(H, W), ids]),
        "timestep": torch.tensor([250.0, 750.0]) * per,
    }
    latent, timestep = read(name, call, in_channels=16)
    assert torch.equal(latent, X)
    torch.testing.assert_close(timestep, torch.tensor([250.0, 750.0]))


def test_flux_fill_and_control_have_conditions_in_the_channels_of_tokens() -> None:
    given = torch.cat([packed(X), noise(B, 15, 20)], 2)
    call = {"hidden_states": given, "img_ids": positions(H, W)}
    assert torch.equal(read("FluxTransformer2DModel", call, in_channels=36, out_channels=16)[0], X)


def test_flux_pictures_side_by_side_are_refused() -> None:
    """VisualCloze numbers the rows of its grid of pictures where other pipelines number references."""
    ids = torch.cat([positions(H, W), positions(H, W)])
    ids[15:, 0] = 1
    call = {"hidden_states": torch.cat([torch.cat([packed(X)] * 2, 1), noise(B, 30, 20)], 2), "img_ids": ids}
    with pytest.raises(UserError, match="VisualCloze"):
        read("FluxTransformer2DModel", call, in_channels=36, out_channels=16)


def test_longcat_counts_kinds_from_one() -> None:
    start = {"type": "image", "start": (512, 512)}
    ids = [prepare_pos_ids(kind, height=x.shape[2] // 2, width=x.shape[3] // 2, **start)
           for kind, x in ((1, X), (2, REFERENCE))]  # fmt: skip
    call = {"hidden_states": torch.cat([packed(X), packed(REFERENCE)], 1), "img_ids": torch.cat(ids)}
    assert torch.equal(read("LongCatImageTransformer2DModel", call, in_channels=16)[0], X)


def test_tokens_of_single_pixels() -> None:
    pipeline = diffusers.BriaFiboPipeline
    call = {"hidden_states": pipeline._pack_latents_no_patch(X, *X.shape), "img_ids": positions(2 * H, 2 * W, pipeline),
            "timestep": torch.tensor([250.0, 750.0])}  # fmt: skip
    latent, timestep = read("BriaFiboTransformer2DModel", call, in_channels=C)
    assert torch.equal(latent, X)
    assert torch.equal(timestep, torch.tensor([250.0, 750.0]))


def test_flux_2_has_position_ids_per_sample() -> None:
    pipeline = diffusers.Flux2Pipeline
    references = [pipeline._prepare_image_ids([REFERENCE[:1], X[:1]]).expand(B, -1, -1)]
    tokens = [pipeline._pack_latents(x) for x in (X, REFERENCE, X)]
    call = {"hidden_states": torch.cat(tokens, 1),
            "img_ids": torch.cat([pipeline._prepare_latent_ids(X), *references], 1)}  # fmt: skip
    assert torch.equal(read("Flux2Transformer2DModel", call, in_channels=C)[0], X)
    first = {"hidden_states": torch.cat([*tokens[1:], tokens[0]], 1),
             "img_ids": torch.cat([*references, pipeline._prepare_latent_ids(X)], 1)}  # fmt: skip
    assert torch.equal(read("Flux2Transformer2DModel", first, in_channels=C)[0], X)  # Klein with cached references


def test_krea_has_text_before_its_picture() -> None:
    ids = diffusers.Krea2Pipeline.prepare_position_ids(7, H // 2, W // 2, torch.device("cpu"))
    call = {"hidden_states": packed(X), "position_ids": ids}
    assert torch.equal(read("Krea2Transformer2DModel", call, in_channels=16)[0], X)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounded_position_ids_still_tell_the_grid(dtype: torch.dtype) -> None:
    """bfloat16 counts in steps of 2 from 256 on."""
    x = noise(1, 1, 2 * 300, 4)
    call = {"hidden_states": packed(x), "img_ids": positions(600, 4).to(dtype)}
    assert torch.equal(read("FluxTransformer2DModel", call, in_channels=4)[0], x)


def test_position_ids_that_are_no_grid_are_refused() -> None:
    ids = positions(H, W)
    for wrong in (ids[torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))], ids[:-1], None):
        with pytest.raises(UserError, match="grid"):
            read("FluxTransformer2DModel", {"hidden_states": packed(X), "img_ids": wrong}, in_channels=16)


def test_position_ids_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """On an accelerator looking means to wait for it."""
    looked: list[int] = []
    original = recipes._rectangle
    monkeypatch.setattr(recipes, "_rectangle", lambda *axes: (looked.append(1), original(*axes))[1])
    view, ids = view_of(denoiser("FluxTransformer2DModel", in_channels=16)), positions(H, W)
    for _ in range(3):
        view.read((), {"hidden_states": packed(X), "img_ids": ids})
    assert len(looked) == 1
    turned = view.read((), {"hidden_states": packed(X.mT), "img_ids": positions(W, H)})
    assert torch.equal(turned.latent, X.mT)
    assert len(looked) == 2


def test_qwen_edit_leaves_its_references_out() -> None:
    shapes = [[(1, H // 2, W // 2), (1, 4, 2), (1, 4, 2)]] * B
    call = {"hidden_states": torch.cat([packed(X), packed(REFERENCE), packed(REFERENCE)], 1), "img_shapes": shapes}
    assert torch.equal(read("QwenImageTransformer2DModel", call)[0], X)


def test_qwen_layers_are_frames() -> None:
    x = noise(B, C, 3, H, W)
    tokens = diffusers.QwenImageLayeredPipeline._pack_latents(x.transpose(1, 2).contiguous(), B, C, H, W, 3)
    shapes = [[(1, H // 2, W // 2)] * 3 + [(1, 4, 2)]] * B
    call = {"hidden_states": torch.cat([tokens, packed(REFERENCE)], 1), "img_shapes": shapes}
    assert torch.equal(read("QwenImageTransformer2DModel", call, use_layer3d_rope=True)[0], x)


def test_qwen_2_1_has_its_picture_after_the_references() -> None:
    tokens = [x.flatten(2).mT for x in (REFERENCE, X)]
    call = {"hidden_states": torch.cat(tokens, 1), "img_shapes": [[(1, 8, 4), (1, H, W)]] * B}
    assert torch.equal(read("QwenImage21Transformer2DModel", call)[0], X)


def test_shapes_that_do_not_fit_the_tokens_are_refused() -> None:
    for shapes in ([[(1, 99, 99)]], [[(1, 1, 3)]], None):
        with pytest.raises(UserError, match="img_shapes"):
            read("QwenImageTransformer2DModel", {"hidden_states": packed(X), "img_shapes": shapes})


def test_ltx_with_conditions_tells_its_grid_by_coordinates() -> None:
    """Frames that a video is conditioned on come before it, each with its own time."""
    x, extra = noise(B, C, 3, H, W), noise(B, C, 1, H, W, seed=1)
    pack = LTXConditionPipeline._pack_latents
    ids = LTXConditionPipeline._prepare_video_ids(B, 3, H, W)
    scaled = LTXConditionPipeline._scale_video_ids(ids, scale_factor=32, scale_factor_t=8).float()
    before = scaled[:, :, : H * W].clone()
    before[:, 0] += 16
    call = {"hidden_states": torch.cat([pack(extra), pack(x)], 1), "video_coords": torch.cat([before, scaled], 2)}
    assert torch.equal(read("LTXVideoTransformer3DModel", call)[0], x)
    call = {"hidden_states": pack(x), "video_coords": scaled}
    assert torch.equal(read("LTXVideoTransformer3DModel", call)[0], x)
    with pytest.raises(UserError, match="num_frames"):
        read("LTXVideoTransformer3DModel", {"hidden_states": pack(x)})
