"""From what a scheduler is given to the clean sample and the noise that it implies.

Every state of a sampler is `x = signal * x0 + noise * eps`. Schedulers differ in the pair (signal, noise) that a step
stands for and in what the network predicts:

    vp    signal^2 + noise^2 = 1     DDIM, DDPM, DPM++ and their kin
    ve    signal = 1                 Euler, Heun, LMS: noise up to 15 for Stable Diffusion, 700 for video
    flow  signal + noise = 1         flow matching, prediction v = eps - x0
    trig  signal = cos t             SCM, noise = sin t times the standard deviation of the data

`spectra.schedulers` says which of them each scheduler is.
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


def _one_call_each(calls: int) -> tuple[int, ...]:
    return tuple(range(calls))


@dataclass(frozen=True)
class Schedule:
    """The levels of one sampling run: `at(timestep given to step, index kept by the scheduler)`.

    `steps_of(n)` says which sampling step each of n scheduler calls belongs to. `sign` turns the prediction into one of
    the `PREDICTIONS`; where there is a rule `clean(x, out, level) -> x0`, that is used instead of them.
    `uncalled` counts timesteps at the end of the scheduler's list that say where the run ends and are no call.
    """

    space: str
    at: Callable[[Any, int | None], Level]
    final: Level
    prediction_type: str
    sign: float = 1.0
    steps_of: Callable[[int], tuple[int, ...]] = _one_call_each
    clean: Callable[[torch.Tensor, torch.Tensor, Level], torch.Tensor] | None = None
    uncalled: int = 0


def schedule_of(scheduler: Any, signals: tuple[str, ...]) -> Schedule:
    """The schedule of a scheduler whose timesteps are set (`spectra.schedulers` has the rules).

    Raises UserError if `signals` need a rule and none is known, or if the scheduler moves nothing that has bands.
    """
    from spectra.schedulers import SCHEDULERS, rule_of

    rule = rule_of(scheduler)
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
    fits = kind in PREDICTIONS and not (flow and kind == "v_prediction") and (flow or kind != "flow_prediction")
    known = fits or schedule.clean is not None
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
    What a scheduler does to x0 afterwards (clipping, thresholding) is left out.
    """
    if schedule.clean is not None:
        return _from_clean(x, schedule.clean(x, out, level), level.signal, level.noise)
    scale = 1 / math.hypot(level.signal, level.noise) if schedule.prediction_type == "v_prediction" else 1.0
    return PREDICTIONS[schedule.prediction_type](
        scale * x, schedule.sign * out, scale * level.signal, scale * level.noise
    )


def output_for(x: torch.Tensor, clean: torch.Tensor, level: Level, schedule: Schedule) -> torch.Tensor:
    """The prediction whose clean sample at state `x` is `clean`: every rule for x0 is a straight line in it."""
    nothing = 0 * x
    start, slope = (clean_and_noise(*pair, level, schedule)[0] for pair in ((x, nothing), (nothing, nothing + 1)))
    return (clean - start) / slope


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
