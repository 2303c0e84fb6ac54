"""Which noise level a timestep stands for: what a scheduler says of its training, kept as JSON in the adapter.

    vp    log-SNR of evenly spaced timesteps, from 0 to `last`; between two of them it is interpolated
    flow  noise = timestep / steps, signal = 1 - noise; `inverted` timesteps count the signal (Mochi)
    edm   timestep = ln(sigma) / 4, where the clean sample counts once (Karras et al. 2022; Stable Video Diffusion)
    trig  timestep = noise / (signal + noise) with signal cos a, noise sin a in units of `sigma_data` (Sana-Sprint)

Timesteps are those of the scheduler; what a denoiser is told is brought back to them by `adapt.fera.view`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapt.trajectory import MOST_LOG_SNR
from spectra.dct import constant
from spectra.errors import UserError

Array = NDArray[np.float64]

KINDS = ("vp", "flow", "edm", "trig")
_TRIGONOMETRIC = ("SCMScheduler",)
_PRECONDITIONED = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
_COSINE_RATIO = ("DDPMWuerstchenScheduler",)
_FLOWS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler",
          "LTXEulerAncestralRFScheduler")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Clock:
    """A noise schedule: from a scheduler's timesteps to log-SNRs."""

    kind: str
    steps: float = 1000.0
    inverted: bool = False
    sigma_data: float = 1.0
    table: tuple[float, ...] = ()

    @classmethod
    def of(cls, schedule: dict[str, Any]) -> Clock:
        """The schedule that `schedule_of` described; UserError where the description is of something else."""
        kind: Any = None
        table: tuple[float, ...] = ()
        try:
            kind, table = schedule.get("kind"), tuple(float(level) for level in schedule.get("log_snr", ()))
            steps = float(schedule["last" if kind == "vp" else "steps"]) if kind in ("vp", "flow") else 1.0
            data = float(schedule.get("sigma_data", 1.0))
            finite = bool(np.isfinite(np.array([steps, data, *table], dtype=np.float64)).all())
        except (AttributeError, KeyError, TypeError, ValueError):
            finite, steps, data = False, 0.0, 0.0
        if kind not in KINDS or not finite or min(steps, data) <= 0 or (kind == "vp" and len(table) < 2):
            raise UserError(f"not a noise schedule as adapt.fera.noise.schedule_of writes it: {str(schedule)[:80]}")
        return cls(str(kind), steps, bool(schedule.get("inverted", False)), data, table)

    def log_snr(self, timestep: Tensor) -> Tensor:
        """Log of the squared ratio of signal and noise at timesteps (...) of the scheduler, within +-MOST_LOG_SNR."""
        t = timestep.float()
        if self.kind == "vp":
            level = self._interpolated(t / self.steps)
        elif self.kind == "edm":
            level = -8 * t
        else:
            noise = (t / self.steps).clamp(1e-6, 1 - 1e-6)
            noise = 1 - noise if self.inverted else noise
            level = 2 * torch.log((1 - noise) / noise) - 2 * math.log(self.sigma_data)
        return level.clamp(-MOST_LOG_SNR, MOST_LOG_SNR)

    def noise_variance(self, log_snr: Tensor) -> Tensor:
        """Variance of the noise in what the denoiser is given, (...).

        Where signal and noise add up in squares, or the state is scaled to that before the call, it is
        1 / (1 + SNR); where they add up themselves it is 1 / (1 + sqrt(SNR))^2.
        """
        relative = log_snr + 2 * math.log(self.sigma_data)
        if self.kind in ("vp", "edm"):
            return torch.sigmoid(-relative)
        return torch.sigmoid(-relative / 2).square()

    def levels(self, count: int) -> Array:
        """Log-SNRs (count,) of evenly spaced training timesteps; for `edm`, of evenly spaced logarithms of sigma."""
        t = (np.arange(count) + 0.5) / count
        if self.kind == "edm":
            t = math.log(700.0) / 4 * (1 - t) + math.log(0.002) / 4 * t  # the range of Stable Video Diffusion
        found: Array = self.log_snr(torch.from_numpy(t * self.steps)).double().numpy()
        return found

    def _interpolated(self, place: Tensor) -> Tensor:
        """The table read at places in [0, 1]."""
        table = constant(_table, (self,), place.device, torch.float32)
        position = (place * (len(self.table) - 1)).clamp(0, len(self.table) - 1)
        below = position.floor().clamp(max=len(self.table) - 2)
        index = below.long()
        return torch.lerp(table[index], table[index + 1], position - below)


def _table(clock: Clock) -> Array:
    return np.array(clock.table)


def schedule_of(scheduler: Any) -> dict[str, Any]:
    """The noise schedule behind a diffusers scheduler, as JSON holds it, for `FeraConfig.noise_schedule`.

    It is that of training: how many steps a sampler takes, and how it spaces them, changes nothing.

    Raises:
        UserError: a scheduler whose timesteps tell no noise level by a known rule.
    """
    names, config = [base.__name__ for base in type(scheduler).__mro__], scheduler.config
    if _any(names, _TRIGONOMETRIC):
        return {"kind": "trig", "sigma_data": float(config.sigma_data)}
    if _any(names, _PRECONDITIONED):
        return {"kind": "edm", "sigma_data": float(config.sigma_data)}
    if getattr(config, "timestep_type", "discrete") == "continuous":
        return {"kind": "edm", "sigma_data": 1.0}
    if _any(names, _COSINE_RATIO):
        return _tabled(_cosine_squares(scheduler), 1.0)
    flow = _any(names, _FLOWS) and (getattr(config, "sigma_max", None) or 0.0) <= 1
    if flow or getattr(config, "use_flow_sigmas", False):
        inverted = {"inverted": True} if getattr(config, "invert_sigmas", False) else {}
        return {"kind": "flow", "steps": int(config.num_train_timesteps), **inverted}
    if getattr(scheduler, "alphas_cumprod", None) is not None and not _any(names, _FLOWS):
        squares = scheduler.alphas_cumprod.cpu().double().numpy()
        return _tabled(squares, len(squares) - 1.0)
    raise UserError(
        f"{type(scheduler).__name__} has no known noise schedule: choose features=('shares',), which need none"
    )


def _any(names: list[str], wanted: tuple[str, ...]) -> bool:
    return not set(names).isdisjoint(wanted)


def _tabled(squares: Array, last: float) -> dict[str, Any]:
    """A schedule from the squares of the signal's weights, where those of signal and noise add up to one."""
    with np.errstate(divide="ignore"):
        levels = np.clip(np.log(squares) - np.log1p(-squares), -MOST_LOG_SNR, MOST_LOG_SNR)
    return {"kind": "vp", "last": last, "log_snr": [round(float(level), 5) for level in levels]}


def _cosine_squares(scheduler: Any, count: int = 1001) -> Array:
    """Stable Cascade's time runs from 0 to 1."""
    ratios = torch.linspace(0, 1, count, dtype=torch.float64)
    squares: Array = scheduler._alpha_cumprod(ratios, torch.device("cpu")).double().numpy()
    return squares
