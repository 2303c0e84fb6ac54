"""From what a scheduler is given to the clean sample and the noise that it implies.

Every state of a sampler is `x = signal * x0 + noise * eps`. Schedulers differ in the pair (signal, noise) that a step
stands for and in what the network predicts:

    vp    signal^2 + noise^2 = 1     DDIM and DDPM by `alphas_cumprod[t]`, DPM++ and its kin by `sigmas[i]`
    ve    signal = 1                 Euler, Heun, LMS: noise = `sigmas[i]`, up to 15 for Stable Diffusion
    flow  signal + noise = 1         flow matching: noise = `sigmas[i]`, prediction v = eps - x0
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from spectra.errors import UserError

if TYPE_CHECKING:
    import torch

SIGNALS = ("latent", "x0", "eps", "prediction")
DERIVED = frozenset({"x0", "eps"})


class Level(NamedTuple):
    """Where a step stands: the scheduler's timestep, and the weights of x0 and eps in the state."""

    timestep: float
    signal: float
    noise: float


@dataclass(frozen=True)
class Schedule:
    """The levels of one sampling run: `at(timestep given to step, index kept by the scheduler)`."""

    space: str
    at: Callable[[Any, int | None], Level]
    final: Level
    prediction_type: str
    sign: float = 1.0


def _by_timestep(scheduler: Any) -> Schedule:
    """Variance preserving, `alphas_cumprod[t] = signal^2`: the timestep itself is the key."""
    table = scheduler.alphas_cumprod.cpu().double().tolist()

    def level(timestep: float, square: float) -> Level:
        return Level(timestep, math.sqrt(square), math.sqrt(max(1 - square, 0.0)))

    def at(timestep: Any, index: int | None) -> Level:
        return level(float(timestep), table[int(timestep)])

    final = float(getattr(scheduler, "final_alpha_cumprod", 1.0))
    return Schedule("vp", at, level(0.0, final), scheduler.config.prediction_type)


def _by_index(scheduler: Any, space: str, weights: Callable[[float], tuple[float, float]], **more: Any) -> Schedule:
    """Levels kept as `sigmas[i]`, one more than timesteps. Read once, so that no step waits for the device."""
    sigmas, timesteps = (values.cpu().double().tolist() for values in (scheduler.sigmas, scheduler.timesteps))
    kind = getattr(scheduler.config, "prediction_type", "flow_prediction")

    def at(timestep: Any, index: int | None) -> Level:
        if index is None:
            raise UserError(f"{type(scheduler).__name__} lost its step index, so the noise level is unknown")
        return Level(timesteps[index], *weights(sigmas[index]))

    final_timestep = float(scheduler.config.num_train_timesteps) if sigmas[-1] == 1 else 0.0
    return Schedule(space, at, Level(final_timestep, *weights(sigmas[-1])), kind, **more)


def _variance_exploding(scheduler: Any) -> Schedule:
    return _by_index(scheduler, "ve", lambda sigma: (1.0, sigma))


def _solver(scheduler: Any) -> Schedule:
    """Solvers whose `sigmas` are noise over signal while the state preserves the variance (or flows, if told to)."""
    if getattr(scheduler.config, "use_flow_sigmas", False):
        return _by_index(scheduler, "flow", lambda sigma: (1 - sigma, sigma))
    return _by_index(scheduler, "vp", lambda sigma: (1 / math.hypot(1, sigma), sigma / math.hypot(1, sigma)))


def _flow(scheduler: Any) -> Schedule:
    if getattr(scheduler.config, "invert_sigmas", False):
        return _by_index(scheduler, "flow", lambda sigma: (sigma, 1 - sigma), sign=-1.0)
    return _by_index(scheduler, "flow", lambda sigma: (1 - sigma, sigma))


SCHEDULERS: dict[str, Callable[[Any], Schedule]] = {
    **dict.fromkeys(("DDIMScheduler", "DDIMParallelScheduler", "CogVideoXDDIMScheduler"), _by_timestep),
    **dict.fromkeys(("DDPMScheduler", "DDPMParallelScheduler", "CogVideoXDPMScheduler"), _by_timestep),
    **dict.fromkeys(("PNDMScheduler", "LCMScheduler", "TCDScheduler"), _by_timestep),
    **dict.fromkeys(("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"), _variance_exploding),
    **dict.fromkeys(("HeunDiscreteScheduler", "LMSDiscreteScheduler"), _variance_exploding),
    **dict.fromkeys(("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"), _solver),
    **dict.fromkeys(("UniPCMultistepScheduler", "DEISMultistepScheduler", "SASolverScheduler"), _solver),
    **dict.fromkeys(("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"), _flow),
    "FlowMatchLCMScheduler": _flow,
}


def schedule_of(scheduler: Any, signals: tuple[str, ...]) -> Schedule:
    """The schedule of a scheduler whose timesteps are set. Raises UserError if `signals` need an unknown rule."""
    rule = next((SCHEDULERS[base.__name__] for base in type(scheduler).__mro__ if base.__name__ in SCHEDULERS), None)
    if rule is not None:
        return _checked(rule(scheduler), scheduler, signals)
    if not DERIVED.intersection(signals):
        nowhere = Level(math.nan, math.nan, math.nan)
        return Schedule("unknown", lambda timestep, index: nowhere, nowhere, "unknown")
    raise UserError(
        f"{type(scheduler).__name__} has no known rule for x0 and eps: record signals latent and prediction only, "
        f"or set one of {', '.join(sorted(SCHEDULERS))}"
    )


def _checked(schedule: Schedule, scheduler: Any, signals: tuple[str, ...]) -> Schedule:
    kind, flow = schedule.prediction_type, schedule.space == "flow"
    known = kind in PREDICTIONS and not (flow and kind == "v_prediction") and (flow or kind != "flow_prediction")
    if DERIVED.intersection(signals) and not known:
        name = type(scheduler).__name__
        raise UserError(
            f"{name} predicts {kind!r} in a {schedule.space} state, for which no rule for x0 and eps is known"
        )
    return schedule


def clean_and_noise(
    x: torch.Tensor, out: torch.Tensor, level: Level, schedule: Schedule
) -> tuple[torch.Tensor, torch.Tensor]:
    """(x0, eps) implied by state `x` and prediction `out`, any one shape; NaN where the level does not determine them.

    With signal a and noise b (formulas of Salimans and Ho 2022 for v, Lipman et al. 2023 for flow):

        epsilon  x0 = (x - b e) / a               v (a^2 + b^2 = 1)  x0 = a x - b v,  eps = a v + b x
        sample   eps = (x - a x0) / b             flow (a + b = 1)   x0 = x - b v,    eps = x + a v

    A variance exploding state is brought to a^2 + b^2 = 1 first. Under v, nothing is divided, so a = 0 is harmless.
    """
    scale = 1 / math.hypot(level.signal, level.noise) if schedule.prediction_type == "v_prediction" else 1.0
    return PREDICTIONS[schedule.prediction_type](
        scale * x, schedule.sign * out, scale * level.signal, scale * level.noise
    )


def _from_noise(x: torch.Tensor, out: torch.Tensor, a: float, b: float) -> tuple[torch.Tensor, torch.Tensor]:
    return _over(x - b * out, a), out


def _from_velocity(x: torch.Tensor, out: torch.Tensor, a: float, b: float) -> tuple[torch.Tensor, torch.Tensor]:
    return a * x - b * out, a * out + b * x


def _from_clean(x: torch.Tensor, out: torch.Tensor, a: float, b: float) -> tuple[torch.Tensor, torch.Tensor]:
    return out, _over(x - a * out, b)


def _from_flow(x: torch.Tensor, out: torch.Tensor, a: float, b: float) -> tuple[torch.Tensor, torch.Tensor]:
    return x - b * out, x + a * out


def _over(x: torch.Tensor, weight: float) -> torch.Tensor:
    return x / weight if weight > 0 else x * math.nan


PREDICTIONS: dict[str, Callable[[torch.Tensor, torch.Tensor, float, float], tuple[torch.Tensor, torch.Tensor]]] = {
    "epsilon": _from_noise,
    "v_prediction": _from_velocity,
    "sample": _from_clean,
    "original_sample": _from_clean,
    "flow_prediction": _from_flow,
}
