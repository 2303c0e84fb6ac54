"""Networks whose output is brought to a clean sample by weights of the scheduler's own."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from spectra.errors import UserError
from spectra.schedulers.by_index import by_index
from spectra.schedulers.common import Weights, exploding, numbers
from spectra.signals import Level, Schedule

if TYPE_CHECKING:
    import torch


def edm(scheduler: Any) -> Schedule:
    """Karras et al. 2022, table 1: x0 = c_skip x + c_out F; under `v_prediction` the output counts negatively."""
    kind, data = scheduler.config.prediction_type, scheduler.config.sigma_data
    if kind not in ("epsilon", "v_prediction"):
        name = type(scheduler).__name__
        raise UserError(f"{name} predicts {kind!r}, which it cannot step itself: set epsilon or v_prediction")
    sign = 1 if kind == "epsilon" else -1

    def clean(x: torch.Tensor, out: torch.Tensor, level: Level) -> torch.Tensor:
        norm = math.hypot(level.noise, data)
        x0: torch.Tensor = (data / norm) ** 2 * x + sign * level.noise * data / norm * out
        return x0

    final = float(scheduler.precondition_noise(scheduler.sigmas[-1]))
    final = final if math.isfinite(final) else math.nan
    schedule = by_index(scheduler, "ve", exploding, final_timestep=final, clean=clean)
    return replace(schedule, prediction_type=f"preconditioned {kind}")


def consistency(scheduler: Any) -> Schedule:
    """Song et al. 2023, appendix C: as EDM, but exact at `sigma_min`, where the finished sample stays."""
    data, lowest = scheduler.config.sigma_data, scheduler.config.sigma_min

    def clean(x: torch.Tensor, out: torch.Tensor, level: Level) -> torch.Tensor:
        above = level.noise - lowest
        x0: torch.Tensor = data**2 / (above**2 + data**2) * x + above * data / math.hypot(level.noise, data) * out
        return x0

    end = 250 * math.log(lowest)
    return by_index(scheduler, "ve", exploding, kind="consistency", final_timestep=end, clean=clean)


def trigonometric(scheduler: Any) -> Schedule:
    """Lu and Song 2024: x = cos t x0 + sin t z, where z has the data's standard deviation; x0 = cos t x - sin t F."""
    data = scheduler.config.sigma_data

    def clean(x: torch.Tensor, out: torch.Tensor, level: Level) -> torch.Tensor:
        x0: torch.Tensor = level.signal * x - level.noise / data * out
        return x0

    angles = numbers(scheduler.timesteps)
    weights: Weights = lambda angle: (math.cos(angle), data * math.sin(angle))  # noqa: E731
    return by_index(scheduler, "trig", weights, angles, "trigflow", angles[-1], clean=clean)
