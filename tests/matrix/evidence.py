"""What a call of a pipeline did, seen beside the recorder, and laid out with nothing but the pipeline's own code."""

from __future__ import annotations

import copy
import functools
import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from torch import Tensor

import spectra
from spectra import FilterBank
from tests.matrix.images import Case

BANK = FilterBank((0.8, 1.7))
SIGNALS = ("latent", "x0", "eps", "prediction")
STEPS = 3


@dataclass(frozen=True)
class State:
    """One call of `scheduler.step`, before any layout: what went in, what came out, and x0 by the scheduler itself."""

    x: Tensor
    output: Tensor
    after: Tensor
    clean: Tensor
    signal: float
    noise: float


@dataclass
class Heard:
    """What the parts of a pipeline were given and gave during one call."""

    states: list[State] = field(default_factory=list)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    decoded: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class Evidence:
    """A recorded call beside what was heard of it."""

    case: Case
    pipe: Any
    cube: xr.Dataset
    heard: Heard
    result: Any

    def plain(self, latents: Tensor) -> Tensor:
        """Laid out by the pipeline's own code; of noise and variance, the noise."""
        if latents.ndim == 4 and latents.shape[1] == 2 * self.case.channels:
            latents = latents[:, : self.case.channels]
        return self.case.unpack(self.pipe, latents, self.case.grid)

    def finished(self) -> Tensor:
        """What the pipeline returned, laid out."""
        return self.plain(self.case.returned(self.pipe, self.result))

    def energies(self, signal: str) -> Tensor:
        """As recorded: (batch, step, channel, band)."""
        recorded = self.cube.energy.sel(signal=signal).transpose("run", "step", "channel", "band")
        return torch.from_numpy(recorded.values)

    def expected(self, signal: str) -> Tensor:
        """Of the states that were heard, the same."""
        return torch.stack([BANK.energies(self.field(state, signal)) for state in self.heard.states], 1)

    def field(self, state: State, signal: str) -> Tensor:
        x, clean = self.plain(state.x).double(), self.plain(state.clean).double()
        eps = (x - state.signal * clean) / state.noise
        return {"latent": x, "x0": clean, "eps": eps, "prediction": self.plain(state.output).double()}[signal]


def observe(case: Case, folder: Path, layout: str | None = None, **call: Any) -> Evidence:
    """Build the case's pipeline and call it once under `spectra.record`."""
    pipe, heard = case.build(), Heard()
    arguments = {"num_inference_steps": STEPS, "generator": torch.Generator().manual_seed(3), **case.call, **call}
    store = folder / "c.zarr"
    with _listening(pipe, heard), spectra.record(pipe, store, bank=BANK, signals=SIGNALS, layout=layout):
        result = pipe(**arguments)
    return Evidence(case, pipe, spectra.open_cube(store), heard, result)


@contextmanager
def _listening(pipe: Any, heard: Heard) -> Iterator[None]:
    _listen_to_steps(pipe.scheduler, heard)
    for name in ("vae", "movq", "vqgan"):
        _listen_to_decoder(getattr(pipe, name, None), heard)
    denoiser = next(getattr(pipe, name) for name in ("transformer", "unet", "prior", "decoder") if hasattr(pipe, name))
    signature = inspect.signature(type(denoiser).forward)

    def listen(module: Any, args: Any, kwargs: Any, output: Any) -> None:
        heard.inputs.append(dict(signature.bind(module, *args, **kwargs).arguments))
        heard.outputs.append(output[0])

    handle = denoiser.register_forward_hook(listen, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _listen_to_decoder(model: Any, heard: Heard) -> None:
    if model is not None:
        decode = model.decode
        model.decode = lambda z, *args, **kwargs: (heard.decoded.append(z), decode(z, *args, **kwargs))[1]


def _listen_to_steps(scheduler: Any, heard: Heard) -> None:
    """Shadow `step` on the instance; the class's own, which the recorder taps, is looked up at each call."""
    original = scheduler.step

    @functools.wraps(original)
    def step(*args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(original).bind(*args, **kwargs).arguments
        before = copy.deepcopy(scheduler)
        x, output = given["sample"].clone(), given["model_output"].clone()
        result = type(scheduler).step(scheduler, *args, **kwargs)
        after = result[0] if isinstance(result, tuple) else result.prev_sample
        clean, signal, noise = _clean(before, scheduler, x, output, after, given["timestep"])
        heard.states.append(State(x, output, after.clone(), clean, signal, noise))
        return result

    scheduler.step = step


def _clean(before: Any, now: Any, x: Tensor, output: Tensor, after: Tensor, t: Any) -> tuple[Tensor, float, float]:
    """(x0, signal, noise) of a step without any formula for what the network predicts.

    Flow matching by Euler goes straight towards x0, so two states tell where that is; solvers keep the x0 that
    they found, and the others return it.
    """
    kind = type(now).__name__
    if kind == "FlowMatchEulerDiscreteScheduler":
        here, there = (float(sigma) for sigma in now.sigmas[now.step_index - 1 : now.step_index + 1])
        return x + (after - x) * here / (here - there), 1 - here, here
    if kind == "DPMSolverMultistepScheduler":
        alpha, sigma = now._sigma_to_alpha_sigma_t(now.sigmas[now.step_index - 1])
        return now.model_outputs[-1], float(alpha), float(sigma)
    if kind == "DDPMWuerstchenScheduler":
        square = float(now._alpha_cumprod(t[:1], x.device))
        return (x - (1 - square) ** 0.5 * output) / square**0.5, square**0.5, (1 - square) ** 0.5
    if kind == "SCMScheduler":
        angle, unit = float(now.timesteps[now.step_index - 1]), now.config.sigma_data
        clean = type(now).step(before, output, t, x, return_dict=True).pred_original_sample
        return clean, math.cos(angle), math.sin(angle) * unit
    before.alphas_cumprod = before.alphas_cumprod.double()
    again = type(now).step(before, output.double(), t, x.double(), return_dict=True).pred_original_sample
    if kind == "EulerDiscreteScheduler":
        return again, 1.0, float(now.sigmas[now.step_index - 1])
    square = float(now.alphas_cumprod[int(t)])
    return again, square**0.5, (1 - square) ** 0.5
