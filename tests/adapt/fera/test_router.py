from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.special import softmax
from torch import Tensor, nn

from adapt.fera import (
    FeraConfig,
    FeraRouter,
    GateCell,
    cell_of,
    gates_of,
)
from adapt.fera.router import latent_argument, latent_energy, log_shares, random_start
from adapt.fera.view import view_of
from spectra.bands import FilterBank
from spectra.errors import UserError
from tests.adapt.fera.conftest import adapted, arguments, fera_parameters, run

SCALES = (0.8, 1.6, 3.2)
MEAN, STD = (-2.0, -3.0, -2.5, -0.5), (1.0, 0.5, 0.4, 0.8)


def routing(**settings: Any) -> FeraRouter:
    """A router of one adapter, "default", without a denoiser."""
    made = FeraRouter(GateCell(), view_of(Fields(), "sample"), torch.device("cpu"))
    made.update_layer("default", FeraConfig(target_modules=["x"], **settings))
    return made


class Fields(nn.Module):
    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return sample


@pytest.fixture
def router() -> FeraRouter:
    torch.manual_seed(3)
    return routing(scales=SCALES, feature_mean=MEAN, feature_std=STD, tau=0.3)


def test_gates_follow_the_formula_with_bands_from_scipy(router: FeraRouter) -> None:
    x = torch.randn(2, 4, 16, 12, dtype=torch.float64)
    blurred = [gaussian_filter(x.numpy(), (0, 0, s, s), mode="reflect") for s in reversed(SCALES)]
    levels = [np.zeros_like(blurred[0]), *blurred, x.numpy()]
    energy = np.stack([((b - a) ** 2).sum((1, 2, 3)) for a, b in pairwise(levels)], -1)
    features = (np.log(energy / energy.sum(1, keepdims=True)) - MEAN) / STD
    w1, b1, w2, b2 = (
        getattr(router, f"fera_{n}")["default"].detach().double().numpy() for n in ("w1", "b1", "w2", "b2")
    )
    expected = 3 * softmax((np.maximum(features @ w1.T + b1, 0) @ w2.T + b2) / 0.3, axis=1)
    np.testing.assert_allclose(router(x, "default").detach().numpy(), expected, rtol=1e-5)


def test_gates_have_mean_one_and_do_not_see_the_scale_of_the_latent(router: FeraRouter) -> None:
    x = torch.randn(5, 4, 16, 16)
    gates = router(x, "default")
    torch.testing.assert_close(gates.mean(1), torch.ones(5))
    torch.testing.assert_close(gates, router(x * 14.6, "default"))
    assert gates.std(0).min() > 0


def test_one_expert_has_gate_one() -> None:
    router = routing(num_experts=1, scales=SCALES, feature_mean=MEAN, feature_std=STD)
    assert torch.equal(router(torch.randn(2, 4, 16, 16), "default"), torch.ones(2, 1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_latents_are_measured_in_float32(router: FeraRouter, dtype: torch.dtype) -> None:
    x = (torch.randn(2, 16, 128, 128) * 20).to(dtype)  # its energy overflows float16
    gates = router(x, "default")
    assert gates.dtype == torch.float32
    torch.testing.assert_close(gates, router(x.float(), "default"))


def test_autocast_does_not_reach_the_router(router: FeraRouter) -> None:
    x = torch.randn(2, 4, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        inside = router(x, "default")
    assert torch.equal(inside, router(x, "default"))


def test_an_empty_latent_has_finite_gates_and_gradients(router: FeraRouter) -> None:
    x = torch.zeros(1, 4, 16, 16, requires_grad=True)
    gates = router(x, "default")
    gates[0, 0].backward()
    assert torch.isfinite(gates).all()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_frames_count_as_one_sample() -> None:
    x = torch.randn(2, 4, 3, 16, 16)
    bank = FilterBank(SCALES)
    frames = sum(latent_energy(x[:, :, f], bank) for f in range(3))
    torch.testing.assert_close(latent_energy(x, bank), frames)


def test_latents_packed_into_tokens_are_refused() -> None:
    with pytest.raises(UserError, match="tokens"):
        latent_energy(torch.randn(2, 64, 16), FilterBank(SCALES))


def test_shares_below_the_floor_count_as_empty() -> None:
    assert log_shares(torch.tensor([1.0, 0.0]))[1] == pytest.approx(np.log(1e-8))


def test_a_random_start_is_nearly_uniform_and_seeded() -> None:
    one, two = (random_start(4, 64, 3, torch.Generator().manual_seed(5)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    for weight, fan_in in zip(one, (4, 4, 64, 64), strict=True):
        assert weight.abs().max() <= fan_in**-0.5
        assert weight.abs().max() > 0.5 * fan_in**-0.5


def test_the_latent_is_found_by_position_and_by_keyword(denoiser: nn.Module) -> None:
    adapted(denoiser)
    call = arguments(denoiser)
    latent, *others = call.items()
    by_keyword = denoiser(**call).sample
    gates = gates_of(denoiser)
    by_position = denoiser(latent[1], **dict(others)).sample
    assert torch.equal(by_keyword, by_position)
    assert gates is not None
    assert torch.equal(gates, gates_of(denoiser))


def test_a_call_without_latent_says_which_argument_is_missing(unet: nn.Module) -> None:
    adapted(unet)
    with pytest.raises(UserError, match="'sample'"):
        unet(timestep=torch.tensor(1))


def test_the_latent_argument_can_be_named_and_must_exist(unet: nn.Module) -> None:
    assert latent_argument(unet, None) == ("sample", 0)
    assert latent_argument(unet, "encoder_hidden_states") == ("encoder_hidden_states", 2)
    with pytest.raises(UserError, match="no argument 'latents'"):
        latent_argument(unet, "latents")


def test_gates_follow_the_doubled_batch_of_guidance(unet: nn.Module) -> None:
    adapted(unet)
    call = arguments(unet)
    doubled = {name: torch.cat([value, value]) for name, value in call.items()}
    single, twice = unet(**call).sample, unet(**doubled).sample
    torch.testing.assert_close(twice, torch.cat([single, single]), rtol=1e-4, atol=1e-5)
    gates = gates_of(unet)
    assert gates is not None
    assert torch.equal(gates[:2], gates[2:])


def test_copies_route_for_themselves(unet: nn.Module) -> None:
    adapted(unet)
    before = run(unet)  # leaves gates with a graph in the cell
    copied = copy.deepcopy(unet)
    assert cell_of(copied) is not cell_of(unet)
    torch.testing.assert_close(run(copied), before)
    with torch.no_grad():
        for parameter in fera_parameters(copied).values():
            parameter.zero_()
    held = gates_of(unet)
    assert held is not None
    held = held.clone()
    run(copied, seed=1)
    assert torch.equal(gates_of(unet), held)
    assert torch.equal(gates_of(copied), torch.ones_like(held))


def test_gates_come_back_to_the_latent_from_where_the_router_waits(router: FeraRouter) -> None:
    """`enable_model_cpu_offload` moves the model after its pre-hooks: the weights are on the CPU, latents not."""

    class Moved:
        """Features that went to the router's device."""

        tau = 0.7

        def __call__(self, latent: Tensor, timestep: Tensor | None) -> Tensor:
            return torch.zeros(len(latent), 4)

    router.reading["default"] = cast(Any, Moved())
    assert router(torch.empty(2, 4, 16, 16, device="meta"), "default").device.type == "meta"
