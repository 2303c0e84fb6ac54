"""The noise levels that a model is trained on: the forward process `a x0 + b eps`, whatever samples from it later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from spectra.errors import UserError


class Noise(NamedTuple):
    """Levels of a forward process, each (steps,), from noise to data: timestep, and the weights of x0 and eps."""

    space: str
    timestep: tuple[float, ...]
    signal: tuple[float, ...]
    noise: tuple[float, ...]


def forward_levels(scheduler: Any, levels: int | Sequence[float]) -> Noise:
    """The levels of the process that the network under this scheduler was trained with, the clean end included.

    Raises UserError for levels that do not fall from at most 1, and for schedulers without a known process.
    """
    flow = type(scheduler).__name__.startswith("FlowMatch") or getattr(scheduler.config, "use_flow_sigmas", False)
    table = getattr(scheduler, "alphas_cumprod", None)
    continuous = getattr(scheduler.config, "timestep_type", "discrete") == "continuous"  # whatever its table says
    if flow:
        noise = None
    elif table is not None and not continuous:
        noise = np.sqrt(1 - table.cpu().double().numpy())
    else:
        raise UserError(f"{type(scheduler).__name__} has no known forward process, so its data cannot be probed")
    if isinstance(levels, int):
        return _spread(scheduler, levels, noise)
    wanted = np.array([float(level) for level in levels if level != 0])
    if not (len(wanted) and (np.diff(wanted) < 0).all() and wanted[-1] > 0 and wanted[0] <= 1):
        raise UserError(f"noise levels fall from at most 1 towards 0, one after the other, not {list(levels)}")
    if noise is None:
        return _flow(scheduler, wanted)
    return _tabled(noise, abs(noise - wanted[:, None]).argmin(1))


def _spread(scheduler: Any, count: int, noise: Any) -> Noise:
    train = int(scheduler.config.num_train_timesteps)
    if not 1 <= count <= train:
        raise UserError(f"{count} noise levels are too {'many' if count > 1 else 'few'}: give 1 to {train}")
    if noise is None:
        return _flow(scheduler, np.linspace(1, 0, count + 1)[:-1])
    return _tabled(noise, np.linspace(train, 0, count + 1)[:-1].round().astype(int) - 1)


def _tabled(noise: Any, timesteps: Any) -> Noise:
    timesteps = np.array(list(dict.fromkeys(timesteps.tolist())))
    b = noise[timesteps]
    return _noise("vp", timesteps, np.sqrt(1 - b * b), b)


def _flow(scheduler: Any, noise: Any) -> Noise:
    """Timesteps count the noise, or the signal where a scheduler turns its sigmas round (Mochi)."""
    train = int(scheduler.config.num_train_timesteps)
    if getattr(scheduler.config, "invert_sigmas", False):
        return _noise("flow", (1 - noise) * train, 1 - noise, noise, float(train))
    return _noise("flow", noise * train, 1 - noise, noise)


def _noise(space: str, timestep: Any, a: Any, b: Any, end: float = 0.0) -> Noise:
    ends = zip((timestep, a, b), (end, 1.0, 0.0), strict=True)
    return Noise(space, *((*map(float, values), end) for values, end in ends))
