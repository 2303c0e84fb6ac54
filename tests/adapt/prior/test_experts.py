"""How many experts a trajectory speaks for, where the answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from adapt import Prior
from adapt.prior.experts import MOST, advise
from adapt.trajectory import Trajectory, read_trajectory
from tests.adapt.prior.worlds import BANK, cube, cube_of, gaussian

STEPS = 12


def plateaus(count: int, gap: float = 3.0, runs: int = 24) -> Trajectory:
    """Log shares that stay at `count` places along 12 steps, `gap` deviations apart, with a spread over runs."""
    place = np.arange(STEPS) * count // STEPS
    draw = np.random.default_rng(0)
    logs = 0.05 * np.stack([gap * place + draw.standard_normal((runs, STEPS)), np.zeros((runs, STEPS))], -1)
    logs = np.concatenate([logs, 1e-3 * draw.standard_normal((runs, STEPS, 2))], -1)
    return replace(read_trajectory(cube_of(*gaussian(runs, STEPS))), recorded=np.exp(logs))


def sure(path: Trajectory) -> list[float]:
    return [one.value for one in advise([path], [path.position], BANK).sure]


def test_as_many_experts_are_advised_as_there_are_parts_that_latents_show() -> None:
    u = plateaus(3).position
    assert advise([plateaus(1)], [u], BANK).advised == 1
    assert advise([plateaus(2, 20.0)], [u], BANK).advised in (2, 3)
    assert advise([plateaus(12, 8.0)], [u], BANK).advised == MOST


def test_parts_that_coincide_with_plateaus_are_told_surely_and_others_by_their_overlap() -> None:
    """Two plateaus: halves are certain; of thirds the middle one is torn between two plateaus of six steps.

    A latent of an outer third (4 steps) shows its plateau (6 steps): 4/6.  One of the middle third: 2/6.
    """
    found = sure(plateaus(2, 20.0))
    np.testing.assert_allclose(found[:3], [1.0, 1.0, (4 / 6 + 2 / 6 + 4 / 6) / 3], atol=0.03)


def test_without_any_sign_of_the_level_each_part_is_as_likely_and_one_expert_is_advised() -> None:
    advice = advise([plateaus(1)], [plateaus(1).position], BANK)
    np.testing.assert_allclose([one.value for one in advice.sure], [1 / m for m in range(1, MOST + 1)], atol=0.02)
    assert advice.advised == 1


def test_doubt_counts_against_experts() -> None:
    path = read_trajectory(cube())
    advice = advise([path], [path.position], BANK)
    assert advice.advised is not None
    for m, one in enumerate(advice.sure, 1):
        assert one.low is not None
        assert (m <= advice.advised) <= (one.low > 0.5 or m == 1)
    if advice.advised < MOST:
        low = advice.sure[advice.advised].low
        assert low is not None
        assert low <= 0.5


@pytest.mark.parametrize("steps", [2, 3])
def test_no_more_experts_are_advised_than_there_are_steps_to_tell(steps: int) -> None:
    prior = Prior.from_cube(cube_of(*gaussian(6, steps)))
    assert prior.experts_advised == len(prior.advice.sure) == steps
    assert "no more were tried, for each needs a step of its own." in " ".join(prior.explain())


def test_few_runs_give_no_advice() -> None:
    path = read_trajectory(cube().isel(run=slice(3)))
    assert advise([path], [path.position], BANK).advised is None
