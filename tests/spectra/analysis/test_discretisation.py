"""What few steps cost a perfect model: against the closed form, and inverted from cubes of the oracle."""

import json
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import xarray as xr

from spectra.analysis.discretisation import discretisation
from spectra.analysis.kernels import Sampler, ancestral_path, band_sums, data_power, final_power
from spectra.bands import FilterBank
from spectra.errors import UserError
from spectra.gaussian import GaussianField, Levels, Path, flow_levels, vp_levels
from spectra.solvers import SOLVERS, sampler_path
from spectra.zoo.gaussian import GaussianPipeline
from tests.oracles.recorded import pipeline, recording, states_by_hand
from tests.spectra.synthetic import gaussian_cube
from tests.spectra.witness import BANK as ORACLES

BANK = FilterBank((0.8, 1.6, 3.2, 6.4))
STEPS = (5, 10, 20, 50, 200)


def field() -> GaussianField:
    """24 x 32, power ~ 1 / f^2, mean and mean's variance 0."""
    plain = GaussianField.power_law((1, 24, 32), 2.0)
    S = plain.variance.copy()
    S[:, 0, 0] = 0
    return GaussianField(plain.mean, S / S.mean())


def flow(steps: int) -> Levels:
    """Levels of diffusers' FlowMatchEulerDiscreteScheduler without a shift: its last step is from 0.001."""
    return flow_levels(np.append(np.linspace(1, 0.001, steps), 0))


def kept(field: GaussianField, levels: Levels, eta: float = 0.0) -> np.ndarray:
    """Expected energy of finished samples over that of the data."""
    final = field.expected_energies(BANK, levels, "latent", eta)[-1].sum(0)
    return np.asarray(final / band_sums(field.mean**2 + field.variance, BANK).sum(0))


@pytest.mark.parametrize(
    ("steps", "finest", "next_finest"),
    [(5, 0.45, 0.51), (10, 0.71, 0.74), (20, 0.85, 0.87), (50, 0.94, 0.95), (200, 0.985, 0.987)],
)
def test_euler_steps_cost_a_perfect_model_what_is_known(steps: int, finest: float, next_finest: float) -> None:
    """Known numbers; those of lower bands depend on how much of them is a mean, which is not lost."""
    found = discretisation(gaussian_cube(field(), flow(steps), bank=BANK, runs=24)).kept.values
    assert found[-1] == pytest.approx(finest, abs=0.02)
    assert found[-2] == pytest.approx(next_finest, abs=0.02)


@pytest.mark.parametrize("steps", STEPS)
def test_the_fit_to_a_cube_gives_the_closed_form(steps: int) -> None:
    """Band 0 holds few modes, in one or two bins."""
    cube = gaussian_cube(field(), flow(steps), bank=BANK, runs=48, bins=48)
    found, truth = discretisation(cube), kept(field(), flow(steps))
    np.testing.assert_allclose(found.kept[1:], truth[1:], atol=0.02)
    assert found.kept[0] == pytest.approx(truth[0], abs=0.12)
    np.testing.assert_allclose(found.data[1:], band_sums(field().variance, BANK)[0, 1:], rtol=0.1)
    np.testing.assert_allclose(found.measured, cube.energy[:, -1, 0].sum("channel").mean("run"))
    assert "mean zero" in found.attrs["assumed"]
    assert found.attrs["steps"] == steps


@pytest.mark.parametrize(
    ("scheduler", "eta", "levels"),
    [
        ("DDIMScheduler", 0.0, vp_levels(np.append(np.linspace(0.02, 0.98, 20) ** 2, 1))),
        ("DDPMScheduler", 1.0, vp_levels(np.append(np.linspace(0.02, 0.98, 20) ** 2, 1))),
    ],
)
def test_ddim_and_ddpm_are_followed(scheduler: str, eta: float, levels: Levels) -> None:
    cube = gaussian_cube(field(), levels, bank=BANK, runs=48, bins=48, eta=eta, scheduler=scheduler)
    np.testing.assert_allclose(discretisation(cube).kept[1:], kept(field(), levels, eta)[1:], atol=0.03)


def euler(S: float, sigmas: np.ndarray, ancestral: bool) -> float:
    """Variance after diffusers' Euler steps of x0 + sigma eps, written as the schedulers write them, for one mode."""
    gain, variance = float(sigmas[0]), 0.0
    for s, t in pairwise(sigmas):
        up = np.sqrt(t**2 * (s**2 - t**2) / s**2) if ancestral else 0.0
        down = np.sqrt(t**2 - up**2)
        step = 1 + (down - s) / s * (1 - S / (S + s**2))  # x + (x - x0) / s * (down - s)
        gain, variance = gain * step, variance * step**2 + up**2
    return gain**2 + variance


@pytest.mark.parametrize("last", [0.0, 0.03])
@pytest.mark.parametrize("path", [sampler_path, ancestral_path])
def test_steps_in_noise_levels_are_those_of_eulers_schedulers(path: Callable[..., Path], last: float) -> None:
    sigmas = np.append(np.geomspace(80, 0.1, 15), last)
    sampler: Sampler = partial(path, levels=Levels(np.ones_like(sigmas), sigmas), start=80.0)
    S = np.array([0.01, 0.3, 1.0, 20.0])
    expected = [euler(v, sigmas, path is ancestral_path) for v in S]
    np.testing.assert_allclose(final_power(S, sampler), expected, rtol=1e-9)


@pytest.mark.parametrize("solver", ["ancestral", *SOLVERS])
def test_the_data_are_recovered_from_what_was_kept(solver: str) -> None:
    S = np.array([0.0, 1e-3, 0.5, 4.0, 300.0])
    levels = vp_levels(np.append(np.linspace(0.05, 0.97, 9) ** 2, 1))
    ancestral: Sampler = partial(ancestral_path, levels=levels, start=1.0)
    sampler = ancestral if solver == "ancestral" else partial(sampler_path, levels=levels, solver=solver)
    np.testing.assert_allclose(data_power(final_power(S, sampler), sampler), S, rtol=1e-3, atol=1e-12)
    assert (data_power(np.zeros(3), sampler) == 0).all()


RECORDED = [
    ("EulerDiscreteScheduler", {}), ("EulerDiscreteScheduler", {"timestep_spacing": "leading", "steps_offset": 1}),
    ("HeunDiscreteScheduler", {}), ("FlowMatchHeunDiscreteScheduler", {}), ("DPMSolverMultistepScheduler", {}),
    ("UniPCMultistepScheduler", {}),
    ("UniPCMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}),
]  # fmt: skip
RUNS, CALLS = 96, 8


def recorded(pipe: GaussianPipeline) -> tuple[xr.Dataset, np.ndarray, np.ndarray]:
    """A cube of samples without a mean, their energies over those of the data, and the error of the mean of these."""
    cube = recording(pipe, tuple(range(RUNS)), CALLS, ("latent", "x0"), stored=True, prompt=[""] * RUNS)
    truth = pipe.field("").expected(ORACLES, "latent", 1.0, 0.0).sum(0)
    ratios = cube.energy[:, -1, 0].sum("channel").transpose("run", "band").values / truth
    return cube, ratios.mean(0), ratios.std(0, ddof=1) / np.sqrt(RUNS)


@pytest.mark.parametrize(("scheduler", "options"), RECORDED)
def test_what_diffusers_schedulers_keep_is_found_from_their_samples(scheduler: str, options: dict[str, object]) -> None:
    """Recorded over true energies, and what is fitted to them, are what is expected, within the Monte Carlo error."""
    pipe = pipeline(scheduler, "gaussian:2x24x32:2.0", **options)
    cube, ratio, error = recorded(pipe)
    field, (levels, path) = pipe.field(""), states_by_hand(pipe, pipe.field(""))
    truth = field.expected(ORACLES, "latent", 1.0, 0.0).sum(0)
    expected = field.expected_energies(ORACLES, levels, "latent", path=path)[-1].sum(0) / truth
    found = discretisation(cube)
    assert (abs(ratio - expected) < 4 * error).all()
    assert (abs(found.kept.values - expected) < 4 * error).all()
    assert (abs(expected - 1) > 8 * error).any()  # something is lost, or added
    assert found.attrs["steps"] == CALLS


def test_what_the_ancestral_sampler_keeps_is_found_from_its_samples() -> None:
    cube, ratio, error = recorded(pipeline("EulerAncestralDiscreteScheduler", "gaussian:2x24x32:2.0"))
    assert (abs(discretisation(cube).kept.values - ratio) < 4 * error).all()
    assert (ratio < 1 - 8 * error).all()


def with_scheduler(cube: xr.Dataset, **config: object) -> xr.Dataset:
    return cube.assign_attrs(scheduler=json.dumps(config))


def test_samplers_without_a_closed_form_are_refused_with_the_reason() -> None:
    cube = gaussian_cube(field(), flow(5), bank=BANK, runs=2)
    refused = {
        "its step is not one of those below": with_scheduler(cube, **{"class": "PNDMScheduler"}),
        "its options are not the usual ones: solver_order is 3": with_scheduler(
            cube, **{"class": "DPMSolverMultistepScheduler", "solver_order": 3}
        ),
        "it clips x0": with_scheduler(cube, **{"class": "DDPMScheduler", "clip_sample": True}),
        "called several times": cube.assign_coords(step=np.arange(6) // 2),
        "stochastic_sampling is True": with_scheduler(
            cube, **{"class": "FlowMatchEulerDiscreteScheduler", "stochastic_sampling": True}
        ),
        "variance_type learned": with_scheduler(cube, **{"class": "DDPMScheduler", "variance_type": "learned"}),
        "does not say which scheduler": cube.assign_attrs(scheduler="?"),
        "no complete run": cube.isel(run=slice(0, 0)),
    }
    for reason, each in refused.items():
        with pytest.raises(UserError, match=reason):
            discretisation(each)
    with pytest.raises(UserError, match="do not fall from noise"):
        discretisation(cube.assign_coords(noise_level=cube.noise_level[::-1].values * cube.noise_level))


def test_guidance_is_said_to_be_left_out() -> None:
    cube = gaussian_cube(field(), flow(5), bank=BANK, runs=2)
    assert "guidance" not in discretisation(cube).attrs["assumed"]
    guided = cube.assign_coords(guidance_rule=("run", np.full(2, "cfg", object)))
    assert "guidance, which these runs had" in discretisation(guided).attrs["assumed"]
