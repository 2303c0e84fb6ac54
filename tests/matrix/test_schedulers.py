"""Every scheduler of diffusers: x0, levels and the finished sample, against its own numbers and a known sample."""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from spectra.schedulers import REFUSED, SCHEDULERS
from spectra.signals import Level, Schedule, clean_and_noise, output_for, schedule_of
from tests.matrix.driving import (
    ALL,
    BETAS,
    CONVERTED,
    EVERY,
    FREE,
    KINDS,
    OWN,
    STEPS,
    brownian,
    close,
    drive,
    make,
    random_run,
    schedule_of_set,
    timesteps,
)


@pytest.fixture(autouse=True)
def noise(monkeypatch: pytest.MonkeyPatch) -> None:
    brownian(monkeypatch)


def test_every_scheduler_of_diffusers_is_known_or_refused_with_a_reason() -> None:
    folder = Path(inspect.getfile(diffusers)).parent / "schedulers"
    parsed = [ast.parse(file.read_text()) for file in folder.rglob("scheduling_*.py")]
    classes = [node for tree in parsed for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    names = {one.name for one in classes if any(ast.unparse(base) == "SchedulerMixin" for base in one.bases)}
    assert len(names) > 50
    assert names - SCHEDULERS.keys() - REFUSED.keys() == set()
    assert SCHEDULERS.keys() & REFUSED.keys() == set()
    assert all(len(reason) > 10 for reason in REFUSED.values())


@pytest.mark.parametrize(("name", "options"), OWN, ids=lambda value: value if isinstance(value, str) else "")
def test_the_clean_sample_is_the_one_that_the_scheduler_itself_returns(name: str, options: dict[str, Any]) -> None:
    schedule, calls = random_run(make(name, **options))
    for call in calls:
        close(clean_and_noise(call.x, call.out, call.level, schedule)[0], call.result[1])


@pytest.mark.parametrize(("name", "options"), CONVERTED, ids=lambda value: value if isinstance(value, str) else "")
def test_the_clean_sample_is_the_one_that_solvers_convert_to(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = make(name, **options)
    converted: list[torch.Tensor] = []
    convert = scheduler.convert_model_output

    def keep(out: torch.Tensor, *args: Any, sample: torch.Tensor, **kwargs: Any) -> Any:
        converted.append(convert(out, *args, sample=sample, **kwargs))
        return converted[-1]

    scheduler.convert_model_output = keep
    schedule, calls = random_run(scheduler)
    which = 1 if name.startswith("DEIS") else 0  # DEIS integrates the noise, the others the clean sample
    assert len(converted) == len(calls)
    for call, expected in zip(calls, converted, strict=True):
        close(clean_and_noise(call.x, call.out, call.level, schedule)[which], expected)


@pytest.mark.parametrize("kind", KINDS)
def test_lcm_and_tcd_step_from_the_same_clean_sample(kind: str) -> None:
    scheduler = make("LCMScheduler", prediction_type=kind, **BETAS, **FREE)
    schedule, calls = random_run(scheduler)
    for call in calls:
        skip, keep = scheduler.get_scalings_for_boundary_condition_discrete(call.level.timestep)
        close(keep * clean_and_noise(call.x, call.out, call.level, schedule)[0] + skip * call.x, call.result[1])
    scheduler = make("TCDScheduler", prediction_type=kind, **BETAS, **FREE)
    schedule, calls = random_run(scheduler)
    times = [int(call.level.timestep) for call in calls]
    for call, following in zip(calls, [*times[1:], 0], strict=True):
        square = float(scheduler.alphas_cumprod[int(0.7 * following)])  # eta = 0.3
        x0, eps = clean_and_noise(call.x, call.out, call.level, schedule)
        close(math.sqrt(square) * x0 + math.sqrt(1 - square) * eps, call.result[1])


def test_consistency_models_step_to_the_clean_sample_plus_noise() -> None:
    scheduler = make("CMStochasticIterativeScheduler", clip_denoised=False, s_noise=0.0)
    schedule, calls = random_run(scheduler)
    for call in calls:
        close(clean_and_noise(call.x, call.out, call.level, schedule)[0], call.result[0])
    assert schedule.final.noise == pytest.approx(0.002)


def weights(x: torch.Tensor, x0: torch.Tensor) -> tuple[float, float]:
    """How much of x0 a state holds, and the standard deviation of what else it holds."""
    signal = float((x * x0).sum() / x0.square().sum())
    return signal, float((x - signal * x0).std())


def perfect(schedule: Schedule, x0: torch.Tensor, eps: torch.Tensor) -> Callable[[torch.Tensor, Level], torch.Tensor]:
    """A network that knows x0; where its output does not matter to x0, it says eps."""

    def predict(x: torch.Tensor, level: Level) -> torch.Tensor:
        out = output_for(x, x0.to(x), level, schedule)
        return torch.where(out.isfinite(), out, eps)

    return predict


@pytest.mark.parametrize(("name", "options"), EVERY, ids=lambda value: value if isinstance(value, str) else "")
def test_states_hold_as_much_signal_and_noise_as_their_levels_say_up_to_the_finished_sample(
    name: str, options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    scheduler = make(name, **options)
    timesteps(scheduler)
    schedule = schedule_of(scheduler, ALL)
    x0, eps = torch.randn(2, 1, 4, 64, 64, dtype=torch.float64)
    index = 0 if hasattr(scheduler, "step_index") else None
    first = schedule.at(scheduler.timesteps[0], index)
    start = first.signal * x0 + first.noise * eps
    calls = list(drive(scheduler, start, perfect(schedule, x0, eps)))
    states = [*((call.x, call.level) for call in calls), (calls[-1].result[0], schedule.final)]
    for x, level in states:
        signal, noise = weights(x.double(), x0)
        assert signal == pytest.approx(level.signal, rel=0.01, abs=0.03 * level.noise + 1e-3)
        assert noise == pytest.approx(level.noise, rel=0.03, abs=2e-3)
    assert len(set(schedule.steps_of(len(calls)))) == {"MiniMaxH3Scheduler": STEPS - 1}.get(name, STEPS)


def test_the_large_variance_of_ddpm_leaves_noise_in_the_finished_sample() -> None:
    torch.manual_seed(0)
    scheduler = make("DDPMScheduler", variance_type="fixed_large", timestep_spacing="trailing", **BETAS, **FREE)
    schedule = schedule_of_set(scheduler)
    x0, start = torch.randn(2, 1, 4, 64, 64)
    *_, last = drive(scheduler, start, perfect(schedule, x0, start))
    assert schedule.final.noise > 0.2
    assert weights(last.result[0], x0) == pytest.approx((1, schedule.final.noise), rel=0.02)


def test_improved_pseudo_linear_steps_go_from_level_to_level() -> None:
    scheduler = make("IPNDMScheduler")
    schedule = schedule_of_set(scheduler)
    x0, eps = torch.randn(2, 1, 1, 4, 4)
    levels = [*(schedule.at(t, i) for i, t in enumerate(scheduler.timesteps)), schedule.final]
    for i in range(1, STEPS):  # at the first there is no signal, and the scheduler divides by it
        (_, a, b), (_, after, noise) = levels[i], levels[i + 1]
        scheduler.set_timesteps(STEPS)
        scheduler._step_index = i
        x, velocity = a * x0 + b * eps, a * eps - b * x0
        close(clean_and_noise(x, velocity, levels[i], schedule)[0], x0)
        result = scheduler.step(velocity, scheduler.timesteps[i], x, return_dict=False)[0]
        close(result, after * x0 + noise * eps)
