"""Views of single calls: arguments by name and place, timesteps, denoisers that are not known."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adapt.fera import recipes
from adapt.fera.view import usual_grid, view_of
from spectra.errors import UserError
from spectra.families import FAMILIES
from tests.adapt.fera.calls import REFERENCE, B, C, H, W, X, denoiser, noise, packed, positions, read
from tests.matrix import images, videos

pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")


# Timesteps


@pytest.mark.parametrize(
    ("told", "expected"),
    [(torch.tensor(7), [7, 7]), (torch.tensor([7]), [7, 7]), (torch.tensor([7.5, 8]), [7.5, 8]), (7.25, [7.25] * 2),
     (torch.tensor([[0.0, 8, 8, 8], [4, 4, 4, 4]]), [6, 4]), (torch.full((2, 1, 3, 1, 1), 9.0), [9, 9])],
)  # fmt: skip
def test_timesteps_belong_to_samples(told: Any, expected: list[float]) -> None:
    """Where tokens have their own, as in Wan 2.2 and LTX from pictures, a sample has their mean."""
    _, timestep = read("WanTransformer3DModel", {"hidden_states": noise(B, C, 3, H, W), "timestep": told})
    assert timestep is not None
    assert timestep.tolist() == expected


def test_timesteps_of_other_samples_are_refused_where_they_are_needed() -> None:
    call = {"hidden_states": noise(B, C, 3, H, W), "timestep": torch.arange(3)}
    with pytest.raises(UserError, match="3 timesteps for 2 latents"):
        read("WanTransformer3DModel", call)
    assert view_of(denoiser("WanTransformer3DModel")).read((), call, timed=False).timestep is None


# Denoisers that are not known


class Unknown(nn.Module):
    def forward(self, x: Tensor, timestep: Tensor, extra: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize("shape", [(2, 4, 6, 10), (2, 4, 3, 6, 10)])
def test_fields_of_unknown_denoisers_are_read_as_they_are(shape: tuple[int, ...]) -> None:
    latent, timestep = view_of(Unknown()).read((noise(*shape), torch.tensor(3.0)), {})
    assert torch.equal(latent, noise(*shape))
    assert torch.equal(timestep, torch.full((2,), 3.0))


def test_tokens_of_unknown_denoisers_need_a_grid_that_fits() -> None:
    tokens = X.flatten(2).mT
    assert torch.equal(view_of(Unknown(), grid=(H, W)).read((tokens,), {}).latent, X)
    for grid in (None, (H, H)):
        with pytest.raises(UserError, match=r"Unknown was given latents \(2, 60, 4\).*FeraConfig\(grid=\(h, w\)\)"):
            view_of(Unknown(), grid=grid).read((tokens,), {})


def test_another_argument_is_taken_as_plain_latents() -> None:
    view = view_of(Unknown(), "extra")
    assert (view.name, view.position) == ("extra", 2)
    assert torch.equal(view.read((None, None, X), {}).latent, X)


def test_lists_need_one_shape() -> None:
    frames = [x[:, None] for x in X]
    latent, timestep = read("ZImageTransformer2DModel", {"x": frames, "t": torch.tensor([0.25, 1.0])})
    assert torch.equal(latent, X[:, :, None])
    torch.testing.assert_close(timestep, torch.tensor([750.0, 0.0]))
    with pytest.raises(UserError, match="different shapes"):
        read("ZImageTransformer2DModel", {"x": [*frames, REFERENCE[0][:, None]]})
    with pytest.raises(UserError, match="list of tensors"):
        read("ZImageTransformer2DModel", {"x": [frames, frames]})


def test_the_size_of_a_call_is_known_without_laying_it_out() -> None:
    view = view_of(denoiser("FluxTransformer2DModel"))
    assert view.batch((noise(3, 5, 7),), {}) == (3, torch.device("cpu"))
    assert view_of(denoiser("ZImageTransformer2DModel")).batch(([X[0], X[1]],), {})[0] == 2


def test_reading_never_asks_a_device_for_values() -> None:
    """Tensors of the device `meta` have none, so asking would fail; only position ids are ever looked at."""
    tokens, field = packed(X).to("meta"), X.to("meta")
    timestep = torch.empty(B, device="meta")
    calls: dict[str, dict[str, Any]] = {
        "UNet2DConditionModel": {"sample": field, "timestep": torch.empty((), device="meta")},
        "FluxTransformer2DModel": {"hidden_states": tokens, "img_ids": positions(H, W), "timestep": timestep},
        "QwenImageTransformer2DModel": {"hidden_states": tokens, "img_shapes": [[(1, H // 2, W // 2)]] * B,
                                        "timestep": timestep},
        "ZImageTransformer2DModel": {"x": [x[:, None] for x in field], "t": timestep},
        "LTXVideoTransformer3DModel": {"hidden_states": tokens, "num_frames": 1, "height": 3, "width": 5,
                                       "timestep": torch.empty(B, 15, device="meta")},
    }  # fmt: skip
    for name, call in calls.items():
        latent, told = read(name, call)
        assert latent.is_meta
        assert latent.shape[0] == B
        assert told is not None
        assert told.shape == (B,)


def test_views_can_be_copied() -> None:
    view = copy.deepcopy(view_of(denoiser("FluxTransformer2DModel", in_channels=16)))
    assert torch.equal(view.read((), {"hidden_states": packed(X), "img_ids": positions(H, W)}).latent, X)


def test_every_family_has_a_recipe_for_its_denoiser() -> None:
    """By the pipelines of the matrix, and those that only this file has calls of."""
    seen = {type(getattr(pipe, family.denoiser_attribute)).__name__
            for pipe, family in ((case.build(), _family(case.family)) for case in _cases())}  # fmt: skip
    assert seen <= set(recipes.RECIPES)
    covered = {case.family for case in _cases()} | {"gaussian", "pixels"}
    elsewhere = {"longcat-image", "bria-fibo", "qwen-image-layered", "qwen-image-2.1"}
    assert {family.name for family in FAMILIES} == covered | elsewhere


def _cases() -> list[Any]:
    return [*images.CASES.values(), *videos.CASES.values()]


def _family(name: str) -> Any:
    return next(family for family in FAMILIES if family.name == name)


def test_denoisers_that_do_not_tell_their_size_have_a_usual_one() -> None:
    assert usual_grid(denoiser("FluxTransformer2DModel")) == (128, 128)
    sized = denoiser("SD3Transformer2DModel")
    sized.config = type("Config", (), {"sample_size": 32})()
    assert usual_grid(sized) == (32, 32)
    assert usual_grid(Unknown()) is None
