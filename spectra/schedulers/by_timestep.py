"""Schedulers whose levels are looked up by timestep."""

from __future__ import annotations

import math
from typing import Any

from spectra.schedulers.common import kind_of, numbers, only, preserving, straight
from spectra.signals import Level, Schedule


def by_timestep(scheduler: Any, final: Level, **more: Any) -> Schedule:
    """`alphas_cumprod[t] = signal^2`: the timestep itself is the key."""
    table = numbers(scheduler.alphas_cumprod)

    def at(timestep: Any, index: int | None) -> Level:
        t = only(timestep)
        return Level(t, *preserving(table[int(t)]))

    return Schedule("vp", at, final, kind_of(scheduler, "epsilon"), **more)


def stride_of(scheduler: Any) -> int:
    """Training timesteps from one step to the next."""
    train: int = scheduler.config.num_train_timesteps
    return train // (scheduler.num_inference_steps or train)


def ddim(scheduler: Any, **more: Any) -> Schedule:
    """The last step goes one stride below the last timestep, or to `final_alpha_cumprod` if that is negative."""
    last = int(scheduler.timesteps[-1]) - stride_of(scheduler)
    square = scheduler.alphas_cumprod[last] if last >= 0 else scheduler.final_alpha_cumprod
    return by_timestep(scheduler, Level(max(last, 0), *preserving(float(square))), **more)


def ddpm(scheduler: Any) -> Schedule:
    """The last step gives x0, to which `fixed_large` adds noise unless the last timestep is 0."""
    last = int(scheduler.timesteps[-1])
    noisy = scheduler.config.variance_type == "fixed_large" and last > 0
    noise = math.sqrt(1 - float(scheduler.alphas_cumprod[last])) if noisy else 0.0
    return by_timestep(scheduler, Level(0.0, 1.0, noise))


def clean_end(scheduler: Any) -> Schedule:
    """The last step gives x0 (LCM: up to its boundary condition, which adds 1e-5 of the state)."""
    return by_timestep(scheduler, Level(0.0, 1.0, 0.0))


def tcd(scheduler: Any) -> Schedule:
    """The last step goes to timestep 0, which is not free of noise."""
    return by_timestep(scheduler, Level(0.0, *preserving(float(scheduler.alphas_cumprod[0]))))


def pndm(scheduler: Any) -> Schedule:
    """Three Runge-Kutta steps of four calls, then one call a step; without them the first step takes two calls."""
    warm_up = 0 if scheduler.config.skip_prk_steps else len(scheduler.prk_timesteps)

    def steps_of(calls: int) -> tuple[int, ...]:
        if not warm_up:
            return tuple(max(i - 1, 0) for i in range(calls))
        return tuple(i // 4 if i < warm_up else warm_up // 4 + i - warm_up for i in range(calls))

    return ddim(scheduler, steps_of=steps_of)


def ddim_inverse(scheduler: Any) -> Schedule:
    """`step` is given the timestep that it goes to; the state is one stride below it."""
    table, stride = numbers(scheduler.alphas_cumprod), stride_of(scheduler)
    first, end = float(scheduler.initial_alpha_cumprod), int(scheduler.timesteps[-1])

    def at(timestep: Any, index: int | None) -> Level:
        here = int(only(timestep)) - stride
        return Level(only(timestep), *preserving(table[min(here, len(table) - 1)] if here >= 0 else first))

    return Schedule("vp", at, Level(end, *preserving(table[end])), kind_of(scheduler, "epsilon"))


def wuerstchen(scheduler: Any) -> Schedule:
    """Time runs from 1 to 0. The last step goes to the mean of what is possible at 0, so it leaves less noise."""
    import torch

    def square(time: float) -> float:
        return float(scheduler._alpha_cumprod(torch.tensor([time], dtype=torch.float64), torch.device("cpu")))

    def at(timestep: Any, index: int | None) -> Level:
        return Level(only(timestep), *preserving(square(only(timestep))))

    last, end = (square(float(t)) for t in scheduler.timesteps[-2:])
    noise = math.sqrt(last / end) * (1 - end) / math.sqrt(1 - last)
    return Schedule("vp", at, Level(0.0, math.sqrt(end), noise), "epsilon", uncalled=1)


def flow_map(scheduler: Any) -> Schedule:
    """The network predicts the mean velocity of a jump, which tells no clean sample unless the jump ends at 0."""
    train = scheduler.config.num_train_timesteps

    def at(timestep: Any, index: int | None) -> Level:
        return Level(only(timestep), *straight(only(timestep) / train))

    return Schedule("flow", at, Level(0.0, 1.0, 0.0), "mean_velocity")
