"""Record the Gaussian model, and hold what was recorded against its closed form."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import diffusers
import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

import spectra
from spectra.gaussian import GaussianField, Levels, flow_levels, vp_levels
from spectra.gaussian import Path as States
from spectra.record import Recorder, record
from spectra.schema import Header, Runs, fixed_values, rows, variables
from spectra.solvers import sampler_path
from spectra.zoo.gaussian import GaussianPipeline, gaussian_pipeline
from tests.spectra.witness import ALL, BANK, energies, seeded

Array = NDArray[np.float64]
PROMPT = "a red circle"
SPEC = "gaussian:2x12x16:2.0:0.7"
SEEDS = (3, 11, 12)
STEPS = 8
PREDICTED = {"epsilon": "eps", "sample": "x0", "v_prediction": "v", "flow_prediction": "flow"}
SOLVERS = {
    "FlowMatchEulerDiscreteScheduler": "euler", "DDIMScheduler": "euler", "EulerDiscreteScheduler": "euler",
    "HeunDiscreteScheduler": "heun", "FlowMatchHeunDiscreteScheduler": "heun",
    "DPMSolverMultistepScheduler": "dpm-solver-2m", "UniPCMultistepScheduler": "unipc",
}  # fmt: skip


def pipeline(scheduler: str = "FlowMatchEulerDiscreteScheduler", spec: str = SPEC, **options: Any) -> GaussianPipeline:
    """The Gaussian model under a scheduler; denoising ones have the noise schedule of Stable Diffusion."""
    pipe = gaussian_pipeline(spec)
    usual = {} if scheduler.startswith("FlowMatch") else {"beta_schedule": "scaled_linear"}
    usual |= {"clip_sample": False} if scheduler.startswith("DD") else {}
    pipe.scheduler = getattr(diffusers, scheduler)(**usual | options)
    return pipe


def noise(seeds: tuple[int, ...], shape: tuple[int, ...]) -> Array:
    """The unit noise that these seeds start from."""
    drawn: Array = torch.cat([torch.randn(1, *shape, generator=one) for one in seeded(*seeds)]).double().numpy()
    return drawn


def recording(
    pipe: GaussianPipeline,
    seeds: tuple[int, ...] = SEEDS,
    steps: int = STEPS,
    signals: tuple[str, ...] = ALL,
    stored: bool = False,
    **call: Any,
) -> xr.Dataset:
    """The cube of one call with one prompt for all seeds: from the disk or, faster, as it would be written there."""
    arguments = {"prompt": [PROMPT] * len(seeds), "num_inference_steps": steps, "generator": seeded(*seeds)} | call
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        store, write = Path(folder) / "c.zarr", None
        if not stored:
            write = stack.enter_context(mock.patch.object(Recorder, "write"))
        with record(pipe, store, bank=BANK, signals=signals):
            pipe(**arguments)
        return labelled(*write.call_args.args) if write else spectra.open_cube(store).load()


def labelled(header: Header, runs: Runs) -> xr.Dataset:
    """What the recorder means to write, with its labels."""
    fixed, growing = fixed_values(header), set(rows(header.parts))
    known = {one.name: one for one in variables(header.parts)}
    cube = xr.Dataset({name: (known[name].dimensions(header.parts), getattr(runs, name)) for name in growing})
    coordinates = {name: (known[name].dims, np.asarray(values)) for name, values in fixed.items() if name in known}
    return cube.assign_coords(coordinates).assign_attrs(header.facts)


def levels_by_hand(scheduler: Any) -> Levels:
    """(a, b) of the states of a scheduler whose timesteps are set, read off its tables by the rules of the papers."""
    name = type(scheduler).__name__
    if name in ("DDIMScheduler", "DDPMScheduler"):
        return vp_levels([*scheduler.alphas_cumprod[scheduler.timesteps].tolist(), 1.0])
    s = scheduler.sigmas.double().numpy()
    if name.startswith("FlowMatch") or getattr(scheduler.config, "use_flow_sigmas", False):
        return flow_levels(s)
    if name in ("EulerDiscreteScheduler", "HeunDiscreteScheduler"):
        return Levels(np.ones_like(s), s)
    return Levels(1 / np.hypot(1, s), s / np.hypot(1, s))


def states_by_hand(pipe: GaussianPipeline, field: GaussianField) -> tuple[Levels, States]:
    """Levels and states of the run that the pipeline has just made."""
    levels = levels_by_hand(pipe.scheduler)
    start = float(getattr(pipe.scheduler, "init_noise_sigma", 1.0))
    return levels, sampler_path(field, levels, SOLVERS[type(pipe.scheduler).__name__], start)


def misfit(cube: xr.Dataset, pipe: GaussianPipeline, signal: str, guidance_scale: float = 1.0) -> float:
    """How far the amplitudes of a signal's bands are off, at worst, run by run.

    In units of the amplitude, to which a tenth of the state's own is added: x0 and eps are small differences of state
    and prediction at either end, and float32 cannot do better than the rounding of what they are made from. Where that
    difference is divided by a level, so is the rounding.
    """
    field = pipe.guided(PROMPT, guidance_scale)
    levels, states = states_by_hand(pipe, field)
    kind = getattr(pipe.scheduler.config, "prediction_type", "flow_prediction")
    start = noise(tuple(cube.seed.values.tolist()), field.mean.shape)
    name = PREDICTED[kind] if signal in ("prediction", "cond", "uncond") else signal
    speaker = {"cond": pipe.field(PROMPT), "uncond": pipe.field("")}.get(signal, field)
    levels_of_signal = normalised(levels) if name == "v" else levels
    scaled = states if name != "v" else _rescaled(states, levels)
    exact = np.sqrt(speaker.energies(BANK, levels_of_signal, start, name, scaled).swapaxes(0, 1))
    state = np.sqrt(field.energies(BANK, levels, start, "latent", states).swapaxes(0, 1))
    found = np.sqrt(energies(cube, signal))
    assert found.shape == exact.shape, f"{found.shape} recorded, {exact.shape} expected"
    if signal != "latent":
        assert np.isnan(found[:, -1]).all()
        found, exact, state = found[:, :-1], exact[:, :-1], state[:, :-1]
    divisor = {("epsilon", "x0"): levels.a, ("sample", "eps"): levels.b}.get((kind, signal), np.ones_like(levels.a))
    rounding = state / 10 / divisor[: state.shape[1], None, None]
    return float((abs(found - exact) / (exact + rounding)).max())


def normalised(levels: Levels) -> Levels:
    """The level at which a denoiser sees a state: v is only defined where a^2 + b^2 = 1."""
    size = np.hypot(*levels)
    return Levels(levels.a / size, levels.b / size)


def _rescaled(states: States, levels: Levels) -> States:
    size = np.hypot(*levels)[:, None, None, None]
    return States(states.mean / size, states.gain / size, states.variance)
