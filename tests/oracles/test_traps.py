"""Mistakes that recorders make, each made on purpose: the closed form of the exact model tells every one of them.

Each test puts one wrong piece into the code that records, and sees the recording leave the oracle by a wide margin.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from spectra import schedulers, signals
from spectra.bands import FilterBank, coefficients, from_coefficients
from spectra.gaussian import Path as States
from spectra.recording import call
from spectra.recording.meter import Meter
from spectra.recording.split import Split
from spectra.schedulers import by_index
from spectra.signals import Level, Schedule
from spectra.zoo.gaussian import GaussianPipeline
from tests.oracles.recorded import PROMPT, SEEDS, STEPS, misfit, noise, pipeline, recording, states_by_hand
from tests.spectra.witness import ALL, BANK, energies, scipy_energies

FLOW = "FlowMatchEulerDiscreteScheduler"
RIGHT, WRONG = 1e-5, 1e-3
Patch = pytest.MonkeyPatch
weigh = FilterBank.weigh


def worst(pipe: GaussianPipeline, *names: str) -> float:
    """The worst misfit of these signals, or of all, in a recording made now."""
    cube = recording(pipe)
    return max(misfit(cube, pipe, name) for name in names or ALL)


def test_states_taken_one_step_late_are_noticed(monkeypatch: Patch) -> None:
    keep, before = call.Call.keep, {}

    def late(self: Any, entry: Any) -> None:
        state, before["x"] = before.get("x", entry.x), entry.x
        keep(self, replace(entry, x=state))

    pipe = pipeline(FLOW)
    assert worst(pipe) < RIGHT
    monkeypatch.setattr(call.Call, "keep", late)
    assert worst(pipe, "latent") > WRONG


@pytest.mark.parametrize(
    ("name", "rule"),
    [("EulerDiscreteScheduler", by_index.solver), ("DPMSolverMultistepScheduler", by_index.euler)],
)
def test_a_state_read_in_the_wrong_space_is_noticed(
    name: str, rule: Callable[[Any], Schedule], monkeypatch: Patch
) -> None:
    pipe = pipeline(name, prediction_type="epsilon")
    assert worst(pipe) < RIGHT
    monkeypatch.setitem(schedulers.SCHEDULERS, name, rule)
    assert worst(pipe, "x0") > WRONG


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [(FLOW, "flow_prediction", {}), ("DDIMScheduler", "v_prediction", {"prediction_type": "v_prediction"})],
)
def test_a_negated_velocity_is_noticed(name: str, kind: str, options: dict[str, Any], monkeypatch: Patch) -> None:
    rule = signals.PREDICTIONS[kind]
    pipe = pipeline(name, **options)
    assert worst(pipe) < RIGHT
    monkeypatch.setitem(signals.PREDICTIONS, kind, lambda x, out, a, b: rule(x, -out, a, b))
    cube = recording(pipe)
    assert min(misfit(cube, pipe, "x0"), misfit(cube, pipe, "eps")) > WRONG
    assert misfit(cube, pipe, "latent") < RIGHT  # the states themselves do not tell


@pytest.mark.parametrize(("mode", "fits"), [("reflect", True), ("mirror", False), ("nearest", False)])
def test_another_kind_of_boundary_is_noticed(mode: str, fits: bool, monkeypatch: Patch) -> None:
    measure = Meter.measure

    def by_scipy(self: Meter, states: Any) -> None:
        measure(self, states)
        X, P = coefficients(torch.stack([states.x, states.out]).float())
        fields = self._signals(X, P, states)
        found = scipy_energies(from_coefficients(torch.stack([fields[name] for name in self.plan.signals])), mode)
        self.energies[-1] = torch.tensor(found).float()

    monkeypatch.setattr(Meter, "measure", by_scipy)
    assert (worst(pipeline(FLOW)) < RIGHT) == fits
    assert fits or worst(pipeline(FLOW), "latent") > WRONG


def test_a_mean_over_pixels_instead_of_a_sum_is_noticed(monkeypatch: Patch) -> None:
    monkeypatch.setattr(FilterBank, "weigh", lambda self, x: weigh(self, x) / (x.shape[-1] * x.shape[-2]))
    assert worst(pipeline(FLOW), "latent") > WRONG


def test_channels_folded_into_the_batch_are_noticed(monkeypatch: Patch) -> None:
    def folded(self: FilterBank, square: torch.Tensor) -> torch.Tensor:
        E = weigh(self, square)
        return E.transpose(-2, -3).reshape(E.shape) if E.ndim > 3 else E

    monkeypatch.setattr(FilterBank, "weigh", folded)
    assert worst(pipeline(FLOW), "latent") > WRONG


def test_sums_in_bfloat16_are_noticed(monkeypatch: Patch) -> None:
    def rough(self: FilterBank, square: torch.Tensor) -> torch.Tensor:
        D = torch.tensor(self.transfer(*square.shape[-2:]) ** 2, dtype=torch.bfloat16)
        return torch.einsum("...hw,khw->...k", square.bfloat16(), D).float()

    monkeypatch.setattr(FilterBank, "weigh", rough)
    assert worst(pipeline(FLOW), "latent") > WRONG


def guided(pipe: GaussianPipeline) -> xr.Dataset:
    return recording(pipe, signals=(*ALL, "cond", "uncond", "guidance"), guidance_scale=3.0)


@pytest.mark.parametrize("name", [FLOW, "DDIMScheduler", "UniPCMultistepScheduler"])
def test_cond_and_uncond_swapped_are_noticed(name: str, monkeypatch: Patch) -> None:
    pipe = pipeline(name)
    cube = guided(pipe)
    assert set(cube.split.values) == {""}
    for signal in ("cond", "uncond"):
        assert misfit(cube, pipe, signal, guidance_scale=3.0) < RIGHT
    split = call.Call._split

    def swapped(self: Any, out: torch.Tensor) -> Any:
        cond, uncond, scale = split(self, out)
        return Split(uncond, cond, scale)

    monkeypatch.setattr(call.Call, "_split", swapped)
    cube = guided(pipe)
    for signal in ("cond", "uncond"):
        assert misfit(cube, pipe, signal, guidance_scale=3.0) > WRONG


def by_step(cube: xr.Dataset, pipe: GaussianPipeline) -> float:
    """How far the state at the first call of each step is off a sampler that makes `STEPS` steps of two calls."""
    levels, states = states_by_hand(pipe, pipe.field(PROMPT))
    calls = [*range(0, len(levels.a) - 1, 2), len(levels.a) - 1]
    exact = pipe.field(PROMPT).energies(BANK, levels, noise(SEEDS, (2, 12, 16)), "latent", States(*states))
    found = energies(cube, "latent")[:, np.unique(cube.step, return_index=True)[1]]
    assert len(calls) == STEPS + 1
    pairs = zip(found.swapaxes(0, 1), exact[calls], strict=False)
    return max(float(abs(one / two - 1).max()) for one, two in pairs)


@pytest.mark.parametrize("name", ["HeunDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"])
def test_calls_of_second_order_counted_as_steps_are_noticed(name: str, monkeypatch: Patch) -> None:
    pipe, rule = pipeline(name), schedulers.SCHEDULERS[name]
    cube = recording(pipe)
    assert by_step(cube, pipe) < RIGHT
    assert cube.step.values[-1] == STEPS
    each = lambda calls: tuple(range(calls))  # noqa: E731
    monkeypatch.setitem(schedulers.SCHEDULERS, name, lambda scheduler: replace(rule(scheduler), steps_of=each))
    assert by_step(recording(pipe), pipe) > WRONG


def by_timestep(scheduler: Any) -> Schedule:
    """The level of the timestep that a solver rounds to, where its sigmas lie between timesteps."""
    squares = scheduler.alphas_cumprod.double().tolist()
    right = by_index.solver(scheduler)

    def at(timestep: Any, index: int | None) -> Level:
        square = squares[int(timestep)]
        return Level(float(timestep), math.sqrt(square), math.sqrt(1 - square))

    return replace(right, at=at)


def by_fraction(scheduler: Any) -> Schedule:
    """The timestep over 1000 as the noise level, as if every model flowed."""
    right = schedulers.keyed.ddim(scheduler)

    def at(timestep: Any, index: int | None) -> Level:
        b = float(timestep) / 1000
        return Level(float(timestep), math.sqrt(1 - b * b), b)

    return replace(right, at=at)


@pytest.mark.parametrize(
    ("name", "wrong", "options"),
    [
        ("DPMSolverMultistepScheduler", by_timestep, {"use_karras_sigmas": True}),
        ("DDIMScheduler", by_fraction, {"timestep_spacing": "trailing"}),
    ],
)
def test_levels_taken_from_timesteps_instead_of_sigmas_are_noticed(
    name: str, wrong: Callable[[Any], Schedule], options: dict[str, Any], monkeypatch: Patch
) -> None:
    pipe = pipeline(name, **options)
    assert worst(pipe) < RIGHT
    monkeypatch.setitem(schedulers.SCHEDULERS, name, wrong)
    cube = recording(pipe)
    levels, _ = states_by_hand(pipe, pipe.field(PROMPT))
    assert abs(cube.noise_level.values - levels.b).max() > 1e-4
    assert misfit(cube, pipe, "x0") > WRONG
