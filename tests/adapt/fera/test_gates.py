"""What the gates of a whole denoiser follow: its latent, the noise level, both, or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adapt.fera import FeraConfig, FeraRouter, GateCell, gates_of, load_fera, save_fera, set_temperature, unload
from adapt.fera.published import indicator
from adapt.fera.view import view_of
from spectra.errors import UserError
from tests.adapt.fera.conftest import adapted, arguments, fera_parameters, run

FLOW = {"kind": "flow", "steps": 1000}
PLAIN: dict[str, Any] = {"scales": (0.8, 1.6, 3.2), "grid": (16, 16), "noise_schedule": FLOW}


def gates_at(model: nn.Module, timestep: float, seed: int = 0) -> Tensor:
    call = arguments(model, seed)
    with torch.no_grad():
        model(**{**call, "timestep": torch.full((2,), timestep)})
    gates = gates_of(model)
    assert gates is not None
    return gates


def test_the_clock_follows_the_timestep_alone(transformer: nn.Module) -> None:
    adapted(transformer, features=("log_snr",), **PLAIN)
    assert torch.equal(gates_at(transformer, 300.0), gates_at(transformer, 300.0, seed=1))
    assert (gates_at(transformer, 300.0) - gates_at(transformer, 900.0)).abs().max() > 1e-3


def test_band_shares_follow_the_latent_alone(transformer: nn.Module) -> None:
    adapted(transformer, features=("shares",), **PLAIN)
    assert torch.equal(gates_at(transformer, 300.0), gates_at(transformer, 900.0))
    assert (gates_at(transformer, 300.0) - gates_at(transformer, 300.0, seed=1)).abs().max() > 1e-4


@pytest.mark.parametrize("features", [("shares", "snr"), ("shares", "log_snr")])
def test_both_can_be_mixed(transformer: nn.Module, features: tuple[str, ...]) -> None:
    adapted(transformer, features=features, **PLAIN)
    assert transformer.fera.fera_w1["default"].shape == (64, transformer.peft_config["default"].feature_width)  # type: ignore[union-attr, index, operator]
    at = gates_at(transformer, 300.0)
    assert (at - gates_at(transformer, 900.0)).abs().max() > 1e-3
    assert (at - gates_at(transformer, 300.0, seed=1)).abs().max() > 1e-4


def test_uniform_gates_are_one_and_need_no_weights(denoiser: nn.Module) -> None:
    adapted(denoiser, gates="uniform", num_experts=5)
    run(denoiser)
    assert torch.equal(gates_of(denoiser), torch.ones(2, 5))
    assert not [key for key in fera_parameters(denoiser) if key.startswith("fera.")]
    denoiser.set_adapter("default")  # type: ignore[operator]
    assert all(parameter.requires_grad for parameter in fera_parameters(denoiser).values())


class Tokens(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        return tokens


def test_uniform_gates_read_nothing_and_so_work_for_any_layout() -> None:
    router = FeraRouter(GateCell(), view_of(Tokens()), torch.device("cpu"))
    router.update_layer("default", FeraConfig(target_modules=["x"], gates="uniform"))
    router.set_adapter("default")
    router.write((torch.zeros(4, 77, 3),), {})
    assert router.cell.gates is not None
    assert torch.equal(router.cell.gates["default"], torch.ones(4, 3))


def test_adapters_with_and_without_a_router_live_side_by_side(unet: nn.Module, tmp_path: Path) -> None:
    adapted(unet, "routed")
    adapted(unet, "even", gates="uniform", r=2)
    unet.set_adapter(["routed", "even"])  # type: ignore[operator]
    both = run(unet)
    assert not torch.equal(gates_of(unet, "routed"), torch.ones(2, 3))
    assert torch.equal(gates_of(unet, "even"), torch.ones(2, 3))
    for name in ("routed", "even"):
        save_fera(unet, tmp_path / name, name)
    unload(unet)
    for name in ("routed", "even"):
        load_fera(unet, tmp_path / name, name)
    unet.set_adapter(["routed", "even"])  # type: ignore[operator]
    torch.testing.assert_close(run(unet), both)


def test_the_temperature_can_be_annealed_and_is_saved(unet: nn.Module, tmp_path: Path) -> None:
    adapted(unet)
    run(unet)
    warm = gates_of(unet)
    set_temperature(unet, 0.05)
    run(unet)
    cold = gates_of(unet)
    assert warm is not None
    assert cold is not None
    assert cold.std(1).min() > 3 * warm.std(1).max()
    torch.testing.assert_close(torch.softmax((warm / 3).log() * 0.7 / 0.05, 1) * 3, cold, rtol=1e-4, atol=1e-5)
    save_fera(unet, tmp_path)
    expected = run(unet)
    assert load_fera(unload(unet), tmp_path).tau == 0.05
    torch.testing.assert_close(run(unet), expected)


@pytest.mark.parametrize(
    ("tau", "name", "words"), [(0.0, "default", "above 0"), (1.0, "other", "no FeRA adapter 'other'")]
)
def test_a_temperature_that_cannot_be_set_is_refused(unet: nn.Module, tau: float, name: str, words: str) -> None:
    adapted(unet)
    with pytest.raises(UserError, match=words):
        set_temperature(unet, tau, name)


def test_published_gates_are_those_of_the_published_shares(unet: nn.Module, tmp_path: Path) -> None:
    adapted(unet, mode="published", target_modules=["to_q"])
    call = arguments(unet)
    before = unet(**call).sample
    network = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 3))
    weights = {key: value.detach() for key, value in fera_parameters(unet).items() if key.startswith("fera.")}
    names = {"0.weight": "w1", "0.bias": "b1", "2.weight": "w2", "2.bias": "b2"}
    network.load_state_dict({key: weights[f"fera.fera_{name}.default"] for key, name in names.items()})
    expected = torch.softmax(network(indicator(call["sample"], 3)) / 0.7, -1)
    gates = gates_of(unet)
    assert gates is not None
    torch.testing.assert_close(gates / 3, expected)
    save_fera(unet, tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["mode"] == "published"
    assert load_fera(unload(unet), tmp_path).mode == "published"
    assert torch.equal(unet(**call).sample, before)


def test_the_router_learns_through_every_feature(transformer: nn.Module) -> None:
    adapted(transformer, features=("shares", "snr", "log_snr"), **PLAIN)
    run(transformer).square().mean().backward()
    slope = transformer.fera.fera_w1["default"].grad  # type: ignore[union-attr, index]
    assert slope is not None
    assert (slope.abs().amax(0) > 0).all()
