"""Linear recursions of samplers: that each is what it says, and how fast each reaches the exact flow."""

from __future__ import annotations

import json

import diffusers
import numpy as np
import pytest

from spectra.bands import FilterBank
from spectra.errors import UserError
from spectra.gaussian import GaussianField, Levels, flow_levels, vp_levels
from spectra.recording.provenance import scheduler_json
from spectra.solvers import SOLVERS, sampler_path, solver_of

FIELD = GaussianField.power_law((2, 6, 8), exponent=2.0, offset=0.7)
BANK = FilterBank((0.8, 1.6))


def geometric(steps: int, largest: float = 60.0) -> Levels:
    """Variance exploding levels down to 0.01."""
    s = np.geomspace(largest, 0.01, steps + 1)
    return Levels(np.ones_like(s), s)


def preserving(levels: Levels) -> Levels:
    return Levels(levels.a / np.hypot(*levels), levels.b / np.hypot(*levels))


def twice(levels: Levels) -> Levels:
    """Levels of the calls of a solver that makes two a step."""
    inner = [np.repeat(v[1:-1], 2) for v in levels]
    return Levels(*(np.concatenate([v[:1], w, v[-1:]]) for v, w in zip(levels, inner, strict=True)))


@pytest.mark.parametrize("levels", [flow_levels(np.linspace(1, 0, 9)), vp_levels([0.01, 0.2, 0.7, 1.0])])
def test_eulers_recursion_is_that_of_the_field_itself(levels: Levels) -> None:
    for mine, known in zip(sampler_path(FIELD, levels), FIELD.path(levels), strict=True):
        np.testing.assert_allclose(mine, known, atol=1e-12)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("dpm-solver-2m", 2), ("unipc", 3)])
def test_each_solver_approaches_the_exact_flow_with_its_order(solver: str, order: int) -> None:
    """Exactly, x - a m grows as sqrt(a^2 S + b^2): halving the steps divides what is off by 2^order.

    UniPC-2 has order three, one more than its predictor, by its corrector.
    """
    errors = []
    for steps in (40, 80, 160):
        coarse = geometric(steps)
        exploding = solver == "heun"
        levels = twice(coarse) if exploding else preserving(coarse)
        path = sampler_path(FIELD, levels, solver)
        size = np.sqrt(
            levels.a[[0, -1], None, None, None] ** 2 * FIELD.variance + levels.b[[0, -1], None, None, None] ** 2
        )
        start = levels.b[0] if exploding else 1.0
        errors.append(abs(path.gain[-1] / start - size[1] / size[0]).max())
    ratios = np.array(errors[:-1]) / errors[1:]
    assert (abs(np.log2(ratios) - order) < 0.35).all(), ratios


def test_solvers_of_second_order_lose_less_than_eulers() -> None:
    field = GaussianField.power_law((2, 6, 8))  # without a mean, of which noise without one loses a part
    levels = preserving(geometric(20))
    first, last = (levels.a[i] ** 2 * field.variance + levels.b[i] ** 2 for i in (0, -1))
    exact = GaussianField(np.zeros_like(first), last / first).expected(BANK, "latent", 1.0, 0.0)
    lost = {}
    for solver in ("euler", "dpm-solver-2m", "unipc"):
        path = sampler_path(field, levels, solver)
        lost[solver] = abs(1 - field.expected_energies(BANK, levels, "latent", path=path)[-1] / exact)
    assert (lost["dpm-solver-2m"] < lost["euler"] / 2).all()
    assert (lost["unipc"] < lost["dpm-solver-2m"]).all()


def test_unit_noise_starts_every_sampler_unless_its_variance_explodes() -> None:
    assert (sampler_path(FIELD, preserving(geometric(3))).gain[0] == 1).all()
    assert (sampler_path(FIELD, geometric(3)).gain[0] == 60).all()
    assert (sampler_path(FIELD, geometric(3), start=2.0).gain[0] == 2).all()


SCHEDULERS = [
    ("FlowMatchEulerDiscreteScheduler", {}, "euler"),
    ("DDIMScheduler", {"clip_sample": False}, "euler"),
    ("DDIMScheduler", {}, None),  # it clips
    ("DDPMScheduler", {}, None),
    ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}, None),
    ("HeunDiscreteScheduler", {}, "heun"),
    ("FlowMatchHeunDiscreteScheduler", {}, "heun"),
    ("DPMSolverMultistepScheduler", {}, "dpm-solver-2m"),
    ("DPMSolverMultistepScheduler", {"solver_order": 3}, None),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, None),
    ("UniPCMultistepScheduler", {}, "unipc"),
    ("UniPCMultistepScheduler", {"disable_corrector": [0]}, None),
]


@pytest.mark.parametrize(("name", "options", "solver"), SCHEDULERS)
def test_a_scheduler_is_known_by_what_a_cube_says_of_it(
    name: str, options: dict[str, object], solver: str | None
) -> None:
    described = json.loads(scheduler_json(getattr(diffusers, name)(**options)))
    assert solver_of(described) == solver
    assert solver is None or solver in SOLVERS


def test_an_unknown_solver_is_refused() -> None:
    with pytest.raises(UserError, match="unknown solver 'rk45'"):
        sampler_path(FIELD, flow_levels([1, 0]), "rk45")
