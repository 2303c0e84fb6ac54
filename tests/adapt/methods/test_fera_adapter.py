"""The settings of a run become the adapter that they describe, with and without a prior."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from adapt.fera import FeraConfig
from adapt.methods import METHODS
from adapt.methods.fera_adapter import prior_options
from spectra.errors import UserError
from tests.adapt.methods.conftest import answer, attach, fresh, settings
from tests.tiny import tiny_sd

SETTINGS = METHODS["fera"].settings


def made(pipe: Any = None, prior: Any = None, **changes: Any) -> Any:
    return SETTINGS(settings("fera", **{"rank": 12, **changes}), ["to_q"], prior, pipe)


def test_the_rank_is_shared_by_the_experts_and_the_part_that_is_always_on() -> None:
    assert (made().r, made().num_experts, made().total_rank) == (4, 3, 12)
    shared = made(shared_rank=4, experts=2, alpha=6.0)
    assert (shared.r, shared.shared_rank, shared.total_rank, shared.alpha) == (4, 4, 12, 6.0)
    assert made(expert="ia3", rank=2).r == 1


@pytest.mark.parametrize(
    ("router", "features", "gates"),
    [
        ("energy", ("shares",), "router"),
        ("energy+snr", ("shares", "snr"), "router"),
        ("energy+clock", ("shares", "log_snr"), "router"),
        ("clock", ("log_snr",), "router"),
        ("uniform", ("shares",), "uniform"),
    ],
)
def test_energy_against_clock_is_one_setting(router: str, features: tuple[str, ...], gates: str) -> None:
    found = made(tiny_sd(), router=router)
    assert (found.features, found.gates) == (features, gates)
    assert (found.noise_schedule is not None) == bool({"snr", "log_snr"} & set(features))


def test_a_router_that_follows_the_noise_level_needs_the_scheduler() -> None:
    with pytest.raises(UserError, match="need the pipeline's scheduler"):
        made(router="clock")


def test_settings_of_the_gates_are_passed_on() -> None:
    found = made(tau=0.4, bands=5, dropout=0.2, expert="dora")
    assert (found.tau, found.bands, found.dropout, found.expert) == (0.4, 5, 0.2, "dora")
    assert made(fera_mode="published").mode == "published"


class _Prior:
    """Stands for a prior, and keeps what it is asked for."""

    def fera_config(self, **given: Any) -> FeraConfig:
        self.given = given
        return FeraConfig(r=given["r"], num_experts=given["num_experts"], target_modules=given["target_modules"])


def test_a_prior_keeps_its_temperature_and_start_unless_they_are_changed() -> None:
    prior = _Prior()
    SETTINGS(settings("fera", rank=12), ["to_q"], prior, None)  # type: ignore[arg-type]
    assert "tau" not in prior.given
    assert "router_start" not in prior.given
    SETTINGS(settings("fera", rank=12, tau=0.3, router_start="random"), ["to_q"], prior, None)  # type: ignore[arg-type]
    assert prior.given["tau"] == 0.3
    assert prior.given["router_start"] is None
    SETTINGS(settings("fera", rank=12, tau=0.7), ["to_q"], prior, None)  # type: ignore[arg-type]
    assert prior.given["tau"] == 0.7  # the usual value counts as well, once it is given


def test_a_prior_from_a_cube_is_made_for_the_run() -> None:
    config = settings("fera", rank=12, experts=2, bands=3, overlap=2.0, tau=0.5, router="energy+clock")
    assert prior_options(config) == {
        "experts": 2, "bands": 3, "overlap": 2.0, "tau": 0.5, "features": ("shares", "log_snr")
    }  # fmt: skip
    assert prior_options(settings("fera")) == {"experts": 3, "features": ("shares",)}


def test_uniform_gates_stay_at_one_while_a_router_moves_them() -> None:
    uniform, routed = fresh("sd"), fresh("sd")
    attach(uniform, "fera", router="uniform")
    attach(routed, "fera")
    with torch.no_grad():
        answer(uniform), answer(routed)
    gates = [METHODS["fera"].gates(model) for model in (uniform, routed)]
    assert gates[0] is not None
    assert gates[1] is not None
    assert torch.equal(gates[0], torch.ones(2, 3))
    assert float((gates[1] - 1).abs().max()) > 1e-3


def test_lora_and_fera_of_one_rank_have_equally_many_parameters_beside_the_router() -> None:
    plain, routed = fresh("sd"), fresh("sd")
    attach(plain, "lora")
    attach(routed, "fera")
    router = sum(p.numel() for name, p in routed.named_parameters() if name.startswith("fera."))
    assert METHODS["lora"].trainable(plain) == METHODS["fera"].trainable(routed) - router
