"""Cubes whose latents, and therefore energies and spectra, are known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from adapt import Prior
from spectra.bands import FilterBank, radial_spectrum, radii
from spectra.gaussian import GaussianField

Array = NDArray[np.float64]

GRID, CHANNELS, STEPS, RUNS, BINS = (16, 16), 4, 12, 24, 64
BANK = FilterBank.octaves(4, GRID)
FLOW = {"class": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 1.0}
DIMS = ("run", "step", "signal")


def latents(seed: int = 0) -> tuple[Array, Array]:
    """Noise level (steps + 1,) and latents (runs, steps + 1, channel, h, w) along a straight path from noise."""
    draw = np.random.default_rng(seed)
    noise = draw.standard_normal((RUNS, 1, CHANNELS, *GRID))
    ripple = np.add.outer(np.sin(np.arange(16) / 2.5), np.cos(np.arange(16) / 3.5))
    smooth = ripple * draw.standard_normal((RUNS, 1, CHANNELS, 1, 1)) + draw.standard_normal((RUNS, 1, CHANNELS, 1, 1))
    clean = smooth + 0.1 * draw.standard_normal(noise.shape)
    return straight(clean[:, 0], noise[:, 0], STEPS)


def straight(clean: Array, noise: Array, steps: int) -> tuple[Array, Array]:
    """Noise levels (steps + 1,) and states (1 - s) clean + s noise, (runs, steps + 1, c, h, w)."""
    level = np.linspace(1, 0, steps + 1)
    s = level[:, None, None, None]
    return level, (1 - s) * clean[:, None] + s * noise[:, None]


def gaussian(runs: int, steps: int, exponent: float = 2.0, seed: int = 0) -> tuple[Array, Array]:
    """States of a field whose power falls as 1 / f^exponent."""
    field = GaussianField.power_law((CHANNELS, *GRID), exponent)
    noise = np.random.default_rng(seed + 1).standard_normal((runs, CHANNELS, *GRID))
    return straight(field.sample(runs, seed), noise, steps)


def cube(seed: int = 0, **attrs: Any) -> xr.Dataset:
    """The cube of `latents`: 24 runs of 12 prompts, two seeds each."""
    return cube_of(*latents(seed), prompts=[f"prompt {i // 2}" for i in range(RUNS)], **attrs)


@cache
def usual() -> Prior:
    """A prior of `cube`, in its own bands."""
    return Prior.from_cube(cube(), scales=BANK.scales)


@cache
def chosen() -> Prior:
    """A prior of `cube`, whose bands were chosen."""
    return Prior.from_cube(cube())


@cache
def both() -> Prior:
    """A prior of `cube` and of data, in the bands of the cube."""
    return Prior.from_cube(cube(), scales=BANK.scales, data=data_cube().assign_attrs(cube="secret"))


def data_cube(seed: int = 7, **attrs: Any) -> xr.Dataset:
    """The same as data: 24 pictures of one caption."""
    made = cube_of(*latents(seed), prompts=["a picture"] * RUNS, sampler="forward", scheduler='{"class": "forward"}')
    return made.assign_coords(draw=("run", np.arange(RUNS))).assign_attrs(attrs)


def cube_of(
    level: Array, x: Array, bank: FilterBank = BANK, prompts: Sequence[str] | None = None, **attrs: Any
) -> xr.Dataset:
    """A cube of flow states x (runs, steps + 1, c, h, w) at noise levels (steps + 1,), as a recorder would write it."""
    field, grid = torch.from_numpy(x), (x.shape[-2], x.shape[-1])
    energy = bank.energies(field).numpy()
    spectrum = radial_spectrum(field, BINS).sum(2).numpy()
    with np.errstate(divide="ignore"):
        log_snr = 2 * (np.log(1 - level) - np.log(level))
    described = {"model": "mini", "model_hash": "abc123", "family": "sd", "bank": json.dumps(bank.to_dict()),
                 "grid": json.dumps(grid), "scheduler": json.dumps(FLOW)}  # fmt: skip
    names = [f"prompt {i}" for i in range(len(x))] if prompts is None else list(prompts)
    return xr.Dataset(
        {
            "energy": ((*DIMS, "channel", "band"), _signals(energy)),
            "spectrum": ((*DIMS, "radius"), _signals(spectrum)),
            "status": ("run", np.ones(len(x), np.uint8)),
        },
        coords={"signal": ["latent", "x0"], "noise_level": ("step", level), "log_snr": ("step", log_snr),
                "timestep": ("step", 1000 * level), "radius": radii(BINS, *grid),
                "prompt": ("run", np.array(names, object))},
        attrs={**described, **attrs},
    )  # fmt: skip


def _signals(values: Array) -> NDArray[np.float32]:
    """The latent's values, and nothing of x0."""
    return np.stack([values, np.full_like(values, np.nan)], 2).astype(np.float32)
