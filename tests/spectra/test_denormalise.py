from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from spectra.denormalise import DENORMALISE
from spectra.families import Family, family_of
from tests.tiny import tiny_sd, tiny_sd3

TINY = {"sd": tiny_sd, "sd3": tiny_sd3}
MEAN, STD = [1.0, -2.0], [0.5, 3.0]


def model(**config: Any) -> Any:
    return SimpleNamespace(config=SimpleNamespace(**config))


@pytest.mark.parametrize("name", TINY)
def test_to_vae_is_what_the_pipeline_decodes(name: str) -> None:
    """SD leaves a shift out although the configuration has one; SD3 takes it."""
    pipe = TINY[name]()
    pipe.vae.register_to_config(scaling_factor=0.7, shift_factor=0.3)
    decoded: list[torch.Tensor] = []
    decode = pipe.vae.decode
    pipe.vae.decode = lambda z, *args, **kwargs: (decoded.append(z), decode(z, *args, **kwargs))[1]
    latents: list[torch.Tensor] = []

    def keep(pipe: Any, step: int, timestep: Any, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
        latents.append(tensors["latents"])
        return {}

    pipe("a", num_inference_steps=2, output_type="np", callback_on_step_end=keep)
    torch.testing.assert_close(family_of(pipe).to_vae(latents[-1], pipe), decoded[0])


@pytest.mark.parametrize("shape", [(2, 2, 4, 6), (2, 2, 3, 4, 6)])
def test_statistics_per_channel_are_put_back(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    vae = model(latents_mean=MEAN, latents_std=STD, scaling_factor=2.0)
    vae.latents_mean, vae.latents_std = torch.tensor(MEAN), torch.tensor(STD)
    torch.testing.assert_close(DENORMALISE["mean_std"](x, vae)[:, 1], x[:, 1] * 3 - 2)
    torch.testing.assert_close(DENORMALISE["mean_std_scale"](x, vae)[:, 1], x[:, 1] * 1.5 - 2)
    torch.testing.assert_close(DENORMALISE["mean_std_buffers"](x, vae)[:, 1], x[:, 1] * 1.5 - 2)


def test_a_picture_gets_a_frame_axis_where_the_vae_is_one_for_video() -> None:
    x = torch.randn(2, 2, 4, 6)
    vae = model(latents_mean=MEAN, latents_std=STD)
    torch.testing.assert_close(DENORMALISE["mean_std_frame"](x, vae)[:, :, 0], DENORMALISE["mean_std"](x, vae))


def test_without_statistics_only_the_scale_is_left() -> None:
    x = torch.randn(2, 2, 4, 6)
    vae = model(latents_mean=None, latents_std=None, scaling_factor=0.5, shift_factor=9.0)
    torch.testing.assert_close(DENORMALISE["mean_std_scale"](x, vae), 2 * x)


def test_packed_statistics_are_put_back_before_patches_are_unfolded() -> None:
    """Of each pixel of a patch its own: after unfolding, one statistic per channel could not undo them."""
    x = torch.randn(2, 8, 3, 5)
    vae = model(batch_norm_eps=0.25)
    vae.bn = SimpleNamespace(running_mean=torch.arange(8.0), running_var=torch.arange(8.0) ** 2)
    found = DENORMALISE["batch_norm"](x, vae)
    assert found.shape == (2, 2, 6, 10)
    for channel, row, column in [(0, 0, 0), (0, 1, 0), (1, 0, 1), (1, 1, 1)]:
        packed = 4 * channel + 2 * row + column
        expected = x[:, packed] * (packed**2 + 0.25) ** 0.5 + packed
        torch.testing.assert_close(found[:, channel, row::2, column::2], expected)


def test_latents_at_the_scale_of_their_scheduler_are_brought_to_their_own() -> None:
    x = torch.randn(1, 2, 4, 4)
    scheduler = SimpleNamespace(config=SimpleNamespace(sigma_data=0.5))
    pipe = SimpleNamespace(vae=model(scaling_factor=0.25), scheduler=scheduler)
    family = Family("any", denormalise="scale", scaled_data=True)
    torch.testing.assert_close(family.to_vae(x, pipe), 8 * x)


def test_a_model_without_a_decoder_has_its_latents_passed_on() -> None:
    x = torch.randn(1, 2, 4, 4)
    assert torch.equal(Family("any", denormalise="none").to_vae(x, SimpleNamespace()), x)
