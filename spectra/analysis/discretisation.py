"""What a perfect model would lose between few steps: the Gaussian oracle, fitted to a cube and run along its levels.

A sampler with finitely many steps ends with another energy than the data have, whatever the model: ten Euler steps lose
a quarter to a third of it, and Heun's method may add some.  For Gaussian data this has a closed form, mode by mode
(`spectra.solvers`), whose inverse is the spectrum of the data whose samples, along these levels, have the spectrum that
was recorded.  What an adapter is said to lose has to be compared with this.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from spectra.analysis.kernels import (
    Array,
    Sampler,
    ancestral_path,
    band_sums,
    data_power,
    exploding,
    final_power,
    on_modes,
)
from spectra.analysis.labels import (
    band_coordinates,
    bank_of,
    fields_of,
    grid_of,
    guided,
    prompts_of,
    select,
    settings_of,
    summed,
)
from spectra.analysis.statistics import cluster_means
from spectra.bands import FilterBank
from spectra.errors import UserError
from spectra.gaussian import Levels
from spectra.radial import radial_modes
from spectra.solvers import NEEDED, sampler_path, solver_of

if TYPE_CHECKING:
    import xarray as xr

ANCESTRAL = ("DDPMScheduler", "EulerAncestralDiscreteScheduler")
ASSUMED = (
    "Gaussian latents of mean zero, independent between modes, channels and frames, whose power depends on radial "
    "frequency only; a perfect denoiser of the conditional distribution; x0 not clipped"
)


def discretisation(cube: xr.Dataset) -> xr.Dataset:
    """Energy that samples of a perfect model keep at this cube's scheduler and steps, by band.

    Variables over `band`: `kept`, final energy over that of the data; `measured`, mean energy per run of the cube's
    finished samples; `data`, the energy of the data that would give it.  1 - kept is what the steps cost and no model
    can avoid; solvers of second order may add energy instead.  The oracle is fitted to the finished samples: radial
    power per mode, inverted through the sampler.  Where part of the energy is the same in every sample (a mean), less
    of it is lost than this says.

    Runs of several settings (adapter, guidance) are pooled; the attribute `settings` counts them, and `select_runs` of
    `spectra.analysis.labels` takes those of one.

    It holds for the samplers of `spectra.solvers` (Euler, DDIM, Heun, DPM-Solver++ 2M, UniPC) from pure noise and
    without noise added on the way, and for DDPM and the ancestral Euler.  Raises UserError for others, and where the
    cube has no complete run.
    """
    import xarray as xr

    sampler, V = _sampler(cube), _final_power(cube)
    S = data_power(V, sampler)
    kept, measured = _kept(final_power(S, sampler), S, bank_of(cube), grid_of(cube)), _measured(cube)
    values = {"kept": kept, "measured": measured, "data": measured / kept}
    estimand = "final energy over the data's, for a perfect model of Gaussian data with this spectrum"
    assumed = f"{ASSUMED}; guidance, which these runs had, is left out" if guided(cube) else ASSUMED
    steps = len(np.unique(cube.step.values[:-1]))
    facts = {"scheduler": _scheduler(cube)["class"], "steps": steps, "settings": len(settings_of(cube))}
    attrs = {"estimand": estimand, "assumed": assumed, **facts}
    return xr.Dataset({name: ("band", value) for name, value in values.items()}, band_coordinates(cube), attrs)


def _kept(final: Array, data: Array, bank: FilterBank, grid: tuple[int, int]) -> Array:
    """What is kept of the energy of each band, from powers per radial bin; NaN where there is none."""
    after, before = (band_sums(on_modes(power, grid), bank) for power in (final, data))
    return np.asarray(np.divide(after, before, out=np.full_like(after, np.nan), where=before > 0))


def _final_power(cube: xr.Dataset) -> Array:
    """Mean power per mode of the finished samples, (radius,); bins without modes are 0."""
    spectrum = select(cube, "latent").spectrum.isel(step=-1).transpose("run", "radius").values.astype(np.float64)
    if len(spectrum) == 0:
        raise UserError("this cube has no complete run whose samples the oracle could be fitted to")
    modes = radial_modes(cube.sizes["radius"], *grid_of(cube))
    mean = cluster_means(spectrum, prompts_of(cube)).mean(0) / fields_of(cube)
    return np.asarray(np.divide(mean, modes, out=np.zeros_like(mean), where=modes > 0))


def _measured(cube: xr.Dataset) -> Array:
    final = summed(select(cube, "latent").energy.isel(step=-1)).transpose("run", "band").values
    return np.asarray(cluster_means(final.astype(np.float64), prompts_of(cube)).mean(0))


def _sampler(cube: xr.Dataset) -> Sampler:
    """The recursion of the cube's scheduler, call by call; UserError where none is known."""
    config, levels = _scheduler(cube), _levels(cube)
    solver = _solver(config, len(np.unique(cube.step.values)) < cube.sizes["step"])
    start = _start(levels, config)
    if solver == "ancestral":
        return partial(ancestral_path, levels=levels, start=start)
    return partial(sampler_path, levels=levels, solver=solver, start=start)


def _levels(cube: xr.Dataset) -> Levels:
    """Signal and noise weights of the states at each call, and of the finished samples."""
    a, b = (cube[name].values.astype(np.float64) for name in ("signal_level", "noise_level"))
    falling = (b[:-1] > 0).all() and b[0] > b[-1]
    if not (np.isfinite(a) & np.isfinite(b)).all() or (np.hypot(a, b) == 0).any() or not falling:
        raise UserError("the noise levels of this cube do not fall from noise to data, so no sampler can be followed")
    return Levels(a, b)


def _start(levels: Levels, config: dict[str, Any]) -> float:
    """Size of the first noise: 1, but where the variance explodes that of the level, or of the state with its signal.

    It is `init_noise_sigma` of diffusers' schedulers, which a cube does not hold.
    """
    if not exploding(levels):
        return 1.0
    return float(np.hypot(levels.b[0], config.get("timestep_spacing") == "leading"))


def _solver(config: dict[str, Any], several_calls: bool) -> str:
    """The name of the scheduler's recursion; UserError with the reason where its steps are others."""
    solver = "ancestral" if config["class"] in ANCESTRAL else solver_of(config)
    why = _unlike(config, solver, several_calls)
    if solver is None or why:
        raise UserError(
            f"what {config['class']} loses between steps has no closed form here ({why}): "
            f"discretisation is known for {', '.join(sorted((*NEEDED, *ANCESTRAL)))}"
        )
    return solver


def _unlike(config: dict[str, Any], solver: str | None, several_calls: bool) -> str:
    """Why a scheduler's step is none of the known ones, or nothing."""
    name = config["class"]
    if solver is None and name in NEEDED:
        return f"its options are not the usual ones: {_unusual(config)}"
    if solver is None:
        return "its step is not one of those below"
    if several_calls and solver != "heun":
        return "it is called several times a step"
    if solver == "ancestral" and (config.get("clip_sample") or config.get("thresholding")):
        return "it clips x0"
    if name == "DDPMScheduler" and not str(config.get("variance_type", "fixed_small")).startswith("fixed_small"):
        return f"variance_type {config['variance_type']} adds other noise than the posterior's"
    return ""


def _unusual(config: dict[str, Any]) -> str:
    """The options of a scheduler in which it differs from its solver."""
    needed = NEEDED[config["class"]][1]
    return ", ".join(f"{key} is {config[key]}" for key, value in needed.items() if config.get(key, value) != value)


def _scheduler(cube: xr.Dataset) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(cube.attrs["scheduler"])
        return config | {"class": str(config["class"])}
    except (KeyError, TypeError, ValueError):
        raise UserError("this cube does not say which scheduler sampled it, so its steps cannot be followed") from None
