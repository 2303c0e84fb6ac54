from collections.abc import Callable
from typing import Any

import pytest

from adapt.config import TrainConfig
from adapt.methods import METHODS
from adapt.targets import resolve_targets
from benchmarks.quality.design import ARMS, FULL, QUICK, Job, finals, next_rates, sweep
from benchmarks.quality.extra import ARMS as EVERY
from benchmarks.quality.extra import EXTRA, IDEAS, Idea
from spectra.models import load_pipeline
from tests.tiny import tiny_sd, tiny_sd3


def settings_of(arm: str) -> TrainConfig:
    return TrainConfig(model="mini", data="pictures", out="out", lr=0.01, **EVERY[arm].settings)


def trainable(arm: str, make: Callable[[], Any]) -> int:
    config, pipe = settings_of(arm), make()
    denoiser = pipe.transformer if getattr(pipe, "transformer", None) is not None else pipe.unet
    METHODS[config.method].attach(denoiser, config, resolve_targets(denoiser, config.targets), None, pipe)
    return METHODS[config.method].trainable(denoiser)


@pytest.mark.parametrize("make", [tiny_sd, tiny_sd3])
def test_lora_and_every_planned_fera_arm_have_equal_parameters(make: Callable[[], Any]) -> None:
    fera = [name for name, arm in ARMS.items() if arm.settings["method"] == "fera"]
    assert len(fera) >= 10
    base = trainable("lora", make)
    for name in fera:
        router = 0 if "uniform" in name else 64 * (4 + 1) + 4 * (64 + 1)  # at most; next to nothing in a real model
        assert 0 <= trainable(name, make) - base <= 0.02 * base + router, name


def test_on_a_bundled_model_they_are_equal_within_two_percent() -> None:
    base = trainable("lora", lambda: load_pipeline("mini-flow"))
    for name in ("fera-prior", "fera-experts4", "fera-published"):
        assert trainable(name, lambda: load_pipeline("mini-flow")) == pytest.approx(base, rel=0.02), name


def test_rates_go_on_beyond_the_end_that_is_best_and_stop_inside() -> None:
    assert next_rates({1.0: 3.0, 2.0: 2.0, 4.0: 1.0}) == [8.0]
    assert next_rates({1.0: 1.0, 2.0: 2.0, 4.0: 3.0}) == [0.5]
    assert next_rates({1.0: 2.0, 2.0: 1.0, 4.0: 3.0}) == []
    assert next_rates({1.0: 5.0, 2.0: 4.0, 4.0: 3.0, 8.0: 2.0, 16.0: 1.0}) == []  # two rates beyond are enough
    assert next_rates({1.0: float("inf"), 2.0: float("inf"), 0.5: 1.0}) == [0.25]


def test_sweep_and_finals_share_no_seed_and_no_place() -> None:
    tuned, counted = sweep(FULL, "mini", "style", "lora", [0.1]), finals(FULL, "mini", "style", "lora", 0.1)
    assert not {job.seed for job in tuned} & {job.seed for job in counted}
    assert not {job.folder for job in tuned} & {job.folder for job in counted}
    assert Job("mini", "style", "lora", 0.016, 3, "final").folder == "final/mini/style/lora/0.016/seed3"


def test_the_experiment_has_five_seeds_two_models_two_tasks_and_a_quick_version() -> None:
    assert (len(FULL.seeds), len(FULL.models), len(FULL.tasks)) == (5, 2, 2)
    assert QUICK.steps < FULL.steps / 10


def test_further_arms_leave_the_planned_ones_as_they_are() -> None:
    assert not set(EXTRA) & set(ARMS)
    assert {name: EVERY[name] for name in ARMS} == ARMS
    assert FULL.arms == tuple(ARMS)


@pytest.mark.parametrize("idea", IDEAS, ids=lambda idea: idea.arm.name)
def test_an_idea_is_judged_against_an_arm_that_differs_in_one_thing(idea: Idea) -> None:
    assert settings_of(idea.arm.name)  # the settings are known and fit together
    own, other = idea.arm, EVERY[idea.against]
    mine, theirs = own.settings, other.settings
    changed = {name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name)}
    changed |= {"prior"} if own.prior != other.prior and "timesteps" not in changed else set()
    if "method" in changed:  # FeRA beside LoRA or DoRA: everything else that both have is equal
        assert {name for name in changed if name in mine and name in theirs} <= {"method", "steps"}
        return
    changed |= {"rates"} if own.rates != other.rates else set()
    changed -= {"rank"} if "targets" in changed else set()  # twice the rank keeps the number of parameters near
    changed -= {"rank", "rates"} if "expert" in changed else set()  # equal parameters, each at rates of its own
    changed -= {"tau"} if "tau_end" in changed else set()
    assert len(changed) == 1, changed


def test_priors_are_given_to_the_arms_that_can_use_them() -> None:
    for name, arm in EVERY.items():
        if arm.prior:
            assert arm.settings["method"] == "fera" or arm.settings.get("timesteps") == "prior", name
