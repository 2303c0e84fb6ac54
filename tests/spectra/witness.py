"""What a recording is held against: the scheduler's own calls, and scipy."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

import spectra

ALL = ("latent", "x0", "eps", "prediction")
STEPS = 4
CALL = {"num_inference_steps": STEPS, "guidance_scale": 1.0, "output_type": "latent"}
BANK = spectra.FilterBank((0.8, 1.6, 3.2))


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


class Witness:
    """What the scheduler really got and gave, kept by making it an instance of a subclass of its class."""

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe
        self.states: list[torch.Tensor] = []
        self.outputs: list[torch.Tensor] = []
        self.results: list[Any] = []
        self.times: list[Any] = []
        cls = type(pipe.scheduler)

        @functools.wraps(cls.step)
        def witness(scheduler: Any, output: Any, t: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
            result = cls.step(scheduler, output, t, sample, *args, **kwargs)
            self.times.append(t)
            self.states.append(sample.clone())
            self.outputs.append(output.clone())
            self.results.append(result)
            return result

        pipe.scheduler.__class__ = type(cls.__name__, (cls,), {"step": witness})

    def latents(self) -> list[torch.Tensor]:
        return [*self.states, self.results[-1][0]]


def scipy_energies(x: torch.Tensor, mode: str = "reflect") -> np.ndarray:
    """(..., h, w) -> (..., K), low to high, by scipy's own Gaussian filter with this kind of boundary."""
    fields = x.double().numpy()
    smooth = [gaussian_filter(fields, s, mode=mode, axes=(-2, -1)) for s in sorted(BANK.scales, reverse=True)]
    low = [np.zeros_like(fields), *smooth]
    high = [*smooth, fields]
    return np.stack([((b - a) ** 2).sum((-2, -1)) for a, b in zip(low, high, strict=True)], -1)


def energies(cube: Any, signal: str) -> np.ndarray:
    return cube.energy.sel(signal=signal).transpose("run", "step", "channel", "band").values
