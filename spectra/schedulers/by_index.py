"""Schedulers that keep an index into their levels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from spectra.errors import UserError
from spectra.schedulers.common import Weights, exploding, kind_of, numbers, ratio, straight
from spectra.signals import Level, Schedule


def by_index(
    scheduler: Any,
    space: str,
    weights: Weights,
    sigmas: Sequence[float] | None = None,
    kind: str = "epsilon",
    final_timestep: float = 0.0,
    **more: Any,
) -> Schedule:
    """Levels kept as `sigmas[i]`, one more than timesteps."""
    levels, timesteps = sigmas or numbers(scheduler.sigmas), numbers(scheduler.timesteps)

    def at(timestep: Any, index: int | None) -> Level:
        if index is None:
            raise UserError(f"{type(scheduler).__name__} lost its step index, so the noise level is unknown")
        return Level(timesteps[index], *weights(levels[index]))

    final = Level(final_timestep, *weights(levels[-1]))
    return Schedule(space, at, final, kind_of(scheduler, kind), **more)


def pairs(calls: int) -> tuple[int, ...]:
    """Two calls a step; the last step has one."""
    return tuple(i // 2 for i in range(calls))


def euler(scheduler: Any) -> Schedule:
    """With timesteps that are 0.25 ln sigma, the end has none if its sigma is 0."""
    continuous = getattr(scheduler.config, "timestep_type", "discrete") == "continuous"
    logarithm = continuous and kind_of(scheduler, "epsilon") == "v_prediction"
    end = float(scheduler.sigmas[-1])
    final = (0.25 * math.log(end) if end > 0 else math.nan) if logarithm else 0.0
    return by_index(scheduler, "ve", exploding, final_timestep=final)


def heun(scheduler: Any) -> Schedule:
    """`sigmas` are repeated as often as they are visited."""
    return by_index(scheduler, "ve", exploding, steps_of=pairs)


def midpoints(middle: Callable[[Any, list[float], int], float]) -> Callable[[Any], Schedule]:
    """Every second call evaluates at `middle(scheduler, sigmas, i)`, between two levels."""

    def rule(scheduler: Any) -> Schedule:
        sigmas = numbers(scheduler.sigmas)
        calls = len(scheduler.timesteps)
        levels = [middle(scheduler, sigmas, i) if i % 2 and i < calls else sigmas[i] for i in range(len(sigmas))]
        return by_index(scheduler, "ve", exploding, levels, steps_of=pairs)

    return rule


def solver(scheduler: Any, **more: Any) -> Schedule:
    """Solvers whose `sigmas` are noise over signal while the state preserves the variance (or flows, if told to)."""
    if getattr(scheduler.config, "use_flow_sigmas", False):
        return by_index(scheduler, "flow", straight, **more)
    return by_index(scheduler, "vp", ratio, **more)


def solver_inverse(scheduler: Any) -> Schedule:
    """From the picture to the noise."""
    return solver(scheduler, final_timestep=float(scheduler.timesteps[-1]))


def flow(scheduler: Any) -> Schedule:
    """Noise is `sigmas[i]`, or the signal is under `invert_sigmas`, where the network predicts x0 - eps."""
    if getattr(scheduler, "_scale_factors", None):
        name = type(scheduler).__name__
        raise UserError(f"{name} changes the size of its latents between steps; unset its scale_factors to record")
    if getattr(scheduler.config, "invert_sigmas", False):
        train = float(scheduler.config.num_train_timesteps)
        backwards: Weights = lambda sigma: (sigma, 1 - sigma)  # noqa: E731
        return by_index(scheduler, "flow", backwards, kind="flow_prediction", final_timestep=train, sign=-1.0)
    return by_index(scheduler, "flow", straight, kind="flow_prediction")


def flow_heun(scheduler: Any) -> Schedule:
    """`sigmas` are repeated as often as they are visited."""
    return by_index(scheduler, "flow", straight, kind="flow_prediction", steps_of=pairs)


def flow_ancestral(scheduler: Any) -> Schedule:
    """Refused with a terminal timestep, at which the scheduler counts no further."""
    if len(scheduler.timesteps) == len(scheduler.sigmas):
        raise UserError(
            f"{type(scheduler).__name__} was given sigmas that end in 0, for which it makes a step that does nothing; "
            f"give num_inference_steps instead"
        )
    return flow(scheduler)


def flow_upwards(scheduler: Any) -> Schedule:
    """Time runs from 0 to 1 and the network predicts x0 - eps."""
    return by_index(scheduler, "flow", straight, kind="flow_prediction", final_timestep=1.0, sign=-1.0)


def ipndm(scheduler: Any) -> Schedule:
    """`alphas` and `betas` are the weights themselves; the network predicts v (Salimans and Ho 2022)."""
    alphas = dict(zip(betas := numbers(scheduler.betas), numbers(scheduler.alphas), strict=True))
    return by_index(scheduler, "vp", lambda beta: (alphas[beta], beta), betas, kind="v_prediction")
