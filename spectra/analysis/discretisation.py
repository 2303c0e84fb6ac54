"""What a perfect model would lose between few steps: the Gaussian oracle, fitted to a cube and run along its levels.

A sampler with finitely many steps ends with less energy than the data have, whatever the model: ten Euler steps lose a
quarter to a third of it.  For Gaussian data the loss has a closed form, mode by mode (`spectra.gaussian`), and so does
its inverse: the spectrum of the data whose samples, along these levels, have the spectrum that was recorded.  What an
adapter is said to lose has to be compared with this.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from spectra.analysis.kernels import Array, band_sums, data_power, final_power, on_modes, variance_preserving
from spectra.analysis.labels import bank_of, fields_of, grid_of, guided, prompts_of, select, summed
from spectra.analysis.statistics import cluster_means
from spectra.bands import FilterBank
from spectra.errors import UserError
from spectra.gaussian import Levels
from spectra.radial import radial_modes

if TYPE_CHECKING:
    import xarray as xr

# Schedulers whose step is `x' = A x + B x0 + C z` with the coefficients of `GaussianField.path`, and their eta.
LINEAR = {
    "FlowMatchEulerDiscreteScheduler": 0.0,
    "EulerDiscreteScheduler": 0.0,
    "DDIMScheduler": 0.0,
    "DDPMScheduler": 1.0,
    "EulerAncestralDiscreteScheduler": 1.0,
}
ASSUMED = (
    "Gaussian latents of mean zero, independent between modes, channels and frames, whose power depends on radial "
    "frequency only; a perfect denoiser of the conditional distribution; x0 not clipped"
)


def discretisation(cube: xr.Dataset) -> xr.Dataset:
    """Energy that samples of a perfect model keep at this cube's scheduler and steps, by band.

    Variables over `band`: `kept`, final energy over that of the data; `measured`, mean energy per run of the cube's
    finished samples; `data`, the energy of the data that would give it.  1 - kept is what the steps cost and no model
    can avoid.  The oracle is fitted to the finished samples: radial power per mode, inverted through the sampler.
    Where part of the energy is the same in every sample (a mean), less of it is lost than this says.

    It holds for one-step linear samplers: Euler of flow matching and of noise levels, DDIM without noise, DDPM and the
    ancestral Euler.  Raises UserError for others, and where the cube has no complete run.
    """
    import xarray as xr

    eta = _eta(cube)
    levels, V = _levels(cube), _final_power(cube)
    S = data_power(V, levels, eta)
    kept, measured = _kept(final_power(S, levels, eta), S, bank_of(cube), grid_of(cube)), _measured(cube)
    coords = {name: c for name, c in cube.coords.items() if c.dims == ("band",)}
    values = {"kept": kept, "measured": measured, "data": measured / kept}
    estimand = "final energy over the data's, for a perfect model of Gaussian data with this spectrum"
    steps = cube.sizes["step"] - 1
    assumed = f"{ASSUMED}; guidance, which these runs had, is left out" if guided(cube) else ASSUMED
    attrs = {"estimand": estimand, "assumed": assumed, "scheduler": _scheduler(cube)["class"], "steps": steps}
    return xr.Dataset({name: ("band", value) for name, value in values.items()}, coords, attrs)


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


def _levels(cube: xr.Dataset) -> Levels:
    """Signal and noise weights of the cube's states, scaled so that the first is unit noise."""
    a, b = (cube[name].values.astype(np.float64) for name in ("signal_level", "noise_level"))
    if not (np.isfinite(a) & np.isfinite(b)).all() or (np.hypot(a, b) == 0).any() or (b[:-1] <= 0).any():
        raise UserError("the noise levels of this cube do not fall from noise to data, so no sampler can be followed")
    return Levels(a, b) if b[0] <= 1 else variance_preserving(Levels(a, b))


def _eta(cube: xr.Dataset) -> float:
    """How much fresh noise the scheduler adds, in the sense of DDIM; UserError where the closed form does not hold."""
    config = _scheduler(cube)
    name = config["class"]
    why = _unlike(config, len(np.unique(cube.step.values)) < cube.sizes["step"])
    if why:
        raise UserError(
            f"what {name} loses between steps has no closed form here ({why}): "
            f"discretisation is known for {', '.join(sorted(LINEAR))}"
        )
    return LINEAR[name]


def _unlike(config: dict[str, Any], several_calls: bool) -> str:
    """Why a scheduler's step is not the linear one, or nothing."""
    if config["class"] not in LINEAR:
        return "its step is not the linear one of those below"
    if several_calls:
        return "it is called several times a step"
    if config.get("stochastic_sampling"):
        return "stochastic_sampling draws noise anew"
    if config["class"] == "DDPMScheduler" and not str(config.get("variance_type", "fixed_small")).startswith(
        "fixed_small"
    ):
        return f"variance_type {config['variance_type']} adds other noise than the posterior's"
    return ""


def _scheduler(cube: xr.Dataset) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(cube.attrs["scheduler"])
        return config | {"class": str(config["class"])}
    except (KeyError, TypeError, ValueError):
        raise UserError("this cube does not say which scheduler sampled it, so its steps cannot be followed") from None
