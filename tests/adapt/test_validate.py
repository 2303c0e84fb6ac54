"""Validation: the same cells for every run, measured per level and band, shape by shape."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from scipy.ndimage import gaussian_filter

import adapt.validate as module
from adapt.octaves import BANDS
from adapt.task import Task
from adapt.validate import Validation, make_grid, training_weights, validate
from spectra.bands import TRUNCATE, FilterBank
from tests.adapt.worlds import Data, data, embedding, task

EVAL: dict[str, Any] = {"eval_samples": 3, "eval_draws": 2, "eval_levels": 4}


def flow(heldout: Data, **changes: Any) -> Task:
    return task(FlowMatchEulerDiscreteScheduler(shift=2.0), heldout=heldout, **(EVAL | changes))


def by_hand(the: Task, level: int, sample: int, draw: int) -> np.ndarray[Any, Any]:
    """The field of errors of one cell."""
    grid, held = make_grid(the), the.heldout
    quantile = (level + 0.5) / 4
    sigma = 2 * quantile / (1 + quantile)
    x0, noise = held.latents([sample])[0], grid.noise[sample][draw]
    with torch.no_grad():
        answer = the.denoiser(
            ((1 - sigma) * x0 + sigma * noise)[None],
            torch.tensor([1000 * sigma]),
            embedding(held.captions[sample])[None],
        )[0]
    field: np.ndarray[Any, Any] = (answer - (noise - x0)).double().numpy()
    return field


@pytest.mark.parametrize("shape", [(4, 8, 8), (4, 3, 8, 8)])
def test_a_cells_error_and_its_bands_are_those_worked_out_with_scipy(shape: tuple[int, ...]) -> None:
    the = flow(data(3, shape=shape))
    found = validate(the, make_grid(the))
    field = by_hand(the, 2, 1, 1)
    assert float(found.error[2, 1, 1]) == pytest.approx((field**2).mean(), rel=1e-4)
    scales = FilterBank.octaves(BANDS, (8, 8)).scales
    planes = field.reshape(-1, 8, 8)
    blurred = [planes] + [
        np.stack([gaussian_filter(plane, scale, mode="reflect", truncate=TRUNCATE) for plane in planes])
        for scale in scales
    ]
    bands = [blurred[-1], *(fine - coarse for fine, coarse in zip(blurred[-2::-1], blurred[:0:-1], strict=True))]
    expected = [(band**2).sum() / field.size for band in bands]
    np.testing.assert_allclose(found.band_error[2, 1, 1], expected, rtol=1e-4)


def test_bands_overlap_and_hold_most_of_the_error() -> None:
    """Energies miss the cross terms, so they sum to less; and no band has more than all of it."""
    the = flow(data(3))
    found = validate(the, make_grid(the))
    assert found.band_error.shape == (4, 3, 2, BANDS)
    assert (found.band_error.sum(-1) < found.error).all()
    assert (found.band_error.sum(-1) > 0.3 * found.error).all()


def test_pictures_of_several_shapes_are_measured_as_if_alone() -> None:
    tall, wide = (4, 12, 8), (4, 8, 12)
    mixed = Data((tall, wide, tall), (("a",), ("b",), ("c",)))
    the = flow(mixed)
    grid = make_grid(the)
    assert [tuple(one.shape) for one in grid.noise] == [(2, *tall), (2, *wide), (2, *tall)]
    found = validate(the, grid)
    for level, sample, draw in ((0, 0, 0), (1, 1, 1), (3, 2, 0)):
        expected = (by_hand(the, level, sample, draw) ** 2).mean()
        assert float(found.error[level, sample, draw]) == pytest.approx(expected, rel=1e-4)
    for asked in the.denoiser.asked:
        assert asked["noisy"].shape[1:] in (tall, wide)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    the = flow(data(3))
    gates = replace(the.method, gates=lambda net: net.asked[-1]["text"][:, :2].softmax(1))
    the = replace(the, method=gates)
    whole = validate(the, make_grid(the))
    monkeypatch.setattr(module, "ELEMENTS", 5 * 4 * 8 * 8)
    parts = validate(the, make_grid(the))
    assert max(len(asked["noisy"]) for asked in the.denoiser.asked[1:]) == 5
    torch.testing.assert_close(parts.error, whole.error)
    torch.testing.assert_close(parts.band_error, whole.band_error)
    assert whole.gates is not None
    assert whole.gates.shape == (4, 3, 2)
    torch.testing.assert_close(parts.gates, whole.gates)
    texts = torch.stack([embedding(caption)[:2].softmax(0) for caption in the.heldout.captions[:3]])
    torch.testing.assert_close(whole.gates, texts.expand(4, 3, 2))


def test_runs_that_sample_and_weigh_levels_differently_are_measured_on_the_same_cells() -> None:
    one, other = (
        flow(data(3), **changes)
        for changes in ({}, {"timesteps": "logit_normal", "shift": 5.0, "weighting": "cosmap", "seed": 9, "batch": 2})
    )
    first, second = make_grid(one), make_grid(other)
    assert torch.equal(first.timesteps, second.timesteps)
    assert all(torch.equal(*pair) for pair in zip(first.noise, second.noise, strict=True))
    assert torch.equal(validate(one, first).error, validate(other, second).error)


def test_the_grid_of_more_pictures_begins_with_that_of_fewer() -> None:
    few, many = (make_grid(flow(data(5), eval_samples=n)) for n in (2, 5))
    assert all(torch.equal(*pair) for pair in zip(few.noise, many.noise, strict=False))
    assert len(make_grid(flow(data(2), eval_samples=16)).noise) == 2


def test_training_weights_are_the_share_of_training_in_each_level() -> None:
    the = task(DDIMScheduler(), heldout=data(2), timesteps="logit_normal", **EVAL)
    weights = training_weights(the, make_grid(the))
    assert float(weights.sum()) == pytest.approx(1, abs=1e-4)
    assert weights[1] == pytest.approx(float(weights[2]), abs=1e-3)
    assert weights[0] == pytest.approx(0.136, abs=2e-3)  # P(N(0, 1) < logit 1/4)
    uniform = task(DDIMScheduler(), heldout=data(2), **EVAL)
    torch.testing.assert_close(
        training_weights(uniform, make_grid(uniform)).float(), torch.full((4,), 0.25), rtol=1e-3, atol=0
    )


def test_a_weighted_mean_counts_levels_as_told() -> None:
    error = torch.tensor([1.0, 2.0, 4.0])[:, None, None].expand(3, 2, 2)
    found = Validation(error, None, torch.zeros(3, 2, 2, BANDS))
    assert found.mean() == pytest.approx(7 / 3)
    assert found.mean(torch.tensor([0.5, 0.5, 0.0])) == 1.5
