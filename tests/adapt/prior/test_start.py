"""Soft prototypes and the network that is fitted to them."""

from __future__ import annotations

import numpy as np
import torch

from adapt.fera.router import RouterWeights
from adapt.fera.router import gates as gates_by_router
from adapt.prior import soft_prototypes
from adapt.prior.start import MOST_POINTS, fit

DRAW = np.random.default_rng(0)
U = (np.arange(8) + 0.5) / 8
CLOCK = np.tile(np.linspace(-1.5, 1.5, 8)[:, None], (5, 1, 1))


def test_more_overlap_is_milder_and_starves_nobody() -> None:
    u = np.linspace(0, 1, 101)
    sharp, mild = (soft_prototypes(u, 3, overlap) for overlap in (0.1, 1.0))
    np.testing.assert_allclose(mild.sum(1), 1)
    assert mild.max() < 0.75 < 0.99 < sharp.max()
    assert mild.min() > 0.03 > 1e-6 > sharp.min()
    np.testing.assert_allclose(soft_prototypes(u, 1, 1.0), 1)


def test_prototypes_are_gaussians_around_the_middles_of_equal_parts() -> None:
    u, experts, overlap = 0.3, 4, 0.7
    weights = [np.exp(-((u - (m + 0.5) / 4) ** 2) / (2 * (overlap / 4) ** 2)) for m in range(experts)]
    np.testing.assert_allclose(soft_prototypes(np.array(u), experts, overlap), np.array(weights) / sum(weights))


def test_the_weights_that_are_kept_give_the_gates_that_are_reported() -> None:
    found = fit([CLOCK], [soft_prototypes(U, 3, 1.0)], 0.7, 16, 0)
    weights = RouterWeights(*(torch.tensor(found.router[name], dtype=torch.float64) for name in RouterWeights._fields))
    again = gates_by_router(torch.from_numpy(CLOCK), weights, 0.7) / 3
    np.testing.assert_allclose(found.gates[0], again.numpy(), atol=1e-12)
    np.testing.assert_allclose(found.gates[0][0], soft_prototypes(U, 3, 1.0), atol=0.03)


def test_trajectories_count_equally_whatever_their_number_of_runs() -> None:
    """The two ask for opposite gates at the same features, so the fit lies half way, however many runs one has."""
    one, other = soft_prototypes(U, 2, 0.5), soft_prototypes(U[::-1], 2, 0.5)
    for copies in (1, 6):
        found = fit([CLOCK, np.tile(CLOCK, (copies, 1, 1))], [one, other], 0.7, 16, 0)
        np.testing.assert_allclose(found.gates[0], 0.5, atol=0.02)
        assert len(found.gates[1]) == 5 * copies


def test_a_large_cube_is_thinned_for_the_fit_but_judged_whole() -> None:
    runs = MOST_POINTS // 8 + 100
    x = CLOCK[:1] + 1e-3 * DRAW.standard_normal((runs, 8, 1))
    found = fit([x], [soft_prototypes(U, 2, 1.0)], 0.7, 4, 0)
    assert found.gates[0].shape == (runs, 8, 2)
