"""Schedulers driven as pipelines drive them, and the settings under which each is driven."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import diffusers
import pytest
import torch

from spectra.signals import Level, Schedule, schedule_of

ALL = ("latent", "x0", "eps", "prediction")
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
FREE = {"clip_sample": False}
STEPS = 5


class Call(NamedTuple):
    level: Level
    x: torch.Tensor
    out: torch.Tensor
    result: tuple[torch.Tensor, ...]


def brownian(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two schedulers need torchsde for their noise; without it they are given white noise."""
    if "torchsde" in sys.modules:
        return

    class Interval:
        def __init__(self, size: tuple[int, ...], dtype: torch.dtype, **rest: Any) -> None:
            self.size, self.dtype = size, dtype

        def __call__(self, start: float, end: float) -> torch.Tensor:
            return torch.randn(self.size, dtype=self.dtype) * abs(float(end) - float(start)) ** 0.5

    module = ModuleType("torchsde")
    module.BrownianInterval = Interval  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchsde", module)


FILES = {"DPMSolverSDEScheduler": "dpmsolver_sde", "CosineDPMSolverMultistepScheduler": "cosine_dpmsolver_multistep"}


def make(name: str, **options: Any) -> Any:
    if name in FILES:
        return getattr(importlib.import_module(f"diffusers.schedulers.scheduling_{FILES[name]}"), name)(**options)
    return getattr(diffusers, name)(**options)


def timesteps(scheduler: Any, steps: int = STEPS) -> torch.Tensor:
    """Set the timesteps; the ones that pipelines loop over."""
    more: dict[str, Any] = {"SCMScheduler": {"intermediate_timesteps": None}, "RePaintScheduler": {"jump_n_sample": 1}}
    scheduler.set_timesteps(steps, **more.get(type(scheduler).__name__, {}))
    times: torch.Tensor = scheduler.timesteps
    return times[:-1] if type(scheduler).__name__ in ("SCMScheduler", "DDPMWuerstchenScheduler") else times


def drive(
    scheduler: Any, x: torch.Tensor, predict: Callable[[torch.Tensor, Level], torch.Tensor], steps: int = STEPS
) -> Iterator[Call]:
    """Step through all timesteps from `x`, arguments by name."""
    times = timesteps(scheduler, steps)
    schedule, accepts = schedule_of(scheduler, ALL), inspect.signature(scheduler.step).parameters
    clean = None
    for i, t in enumerate(times):
        following = times[i + 1] if i + 1 < len(times) else None
        extra = {"original_image": torch.zeros_like(x), "mask": torch.zeros_like(x), "prev_timestep": following}
        extra |= {"old_pred_original_sample": clean, "timestep_back": times[i - 1] if i else None}
        given = t.expand(len(x)) if type(scheduler).__name__ == "DDPMWuerstchenScheduler" else t
        index = (scheduler.step_index or 0) if hasattr(scheduler, "step_index") else None
        level = schedule.at(given, index)
        out = predict(x, level)
        extra = {name: value for name, value in extra.items() if name in accepts}
        result = scheduler.step(model_output=out, timestep=given, sample=x, return_dict=False, **extra)
        yield Call(level, x, out, result)
        x, clean = result[0], result[1] if len(result) > 1 else None


def schedule_of_set(scheduler: Any, signals: tuple[str, ...] = ALL) -> Schedule:
    timesteps(scheduler)
    return schedule_of(scheduler, signals)


def random_run(scheduler: Any, steps: int = STEPS, seed: int = 0) -> tuple[Schedule, list[Call]]:
    torch.manual_seed(seed)
    start = torch.randn(1, 2, 4, 4) * float(getattr(scheduler, "init_noise_sigma", 1))
    calls = list(drive(scheduler, start, lambda x, level: torch.randn_like(x), steps))
    return schedule_of(scheduler, ALL), calls


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * max(1.0, float(expected.abs().max())))


KINDS = ("epsilon", "v_prediction", "sample")
SIGMAS: tuple[dict[str, Any], ...] = tuple({f"use_{kind}_sigmas": True} for kind in ("karras", "exponential", "beta"))
ZERO = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
OWN: list[tuple[str, dict[str, Any]]] = [
    *((name, {"prediction_type": kind, **BETAS, **FREE}) for kind in KINDS
      for name in ("DDIMScheduler", "DDIMParallelScheduler", "DDPMScheduler", "DDPMParallelScheduler",
                   "CogVideoXDDIMScheduler", "CogVideoXDPMScheduler", "DDIMInverseScheduler")),
    *((name, {"prediction_type": kind, **BETAS, **ZERO, **FREE}) for kind in ("v_prediction", "sample")
      for name in ("DDIMScheduler", "DDPMScheduler", "CogVideoXDDIMScheduler", "CogVideoXDPMScheduler")),
    *(("DDIMInverseScheduler", {"set_alpha_to_one": False, "timestep_spacing": spacing, **FREE})
      for spacing in ("leading", "trailing")),
    *((name, {"prediction_type": kind, **BETAS}) for kind in KINDS[:2]
      for name in ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler",
                   "LMSDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler",
                   "DPMSolverSDEScheduler")),
    *((name, {"prediction_type": "sample", **BETAS})
      for name in ("EulerDiscreteScheduler", "HeunDiscreteScheduler", "LMSDiscreteScheduler")),
    *((name, {**BETAS, **sigmas}) for sigmas in SIGMAS
      for name in ("EulerDiscreteScheduler", "HeunDiscreteScheduler", "LMSDiscreteScheduler",
                   "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "DPMSolverSDEScheduler")),
    *((name, {"prediction_type": "v_prediction", **BETAS, **ZERO})
      for name in ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")),
    ("EulerDiscreteScheduler", {"prediction_type": "v_prediction", "timestep_type": "continuous", "sigma_min": 0.002,
                                "sigma_max": 700.0, "use_karras_sigmas": True, **BETAS}),
    ("EulerDiscreteScheduler", {"interpolation_type": "log_linear", "final_sigmas_type": "sigma_min", **BETAS}),
    *(("UnCLIPScheduler", {"prediction_type": kind, **FREE}) for kind in ("epsilon", "sample")),
    ("RePaintScheduler", {**BETAS, **FREE}),
    *(("EDMEulerScheduler", {"prediction_type": kind, "sigma_data": data, "sigma_schedule": schedule})
      for kind, data, schedule in [("epsilon", 1.0, "karras"), ("v_prediction", 0.5, "exponential")]),
    ("SCMScheduler", {"sigma_data": 0.5}),
]  # fmt: skip


FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
SOLVERS = ("DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler",
           "DEISMultistepScheduler", "SASolverScheduler", "DPMSolverMultistepInverseScheduler")  # fmt: skip
CONVERTED: list[tuple[str, dict[str, Any]]] = [
    *((name, {"prediction_type": kind, **BETAS}) for kind in KINDS for name in SOLVERS),
    *((name, {**FLOW, **BETAS}) for name in SOLVERS),
    *((name, {**BETAS, **sigmas}) for sigmas in SIGMAS for name in SOLVERS),
    *((name, {"prediction_type": "v_prediction", **BETAS, **ZERO})
      for name in ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler")),
    ("DPMSolverMultistepScheduler", {"use_lu_lambdas": True, "final_sigmas_type": "sigma_min", **BETAS}),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", **BETAS}),
    ("UniPCMultistepScheduler", {**FLOW, **BETAS, "use_karras_sigmas": True}),
    ("EDMDPMSolverMultistepScheduler", {"sigma_data": 1.0}),
    ("EDMDPMSolverMultistepScheduler", {"prediction_type": "v_prediction", "final_sigmas_type": "sigma_min"}),
    ("CosineDPMSolverMultistepScheduler", {}),
]  # fmt: skip


EVERY: list[tuple[str, dict[str, Any]]] = [
    # Without noise at its start, the inverse cannot tell noise from a clean sample that it is given.
    *((name, options) for name, options in (*OWN, *CONVERTED)
      if name != "DDIMInverseScheduler" or options.get("prediction_type") != "sample"),
    *((name, {"prediction_type": "epsilon", **BETAS, **FREE}) for name in ("LCMScheduler", "TCDScheduler")),
    *(("PNDMScheduler", {"skip_prk_steps": skip, "set_alpha_to_one": skip, **BETAS}) for skip in (False, True)),
    *((name, {"set_alpha_to_one": False, "timestep_spacing": "trailing", **BETAS, **FREE})
      for name in ("DDIMScheduler", "CogVideoXDDIMScheduler")),
    ("DDPMWuerstchenScheduler", {}),
    ("DDPMWuerstchenScheduler", {"scaler": 2.0}),
    ("CMStochasticIterativeScheduler", {"clip_denoised": False}),
    *(("FlowMatchEulerDiscreteScheduler", options)
      for options in ({"shift": 3.0}, {"invert_sigmas": True}, {"stochastic_sampling": True}, *SIGMAS,
                      {"shift_terminal": 0.1})),
    *((name, {"shift": 3.0}) for name in ("FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler")),
    ("LTXEulerAncestralRFScheduler", {}),
    ("MiniMaxH3Scheduler", {}),
]  # fmt: skip
