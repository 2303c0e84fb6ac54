"""What is recorded of the exact model, under real schedulers, is the closed form: run by run, band by band."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import xarray as xr

from spectra.bands import FilterBank, radius
from spectra.gaussian import GaussianField, flow_levels
from spectra.recording import call
from spectra.zoo.gaussian import GaussianPipeline, gaussian_pipeline
from tests.oracles.recorded import PROMPT, SEEDS, levels_by_hand, misfit, noise, pipeline, recording, states_by_hand
from tests.spectra.witness import ALL, BANK, energies, seeded

FLOW, FLOW_HEUN = "FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"
SAMPLERS: list[tuple[str, dict[str, Any]]] = [
    (FLOW, {}),
    (FLOW, {"shift": 3.0}),
    (FLOW_HEUN, {}),
    ("DDIMScheduler", {"prediction_type": "epsilon"}),
    ("DDIMScheduler", {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}),
    ("DDIMScheduler", {"prediction_type": "sample"}),
    ("EulerDiscreteScheduler", {"prediction_type": "epsilon"}),
    ("EulerDiscreteScheduler", {"prediction_type": "v_prediction", "use_karras_sigmas": True}),
    ("HeunDiscreteScheduler", {"prediction_type": "epsilon"}),
    ("HeunDiscreteScheduler", {"prediction_type": "v_prediction"}),
    ("DPMSolverMultistepScheduler", {"prediction_type": "epsilon"}),
    ("DPMSolverMultistepScheduler", {"prediction_type": "v_prediction", "use_karras_sigmas": True}),
    ("DPMSolverMultistepScheduler", {"prediction_type": "flow_prediction", "use_flow_sigmas": True}),
    ("UniPCMultistepScheduler", {"prediction_type": "epsilon"}),
    ("UniPCMultistepScheduler", {"prediction_type": "v_prediction", "timestep_spacing": "trailing"}),
]
SPACES = {"Flow": "flow", "DDIM": "vp", "Eule": "ve", "Heun": "ve", "DPMS": "vp", "UniP": "vp"}


class Sampled(NamedTuple):
    pipe: GaussianPipeline
    cube: xr.Dataset
    space: str


@pytest.fixture(
    scope="module", params=SAMPLERS, ids=lambda sampler: "-".join(map(str, (sampler[0], *sampler[1].values())))
)
def sampled(request: pytest.FixtureRequest) -> Sampled:
    """A pipeline under each sampler, and the cube of its run, read back from the disk."""
    name, options = request.param
    pipe = pipeline(name, **options)
    return Sampled(pipe, recording(pipe, stored=True), "flow" if "use_flow_sigmas" in options else SPACES[name[:4]])


@pytest.mark.parametrize("signal", ALL)
def test_every_signal_of_every_run_is_that_of_the_closed_form(sampled: Sampled, signal: str) -> None:
    assert misfit(sampled.cube, sampled.pipe, signal) < 1e-5


def test_noise_levels_and_coherence_are_those_of_the_closed_form(sampled: Sampled) -> None:
    pipe, cube, space = sampled
    levels, states = states_by_hand(pipe, pipe.field(PROMPT))
    np.testing.assert_allclose(cube.signal_level, levels.a, atol=1e-6)
    np.testing.assert_allclose(cube.noise_level, levels.b, rtol=1e-6, atol=1e-6)
    assert cube.attrs["state_space"] == space
    exact = pipe.field(PROMPT).coherence(BANK, levels, noise(SEEDS, (2, 12, 16)), states).swapaxes(0, 1)
    np.testing.assert_allclose(cube.coherence.transpose("run", "step", "band"), exact, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 3, 14, 15, 40])
@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "HeunDiscreteScheduler"])
def test_solvers_of_second_order_start_and_end_as_stated(name: str, steps: int) -> None:
    pipe = pipeline(name)
    cube = recording(pipe, seeds=(0,), steps=steps)
    assert misfit(cube, pipe, "latent") < 1e-5


@pytest.mark.parametrize(("name", "options"), [SAMPLERS[0], SAMPLERS[3], SAMPLERS[8], SAMPLERS[10], SAMPLERS[13]])
def test_guided_runs_follow_the_guided_closed_form(name: str, options: dict[str, Any]) -> None:
    pipe = pipeline(name, **options)
    cube = recording(pipe, guidance_scale=4.0)
    for signal in ALL:
        assert misfit(cube, pipe, signal, guidance_scale=4.0) < 2e-5, signal
    assert misfit(cube, pipe, "latent") > 0.1  # guidance does something


def test_the_guided_part_is_the_same_for_every_seed() -> None:
    """In velocities: cond - uncond = -((1 - a K) / b) (m_c - m_u), K = a S / (a^2 S + b^2), whatever the state."""
    pipe = gaussian_pipeline("gaussian:2x12x16:2.0:0.7", dtype=torch.float64)
    seen: list[tuple[torch.Tensor, float]] = []

    def keep(module: Any, args: Any, kwargs: dict[str, Any], output: tuple[torch.Tensor]) -> None:
        uncond, cond = output[0].chunk(2)
        seen.append((cond - uncond, kwargs["level"][1]))

    pipe.transformer.register_forward_hook(keep, with_kwargs=True)
    pipe([PROMPT] * 4, num_inference_steps=6, guidance_scale=5.0, generator=seeded(0, 1, 2, 3))
    assert len(seen) == 6
    assert seen[0][0].abs().max() > 0.1
    field, empty = pipe.field(PROMPT), pipe.field("")
    for delta, b in seen:
        a = 1 - b
        K = a * field.variance / (a * a * field.variance + b * b)
        exact = torch.tensor(-(1 - a * K) / b * (field.mean - empty.mean))
        assert (delta - delta[:1]).abs().max() < 1e-12
        assert (BANK.coefficients(delta) - exact).abs().max() < 1e-12


def test_the_recorders_own_split_is_exact_and_the_same_for_every_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the recorder finds between denoiser and scheduler, in float64, before anything is measured."""
    found, split = [], call.Call._split

    def keep(self: Any, out: torch.Tensor) -> Any:
        found.append(split(self, out))
        return found[-1]

    monkeypatch.setattr(call.Call, "_split", keep)
    pipe = gaussian_pipeline("gaussian:2x12x16:2.0:0.7", dtype=torch.float64)
    recording(pipe, steps=6, signals=(*ALL, "cond", "uncond", "guidance"), guidance_scale=5.0)
    field, empty = pipe.field(PROMPT), pipe.field("")
    assert len(found) == 6
    for (cond, uncond, scale), b in zip(found, pipe.scheduler.sigmas.tolist(), strict=False):
        c, u = (field.signal("flow", 1 - b, b), empty.signal("flow", 1 - b, b))
        exact = torch.tensor(c.offset - u.offset)
        assert scale == 5.0
        assert ((cond - uncond) - (cond - uncond)[:1]).abs().max() < 1e-12
        assert (BANK.coefficients(cond - uncond) - exact).abs().max() < 1e-12


def test_ancestral_sampling_has_the_expected_energies() -> None:
    pipe = pipeline("DDPMScheduler", "gaussian:1x8x8:1.0:0.5", prediction_type="epsilon")
    cube = recording(pipe, seeds=tuple(range(400)))
    levels, field = levels_by_hand(pipe.scheduler), pipe.field(PROMPT)
    for name in ("latent", "x0", "eps"):
        E = energies(cube, name)
        E = E if name == "latent" else E[:, :-1]
        expected = field.expected_energies(BANK, levels, name, eta=1.0)[: E.shape[1]]
        z = (E.mean(0) - expected) / (E.std(0) / np.sqrt(len(E)))
        assert abs(z).max() < 4, name
    without = field.expected_energies(BANK, levels, "latent")
    E = energies(cube, "latent")
    assert (abs(E.mean(0) - without) / (E.std(0) / np.sqrt(len(E)))).max() > 6  # DDIM's would be told apart


REFERENCE = {
    5: (0.45, 0.51, 0.48, 0.35, 0.52), 10: (0.71, 0.74, 0.72, 0.64, 0.66), 20: (0.85, 0.87, 0.86, 0.81, 0.80),
    50: (0.94, 0.95, 0.94, 0.92, 0.91), 200: (0.985, 0.987, 0.985, 0.980, 0.977),
}  # fmt: skip
OCTAVES = FilterBank((0.8, 1.6, 3.2, 6.4))


def reference_field() -> GaussianField:
    """24 x 32, power 1 / (f^2 + f_1^2) with f_1 the lowest frequency of the grid, unit variance, no mean."""
    power = 1 / (radius(24, 32) ** 2 + 1 / 64**2)
    return GaussianField(np.zeros((1, 24, 32)), power[None] / power.mean())


def diffusers_levels(steps: int) -> Any:
    return flow_levels([*np.linspace(1, 1e-3, steps), 0])


def test_the_discretisation_of_euler_loses_what_the_reference_table_says() -> None:
    """Final energy over the data's, finest band first, in one table of five step counts.

    The mean of the table's data is not stated. Euler keeps a mean exactly, so it adds one unknown to each band: read
    off the first row, it leaves four rows to be predicted.
    """
    field = reference_field()
    truth = field.expected(OCTAVES, "latent", 1.0, 0.0)[0, ::-1]
    lost = {n: field.expected_energies(OCTAVES, diffusers_levels(n), "latent")[-1, 0, ::-1] / truth for n in REFERENCE}
    mean = (np.array(REFERENCE[5]) - lost[5]) / (1 - np.array(REFERENCE[5]))
    assert (mean > -0.01).all()
    for n in (10, 20, 50, 200):
        digits = 0.0055 if n < 200 else 0.00101
        np.testing.assert_allclose((lost[n] + mean) / (1 + mean), REFERENCE[n], atol=digits + 0.004 * (n < 50))


def test_a_recorded_final_sample_has_lost_what_the_table_says() -> None:
    pipe = pipeline(FLOW, "gaussian:1x24x32:2.0")
    field = pipe.field("")
    truth = field.expected(BANK, "latent", 1.0, 0.0)
    for steps in (5, 20):
        cube = recording(pipe, seeds=tuple(range(64)), steps=steps, prompt=[""] * 64)
        E = energies(cube, "latent")[:, -1]
        expected = field.expected_energies(BANK, diffusers_levels(steps), "latent")[-1]
        assert abs((E.mean(0) - expected) / (E.std(0) / 8)).max() < 4
        assert (expected / truth < 0.9).all()


def test_bands_emerge_at_the_levels_of_the_reference() -> None:
    """E||B x0_hat||^2 is half of E||B x0||^2 at these noise levels of a flow, finest band first."""
    field, grid = reference_field(), np.linspace(0.001, 0.999, 999)
    truth = field.expected(OCTAVES, "latent", 1.0, 0.0)[0]
    half = np.stack([field.expected(OCTAVES, "x0", 1 - s, s)[0] / truth for s in grid])
    crossing = [np.interp(-0.5, -column, grid) for column in half.T][::-1]
    np.testing.assert_allclose(crossing, [0.334, 0.510, 0.672, 0.792, 0.905], atol=6e-4)
    assert all(low > high for high, low in pairwise(crossing))


def test_bfloat16_latents_are_off_by_per_cents_only() -> None:
    pipe = gaussian_pipeline("gaussian:2x12x16:2.0:0.7", dtype=torch.bfloat16)
    cube = recording(pipe)
    assert cube.attrs["dtype"] == "bfloat16"
    levels, states = states_by_hand(pipe, pipe.field(PROMPT))
    start = np.stack([torch.randn(2, 12, 16, generator=one, dtype=torch.bfloat16).double() for one in seeded(*SEEDS)])
    exact = pipe.field(PROMPT).energies(BANK, levels, start, "latent", states).swapaxes(0, 1)
    error = abs(energies(cube, "latent") / exact - 1).max()
    assert 1e-4 < error < 0.05
