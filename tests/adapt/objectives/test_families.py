"""Every family's scheduler has an objective, and its levels are those that a probe of the same scheduler records."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from adapt.objectives import Objective, objective_of, tokens_of
from spectra import FilterBank, open_cube, record
from spectra.schedulers import SCHEDULERS
from spectra.signals import schedule_of
from tests.matrix.images import CASES
from tests.tiny import tiny_sd, tiny_sd3

BETAS: dict[str, Any] = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
FLOW: dict[str, Any] = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
FAMILIES: dict[str, Any] = {
    "SD 1.5": PNDMScheduler(skip_prk_steps=True, steps_offset=1, **BETAS),
    "SD 2 v": DDIMScheduler(prediction_type="v_prediction", steps_offset=1, **BETAS),
    "zero terminal SNR": DDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing", **BETAS
    ),
    "SDXL": EulerDiscreteScheduler(timestep_spacing="trailing", **BETAS),
    "PixArt": DPMSolverMultistepScheduler(timestep_spacing="trailing", **BETAS),
    "SVD": EulerDiscreteScheduler(
        prediction_type="v_prediction", timestep_type="continuous", use_karras_sigmas=True, sigma_min=0.002,
        sigma_max=700.0, interpolation_type="linear", timestep_spacing="leading", steps_offset=1, **BETAS,
    ),
    "SD 3": FlowMatchEulerDiscreteScheduler(shift=3.0),
    "FLUX": FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    "Lumina 2": FlowMatchEulerDiscreteScheduler(shift=6.0),
    "Qwen-Image": FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02
    ),
    "LTX": FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024, shift_terminal=0.1
    ),
    "Wan": UniPCMultistepScheduler(**FLOW),
    "Sana": DPMSolverMultistepScheduler(**FLOW),
}  # fmt: skip
WHOLE = {"SD 1.5", "SD 2 v", "zero terminal SNR", "SDXL", "PixArt", "Wan", "Sana"}
"""Families whose timesteps are whole numbers."""


def driven(name: str) -> tuple[Any, list[tuple[float, Any]]]:
    """The scheduler after `set_timesteps`, and (timestep, level) of its calls as spectra has them."""
    scheduler = copy.deepcopy(FAMILIES[name])
    dynamic = scheduler.config.get("use_dynamic_shifting")
    scheduler.set_timesteps(8, **({"mu": 0.6} if dynamic else {}))
    schedule = schedule_of(scheduler, ("latent", "x0"))
    return scheduler, [(float(t), schedule.at(t, i)) for i, t in enumerate(scheduler.timesteps)]


@pytest.mark.parametrize("name", list(FAMILIES))
def test_levels_are_those_of_spectra_at_the_same_timesteps(name: str) -> None:
    objective = objective_of(FAMILIES[name])
    _, calls = driven(name)
    timestep = torch.tensor([t for t, _ in calls])
    level = objective.noise_level(timestep.long() if name in WHOLE - {"Wan", "Sana"} else timestep)
    snr = [2 * math.log(at.signal / at.noise) if at.signal > 0 else -math.inf for _, at in calls]
    # Wan's and Sana's solvers round timesteps down, and keep the first level from being pure noise
    loose: dict[str, Any] = {"rtol": 0.05, "atol": 0.02} if name in ("Wan", "Sana") else {"rtol": 1e-4, "atol": 2e-4}
    kept = slice(1 if name in ("Wan", "Sana") else 0, None)
    np.testing.assert_allclose(objective.log_snr(level)[kept], snr[kept], **loose)
    noise = [at.noise for _, at in calls]
    np.testing.assert_allclose(objective.noise_weight(level)[kept], noise[kept], **(loose | {"atol": 2e-3}))


@pytest.mark.parametrize("name", list(FAMILIES))
def test_timestep_and_level_are_inverse_and_quantiles_run_from_clean_to_noise(name: str) -> None:
    objective = objective_of(FAMILIES[name])
    quantiles = (torch.arange(64) + 0.5) / 64
    timestep = objective.timestep(quantiles)
    level = objective.noise_level(timestep)
    assert (timestep.diff() > 0).all()
    assert (level.diff() > 0).all()
    assert timestep.dtype.is_floating_point != (name in WHOLE - {"Wan", "Sana"})
    torch.testing.assert_close(objective.timestep_of(level).float(), timestep.float(), rtol=1e-5, atol=1e-4)
    back = objective.quantile_of(objective.log_snr(level))
    torch.testing.assert_close(back.float(), quantiles, rtol=0, atol=2e-3)


def cleaned(scheduler: Any, objective: Objective, at: float, index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(x0, what the scheduler finds of it) for a perfect answer at one of its steps."""
    x0, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    timestep = torch.tensor([at])
    timestep = timestep if objective.kind == "flow_prediction" or at != int(at) else timestep.long()
    answer = objective.target(x0, noise, timestep)
    if float(scheduler.init_noise_sigma) > 1:  # the sampler's state keeps the signal as it is
        state = x0 + scheduler.sigmas[index] * noise
        given = scheduler.scale_model_input(state, scheduler.timesteps[index])
        torch.testing.assert_close(objective.add_noise(x0, noise, timestep), given, rtol=1e-3, atol=1e-4)
    else:
        state = objective.add_noise(x0, noise, timestep)
    if hasattr(scheduler, "convert_model_output"):
        scheduler._step_index = index
        return x0, scheduler.convert_model_output(answer, sample=state)
    return x0, scheduler.step(answer, scheduler.timesteps[index], state).pred_original_sample


@pytest.mark.parametrize("name", ["SD 2 v", "zero terminal SNR", "SDXL", "PixArt", "SVD"])
@pytest.mark.parametrize("index", [0, 4])
def test_the_familys_own_scheduler_recovers_the_picture_from_a_perfect_answer(name: str, index: int) -> None:
    scheduler, calls = driven(name)
    scheduler.register_to_config(clip_sample=False)
    x0, found = cleaned(scheduler, objective_of(FAMILIES[name]), calls[index][0], index)
    torch.testing.assert_close(found, x0, rtol=1e-2, atol=5e-3)


def test_samplers_whose_signal_stays_are_told_from_those_whose_variance_stays() -> None:
    """`noise_weight` follows the space in which spectra says that each scheduler moves."""
    seen = set()
    for name in SCHEDULERS:
        kind = getattr(diffusers, name, None)
        if kind is None or "torchsde" in getattr(kind, "_backends", ()):  # a stand-in that cannot be made
            continue
        scheduler = kind()
        if not hasattr(scheduler, "alphas_cumprod") or scheduler.config.get("prediction_type") != "epsilon":
            continue
        scheduler.set_timesteps(20)
        space = schedule_of(scheduler, ("latent",)).space
        weight = float(objective_of(scheduler).noise_weight(torch.tensor([10.0])))
        assert weight == pytest.approx({"ve": 10.0, "vp": 10 / math.sqrt(101)}[space]), name
        seen.add(space)
    assert seen == {"vp", "ve"}


def pipelines() -> dict[str, Any]:
    euler = tiny_sd()
    euler.scheduler = EulerDiscreteScheduler(
        timestep_spacing="trailing", prediction_type="v_prediction", beta_schedule="squaredcos_cap_v2"
    )
    return {"DDIM": tiny_sd(), "Euler": euler, "flow": tiny_sd3()}


@pytest.mark.parametrize("name", ["DDIM", "Euler", "flow"])
def test_levels_of_a_recorded_pipeline_are_those_of_its_objective(name: str, tmp_path: Path) -> None:
    pipe = pipelines()[name]
    bank = FilterBank.octaves(3, (16, 16))
    more = {"max_sequence_length": 1} if name == "flow" else {}
    with record(pipe, tmp_path / "cube.zarr", bank=bank):
        pipe("a circle", num_inference_steps=4, generator=torch.Generator().manual_seed(0), **more)
    steps = open_cube(tmp_path / "cube.zarr").isel(step=slice(0, 4))
    objective = objective_of(pipe.scheduler)
    timestep = torch.from_numpy(steps.timestep.values.copy())
    level = objective.noise_level(timestep if name == "flow" else timestep.long())
    np.testing.assert_allclose(objective.log_snr(level), steps.log_snr.values, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(objective.noise_weight(level), steps.noise_level.values, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["FluxPipeline", "QwenImagePipeline", "StableDiffusion3Pipeline"])
def test_the_shift_for_a_size_is_the_one_that_the_pipeline_samples_with(name: str) -> None:
    case = CASES[name]
    pipe = case.build()
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_image_seq_len=4, max_image_seq_len=64, max_shift=3.0
    )
    pipe(**case.call, **case.size(), **case.off, num_inference_steps=4, output_type="latent")
    tokens = tokens_of(pipe, (case.channels, *case.grid))
    assert tokens == case.grid[0] * case.grid[1] // 4
    objective = objective_of(pipe.scheduler, tokens=tokens)
    last = 1 / 1000 if name == "StableDiffusion3Pipeline" else 1 / 4  # SD 3 leaves the levels to the scheduler
    quantiles = torch.linspace(1, last, 4)
    torch.testing.assert_close(objective.timestep(quantiles), pipe.scheduler.timesteps, rtol=1e-4, atol=1e-2)
