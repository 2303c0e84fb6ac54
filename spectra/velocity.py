"""Predictions as velocities, and what two velocities have in common.

The velocity is the direction in which a state moves along the ODE of its sampler:

    flow     v = eps - x0                                              (Lipman et al. 2023)
    vp, ve   v = a eps - b x0, of the state brought to a^2 + b^2 = 1   (Salimans and Ho 2022)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from spectra.bands import FilterBank
from spectra.recording.split import Split
from spectra.signals import Level, Schedule, clean_and_noise

if TYPE_CHECKING:
    from torch import Tensor

EPSILON = 1e-8  # of the published implementation, against a division by zero
DIRECT = frozenset({"flow_prediction", "v_prediction"})  # these predictions are velocities already


def velocity(x: Tensor, out: Tensor, level: Level, schedule: Schedule) -> Tensor:
    """The velocity that prediction `out` at state `x` stands for, any one shape; NaN where it is not determined."""
    if schedule.prediction_type in DIRECT:
        return schedule.sign * out
    x0, eps = clean_and_noise(x, out, level, schedule)
    if schedule.space == "flow":
        return eps - x0
    return (level.signal * eps - level.noise * x0) / math.hypot(level.signal, level.noise)


def prediction(x: Tensor, v: Tensor, level: Level, schedule: Schedule) -> Tensor:
    """The prediction whose `velocity` at state `x` is `v`: what the scheduler is to be given."""
    if schedule.prediction_type in DIRECT:
        return schedule.sign * v
    a, b = level.signal, level.noise
    if schedule.space == "flow":
        x0, eps = x - b * v, x + a * v
    else:
        length = math.hypot(a, b)
        x0, eps = (a * x / length - b * v) / length, (a * v + b * x / length) / length
    return schedule.sign * (eps if schedule.prediction_type == "epsilon" else x0)


def least_squares_scale(cond: Tensor, uncond: Tensor) -> Tensor:
    """`<c, u> / (||u||^2 + 1e-8)` of each sample over all other axes: (b, ...) -> (b, 1, ...)."""
    axes = tuple(range(1, cond.ndim))
    return (cond * uncond).sum(axes, keepdim=True) / (uncond.square().sum(axes, keepdim=True) + EPSILON)


def agreement(x: Tensor, split: Split, level: Level, schedule: Schedule, bank: FilterBank) -> Tensor:
    """`<p, B_b q>` of the velocities with and without the prompt for the pairs of `schema.PAIRS`: (b, 3, K), float32.

    `x` and the predictions are plain, `(b, c, [t], h, w)`. Channels and frames are summed, and so are, by band, the
    inner products of whole samples. Computed in float64 where the device has it: guidance is a small difference.
    """
    x, c, u = (one.to(_exact(x)) for one in (x, split.cond, split.uncond))
    c, u = (velocity(x, out, level, schedule) for out in (c, u))
    return band_products(c, u, bank).float()


def band_products(c: Tensor, u: Tensor, bank: FilterBank) -> Tensor:
    """`<c, B_b c>`, `<c, B_b u>` and `<u, B_b u>` of plain fields, summed over channels and frames: (b, 3, K), float64.

    The mixed one from three powers: `2 <c, B u> = <c, B c> + <u, B u> - <c - u, B (c - u)>`.
    """
    import torch

    c, u = c.to(_exact(c)), u.to(_exact(u))
    power = bank.power(torch.stack([c, u, c - u], 1))
    cc, uu, dd = power.flatten(2, -2).sum(2).unbind(1)
    return torch.stack([cc, (cc + uu - dd) / 2, uu], 1)


def _exact(x: Tensor) -> Any:
    """The type of inner products: float64 where the device has it."""
    import torch

    return torch.float32 if x.device.type == "mps" else torch.float64
