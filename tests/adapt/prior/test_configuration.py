"""From a prior to an adapter's settings: what stands, what can be changed, and the ablations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from peft import inject_adapter_in_model

from adapt import FeraConfig, Prior
from adapt.fera import gates_of
from adapt.fera.noise import schedule_of
from spectra.errors import UserError
from tests.adapt.prior.worlds import BANK, both, cube, latents
from tests.tiny import tiny_sd

SCHEDULE = schedule_of(FlowMatchEulerDiscreteScheduler())


@pytest.fixture(scope="module")
def prior() -> Prior:
    return both()


def config(prior: Prior, **overrides: Any) -> FeraConfig:
    return prior.fera_config(target_modules=["to_q"], **overrides)


def test_everything_that_the_prior_knows_reaches_the_adapter_and_other_fields_are_free(prior: Prior) -> None:
    made = config(prior, r=2, alpha=1.0, num_experts=3, bands=4)
    assert (made.r, made.alpha, made.num_experts, made.scales) == (2, 1.0, 3, BANK.scales)
    assert (made.feature_mean, made.feature_std) == (prior.feature_mean, prior.feature_std)
    assert (made.grid, made.tau, made.router_hidden, made.router_start) == ((16, 16), 0.7, 64, prior.router)


def test_an_adapter_says_where_its_prior_came_from_without_paths(prior: Prior) -> None:
    origin = config(prior).provenance
    assert origin is not None
    assert origin["model_hash"] == "abc123"
    assert origin["data"]["runs"] == 24
    assert "cube" not in origin
    assert "cube" not in origin["data"]
    assert "cube" in prior.provenance["data"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"num_experts": 4}, "fitted with num_experts 3.*router_start: None"),
        ({"tau": 1.0}, "fitted with tau"),
        ({"router_hidden": 8}, "fitted with router_hidden"),
        ({"features": ("snr",), "noise_schedule": SCHEDULE}, "fitted with features.*router_start: None"),
        ({"scales": (1.0, 2.0)}, "fitted with scales"),
        ({"bands": 5}, "fitted with bands 4"),
        ({"grid": (8, 8)}, "fitted with grid"),
        ({"scales": (1.0, 2.0), "router_start": None}, "fitted with scales"),
        ({"feature_mean": (0.0,) * 4}, "fitted with feature_mean"),
        ({"mode": "published"}, "published"),
        ({"features": ("colour",), "router_start": None}, "colour"),
    ],
)
def test_what_contradicts_the_prior_is_refused(prior: Prior, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        config(prior, **wrong)


def test_a_random_start_keeps_bands_and_scaling(prior: Prior) -> None:
    made = config(prior, router_start=None, num_experts=5, tau=0.3)
    assert made.router_start is None
    assert (made.num_experts, made.tau) == (5, 0.3)
    assert (made.scales, made.feature_mean) == (prior.scales, prior.feature_mean)


def test_a_router_that_reads_the_clock_alone_takes_its_scaling_from_the_prior(prior: Prior) -> None:
    made = config(prior, features=("log_snr",), router_start=None, noise_schedule=SCHEDULE)
    assert made.feature_mean == prior.statistics["log_snr"].mean
    assert made.feature_std == prior.statistics["log_snr"].std
    assert made.feature_width == 1
    both = config(prior, features=("shares", "snr"), router_start=None, noise_schedule=SCHEDULE)
    assert both.feature_std == prior.statistics["shares"].std + prior.statistics["snr"].std


def test_uniform_gates_have_no_start_whatever_the_number_of_experts(prior: Prior) -> None:
    made = config(prior, gates="uniform", num_experts=4)
    assert (made.gates, made.router_start, made.num_experts) == ("uniform", None, 4)


@pytest.mark.parametrize("features", [("shares",), ("snr",), ("log_snr",), ("shares", "snr", "log_snr")])
def test_an_adapter_with_any_features_starts_with_the_gates_that_the_prior_says(features: tuple[str, ...]) -> None:
    prior = Prior.from_cube(cube(), scales=BANK.scales, features=features)
    unet = tiny_sd().unet
    schedule = SCHEDULE if features != ("shares",) else None
    inject_adapter_in_model(config(prior, noise_schedule=schedule), unet)
    level, x = latents()
    for step in (0, 5, 11):
        with torch.no_grad():
            unet(
                torch.from_numpy(x[:, step]).float(), torch.full((len(x),), 1000 * level[step]), torch.zeros(24, 3, 32)
            )
        gates = gates_of(unet)
        assert gates is not None
        torch.testing.assert_close(gates.mean(0) / 3, torch.tensor(prior.gates[step]), atol=2e-3, rtol=0)
