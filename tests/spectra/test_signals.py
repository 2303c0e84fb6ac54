from __future__ import annotations

import math

import diffusers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spectra.errors import UserError
from spectra.signals import Level, Schedule, clean_and_noise, output_for, schedule_of

NOISE_KINDS = ("epsilon", "v_prediction")
ALL = ("latent", "x0", "eps", "prediction")


def prediction(kind: str, x0: torch.Tensor, eps: torch.Tensor, a: float, b: float) -> torch.Tensor:
    """What a network of this kind says if it knows x0 and eps, by the definitions."""
    n = math.hypot(a, b)
    return {"epsilon": eps, "v_prediction": (a * eps - b * x0) / n, "sample": x0, "flow_prediction": eps - x0}[kind]


FORWARD = (
    "DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "LCMScheduler", "TCDScheduler", "UnCLIPScheduler",
    "CogVideoXDDIMScheduler", "CogVideoXDPMScheduler", "DDPMWuerstchenScheduler", "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "LMSDiscreteScheduler", "KDPM2DiscreteScheduler",
    "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler",
    "SASolverScheduler", "EDMEulerScheduler", "EDMDPMSolverMultistepScheduler", "CMStochasticIterativeScheduler",
    "FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler",
)  # fmt: skip


@pytest.mark.parametrize("name", FORWARD)
def test_levels_are_those_of_the_schedulers_own_forward_process(name: str) -> None:
    scheduler = getattr(diffusers, name)()
    scheduler.set_timesteps(5)
    schedule = schedule_of(scheduler, ("latent",))
    x0, eps = torch.randn(1, 2, 4, 4), torch.randn(1, 2, 4, 4)
    mix = scheduler.scale_noise if hasattr(scheduler, "scale_noise") else scheduler.add_noise
    for i, t in enumerate(scheduler.timesteps):
        arguments = (x0, t[None], eps) if hasattr(scheduler, "scale_noise") else (x0, eps, t[None])
        if ("Heun" in name and i % 2 == 0 and i) or ("KDPM2" in name and i % 2):
            continue  # the forward process cannot tell repeated timesteps apart, nor does it know those between
        scheduler._step_index = None  # some remember the first level that they were asked for
        level = schedule.at(t, i)
        torch.testing.assert_close(mix(*arguments), level.signal * x0 + level.noise * eps, rtol=1e-4, atol=1e-4)
        assert level.timestep == pytest.approx(float(t))


@pytest.mark.parametrize("inverted", [False, True])
def test_flow_matching_moves_along_the_straight_line(inverted: bool) -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, invert_sigmas=inverted)
    scheduler.set_timesteps(7)
    schedule = schedule_of(scheduler, ALL)
    x0, eps = torch.randn(1, 2, 4, 4), torch.randn(1, 2, 4, 4)
    x = eps.clone()
    for i, t in enumerate(scheduler.timesteps):
        velocity = (x0 - eps) if inverted else (eps - x0)
        level = schedule.at(t, i)
        found = clean_and_noise(x, velocity, level, schedule)
        torch.testing.assert_close(found[0], x0, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found[1], eps, rtol=1e-4, atol=1e-4)
        x = scheduler.step(velocity, t, x, return_dict=False)[0]
    assert schedule.final.noise == 0
    torch.testing.assert_close(x, x0, rtol=1e-4, atol=1e-4)


def level_of(space: str, u: float) -> Level:
    a, b = {"vp": (math.cos(u), math.sin(u)), "ve": (1.0, 15 * u), "flow": (1 - u / 1.6, u / 1.6)}[space]
    return Level(0.0, a, b)


@given(
    pair=st.sampled_from(
        [(s, k) for s in ("vp", "ve") for k in (*NOISE_KINDS, "sample")] + [("flow", "flow_prediction")]
    ),
    u=st.floats(0.05, 1.5),
    seed=st.integers(0, 99),
)
def test_a_perfect_prediction_gives_back_the_sample_and_the_noise(pair: tuple[str, str], u: float, seed: int) -> None:
    space, kind = pair
    level = level_of(space, u)
    x0, eps = torch.randn(2, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    x = level.signal * x0 + level.noise * eps
    out = prediction(kind, x0, eps, level.signal, level.noise)
    schedule = Schedule(space, lambda t, i: level, level, kind)
    found = clean_and_noise(x, out, level, schedule)
    torch.testing.assert_close(found[0], x0)
    torch.testing.assert_close(found[1], eps)
    torch.testing.assert_close(output_for(x, x0, level, schedule), out)


def test_velocity_has_a_clean_sample_without_any_signal_and_noise_prediction_has_none() -> None:
    scheduler = diffusers.DDIMScheduler(
        rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction"
    )
    scheduler.set_timesteps(5)
    schedule = schedule_of(scheduler, ALL)
    level = schedule.at(scheduler.timesteps[0], None)
    x, out = torch.randn(2, 1, 1, 4, 4)
    assert (level.signal, level.noise) == (0, 1)
    torch.testing.assert_close(clean_and_noise(x, out, level, schedule)[0], -out)
    torch.testing.assert_close(clean_and_noise(x, out, level, schedule)[1], x)
    blind = Schedule("vp", schedule.at, schedule.final, "epsilon")
    assert clean_and_noise(x, out, level, blind)[0].isnan().all()


def test_unknown_schedulers_are_refused_for_derived_signals_only() -> None:
    class Unheard: ...

    with pytest.raises(UserError, match=r"Unheard has no known rule.*DDIMScheduler"):
        schedule_of(Unheard(), ("latent", "x0"))
    schedule = schedule_of(Unheard(), ("latent", "prediction"))
    assert schedule.space == "unknown"
    assert math.isnan(schedule.at(3, 0).noise)
    assert schedule.steps_of(3) == (0, 1, 2)


def test_kinds_of_prediction_that_do_not_belong_to_the_state_are_refused() -> None:
    scheduler = diffusers.DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="v_prediction")
    with pytest.raises(UserError, match="predicts 'v_prediction' in a flow state"):
        schedule_of(scheduler, ("latent", "eps"))


def test_subclasses_of_known_schedulers_are_known() -> None:
    class Mine(diffusers.DDIMScheduler): ...

    assert schedule_of(Mine(), ALL).space == "vp"
