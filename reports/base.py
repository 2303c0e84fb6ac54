"""What the base model does while it generates, read from a cube: which bands are decided when."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from reports.statistics import Array
from spectra.analysis import (
    cluster_means,
    discretisation,
    emergence,
    interval,
    prompts_of,
    select_runs,
    settings_in_words,
    settings_of,
    shares,
)
from spectra.cube import open_cube
from spectra.errors import UserError
from spectra.plots import energy_per_mode

BELIEVABLE = 0.1
"""Part of the energy below which the oracle was fitted to energy that its samples cannot have."""


@dataclass(frozen=True)
class Decided:
    """When one band is decided: the step from which on its mean coherence stays at `DECIDED` or above; inf if never."""

    band: int
    step: float
    low: float
    high: float
    noise_level: float
    share: float
    frequency: float


@dataclass(frozen=True)
class Base:
    """The base model's runs in a cube, reduced to what the report shows."""

    path: Path
    cube: xr.Dataset
    coherence: Array
    coherence_low: Array
    coherence_high: Array
    shares: dict[str, Array]
    spectrum: tuple[Array, Array] | None
    """Radial frequencies (radius,) and the latent's energy per mode (step, radius)."""
    decided: tuple[Decided, ...]
    estimand: str
    left_out: tuple[str, ...] = ()
    """Settings of the base model's other runs in this cube, in words: a mean over settings answers no question."""
    setting: str = ""
    kept: Array | None = None
    """Energy per band that samples of a perfect model would keep at this scheduler and steps; None if not known."""
    kept_why: str = ""
    """Why `kept` is not known, or what it assumes."""

    @property
    def runs(self) -> int:
        """Generated samples."""
        return int(self.cube.sizes["run"])

    @property
    def prompts(self) -> int:
        """Different prompts among them."""
        return len(set(self.cube.prompt.values.tolist()))

    @property
    def steps(self) -> int:
        """Scheduler steps per sample."""
        return int(self.cube.sizes["step"]) - 1

    @property
    def guidance(self) -> tuple[float, ...]:
        """The guidance scales that occur."""
        return tuple(sorted({float(g) for g in self.cube.guidance_scale.values if np.isfinite(g)}))

    @property
    def low_to_high(self) -> bool:
        """True when every band is decided after all lower ones; bands of one step have no order."""
        steps = [band.step for band in self.decided]
        return bool(np.isfinite(steps).all() and (np.diff(steps) > 0).all())

    @property
    def tied(self) -> tuple[tuple[int, ...], ...]:
        """Bands that are decided at the same step, of each such step."""
        steps = dict.fromkeys(band.step for band in self.decided if np.isfinite(band.step))
        together = (tuple(band.band for band in self.decided if band.step == step) for step in steps)
        return tuple(bands for bands in together if len(bands) > 1)


def base_runs(cube: xr.Dataset, path: Path) -> xr.Dataset:
    """The runs of a cube that were generated without an adapter."""
    if "adapter" in cube.coords:
        plain = [str(name) in ("", "none", "None", "base", "nan") for name in cube.adapter.values]
        cube = cube.isel(run=np.flatnonzero(plain))
    if not cube.sizes.get("run"):
        raise UserError(f"{path} holds no finished run of the base model; probe the model without an adapter.")
    return cube


def one_setting(cube: xr.Dataset) -> tuple[xr.Dataset, str, tuple[str, ...]]:
    """The runs of the setting (guidance) that most runs have, in words too, and the words of the settings left out."""
    settings = settings_of(cube)
    words = settings_in_words(settings)
    parts = [select_runs(cube, **{k: v for k, v in one.items() if k != "adapter"}) for one in settings]
    best = int(np.argmax([part.sizes["run"] for part in parts]))
    return parts[best], words[best], tuple(word for i, word in enumerate(words) if i != best)


def lossless(cube: xr.Dataset) -> tuple[Array | None, str]:
    """What a perfect model would keep of each band's energy at these steps, and what that assumes or why not known.

    nan in bands that have more energy than these steps can give Gaussian data of mean zero, such as a lowest band full
    of what all pictures have in common: what little of it seems to be kept says nothing of the sampler.
    """
    try:
        found = discretisation(cube)
    except UserError as error:
        return None, str(error)
    kept = np.asarray(found.kept.values, np.float64)
    return np.where(kept < BELIEVABLE, np.nan, kept), str(found.attrs["assumed"])


def mean_shares(cube: xr.Dataset, signal: str) -> Array:
    """Shares (step, band) of the energy of a signal, averaged over runs."""
    return np.asarray(shares(cube, signal).mean("run", skipna=False).transpose("step", "band").values, np.float64)


def when_decided(found: xr.Dataset, cube: xr.Dataset, share: Array) -> tuple[Decided, ...]:
    """The bands of `spectra.analysis.emergence` one by one."""
    step, low, high, level = (found[name].values.astype(float) for name in ("step", "low", "high", "noise_level"))
    frequency = cube.frequency.values.astype(float)
    return tuple(
        Decided(band, step[band], low[band], high[band], level[band], share[-1, band], frequency[band])
        for band in range(found.sizes["band"])
    )


def check_model(cube: xr.Dataset, path: Path, model_hash: str) -> None:
    """UserError when a cube is of another model than `model_hash` (any, where that is empty)."""
    if model_hash and str(cube.attrs.get("model_hash")) != model_hash:
        raise UserError(
            f"{path} is a cube of another model ({cube.attrs.get('model')}, {cube.attrs.get('model_hash')}) "
            f"than the runs ({model_hash}); probe the model that was trained on."
        )


def read_base(path: Path, model_hash: str = "") -> Base:
    """Read the base model's part of a cube; UserError when the cube is of another model than `model_hash`."""
    cube = open_cube(path)
    check_model(cube, path, model_hash)
    chosen, setting, left_out = one_setting(base_runs(cube, path))
    return reduced(path, chosen.load(), setting, left_out)


def reduced(path: Path, cube: xr.Dataset, setting: str, left_out: tuple[str, ...]) -> Base:
    """What the report shows of the base model's runs of one setting."""
    present = [str(s) for s in cube.signal.values if str(s) in ("latent", "x0")]
    share = {signal: mean_shares(cube, signal) for signal in present}
    found = emergence(cube)
    values = cube.coherence.transpose("run", "step", "band").values.astype(np.float64)
    coherence = interval(cluster_means(values, prompts_of(cube)), 0.95, "t", 0, 0)
    said = f"{found.attrs['estimand']}; {found.attrs['method']}"
    decided = when_decided(found, cube, share["latent"])
    parts = path, cube, *coherence, share, energy_per_mode(cube), decided, said
    return Base(*parts, left_out, setting, *lossless(cube))
