"""Gradients by noise level and band: closed forms for a linear network, and agreement that noise does not hide."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from adapt.instruments import LevelGradients, cosines, learned, level_gradients, norms_of_experts, owners
from adapt.octaves import BANDS
from adapt.validate import Grid, cells_of, make_grid, validate
from spectra.bands import FilterBank
from spectra.errors import UserError
from tests.adapt.instruments.linear import EXPERTS, fera_task, plain_task
from tests.adapt.worlds import data


@pytest.mark.parametrize("weighting", ["none", "cosmap"])
def test_the_energy_of_a_predictions_gradient_is_that_of_its_error(weighting: str) -> None:
    """g = 2 w r / N, so N ||B g||^2 = 4 w^2 ||B r||^2 / N."""
    the = plain_task(weighting=weighting)
    grid = make_grid(the)
    found = level_gradients(the, grid, dict(the.denoiser.named_parameters()))
    weight = the.objective.weight(grid.timesteps).float()
    expected = 4 * weight[:, None].square() * validate(the, grid).band_error.mean((1, 2))
    torch.testing.assert_close(found.energy, expected, rtol=1e-4, atol=0)


def by_hand(grid: Grid, level: int, half: int, band: int | None = None) -> Tensor:
    """d mean(||W x + b - y||^2 / N) / d(W, b) = mean 2 r x^T / N, mean 2 r / N, r of one band where it is given."""
    the = plain_task()
    rows = []
    for cells in cells_of(the, grid):
        with torch.no_grad():
            residual = cells.answer(the) - cells.target
        if band is not None:
            residual = FilterBank.octaves(BANDS, (8, 8)).split(residual)[:, :, band]
        mine = (cells.where[0] == level) & (cells.where[1] % 2 == half)
        r, x = residual[mine].flatten(2), cells.noisy[mine].flatten(2)
        weight = 2 / (r[0].numel() * len(r))
        rows.append(torch.cat([torch.einsum("nop,nip->oi", r, x).flatten() * weight, r.sum((0, 2)) * weight]))
    assert len(rows) == 1
    return rows[0]


def test_gradients_of_a_linear_network_are_those_worked_out_by_hand() -> None:
    the = plain_task()
    grid = make_grid(the)
    found = level_gradients(the, grid, dict(the.denoiser.named_parameters()))
    assert found.halves.shape == (2, 3, 20)
    for level in range(3):
        for half in range(2):
            expected = by_hand(grid, level, half)
            torch.testing.assert_close(found.halves[half, level], expected, rtol=1e-4, atol=1e-6)
        first, second = (torch.stack([by_hand(grid, level, half, band) for band in range(BANDS)]) for half in range(2))
        inner = first @ second.T
        torch.testing.assert_close(found.bands[level], (inner + inner.T) / 2, rtol=1e-3, atol=1e-6)


def test_the_bands_parts_sum_to_the_gradient() -> None:
    the = plain_task()
    found = level_gradients(the, make_grid(the), dict(the.denoiser.named_parameters()))
    torch.testing.assert_close(found.bands.sum((1, 2)), found.inner.diagonal(), rtol=1e-3, atol=1e-6)


def test_chunks_change_nothing_and_nothing_is_left_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    import adapt.validate as module

    the = fera_task()
    parameters = learned(the.denoiser)
    for value in parameters.values():
        value.requires_grad_(False)
    whole = level_gradients(the, make_grid(the), parameters)
    assert not any(value.requires_grad or value.grad is not None for value in parameters.values())
    monkeypatch.setattr(module, "CHUNK", 3)
    parts = level_gradients(the, make_grid(the), parameters)
    torch.testing.assert_close(parts.halves, whole.halves, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(parts.energy, whole.energy)


def test_agreement_is_that_of_the_true_gradients_where_noise_hides_it() -> None:
    """Levels 0 and 1 ask for the same, 2 for the opposite, 3 for something else; noise is as large as what is asked."""
    draw = torch.Generator().manual_seed(0)
    size = 200_000
    one, other = torch.randn(2, size, generator=draw)
    true = torch.stack([one, one, -one, other])
    noisy = true + 2 * torch.randn(2, 4, size, generator=draw)
    found = LevelGradients(torch.zeros(4, 1), noisy, torch.zeros(4, 1, 1))
    expected = torch.tensor([[1.0, 1, -1, 0], [1, 1, -1, 0], [-1, -1, 1, 0], [0, 0, 0, 1]])
    torch.testing.assert_close(cosines(found.inner), expected, atol=0.05, rtol=0)
    seen = cosines(found.whole @ found.whole.T)
    assert 0.3 < float(seen[0, 1]) < 0.4  # 1 / (1 + 4 / 2): what noise leaves of a cosine of one


def test_cosines_are_numpys_and_unknown_without_length() -> None:
    vectors = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
    vectors[2] = 0
    found = cosines(vectors @ vectors.T)
    a, b = vectors[:2].numpy()
    assert float(found[0, 1]) == pytest.approx(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)), rel=1e-5)
    assert found[2].isnan().all()
    assert cosines(torch.tensor([[-1.0, 0.2], [0.2, 1.0]]))[0].isnan().all()  # an estimate may fall below zero


def test_the_gradient_of_an_expert_is_that_of_its_own_factors() -> None:
    the = fera_task()
    parameters = learned(the.denoiser)
    assert not [name for name in parameters if name.startswith("fera.")]
    whole = level_gradients(the, make_grid(the), parameters).whole
    found = norms_of_experts(whole, owners(the.denoiser, parameters), EXPERTS)
    sizes = [value.numel() for value in parameters.values()]
    named = dict(zip(parameters, whole.split(sizes, 1), strict=True))
    A = named["mix.fera_A.default"].reshape(-1, EXPERTS, 4, 4)
    B = named["mix.fera_B.default"].reshape(-1, 4, EXPERTS, 4)
    expected = (A.square().sum((2, 3)) + B.square().sum((1, 3))).sqrt()
    torch.testing.assert_close(found, expected)


def test_an_expert_whose_gate_is_zero_has_no_gradient() -> None:
    from adapt.fera.ablation import switched_off

    the = fera_task()
    parameters = learned(the.denoiser)
    with switched_off(the.denoiser, 1):
        whole = level_gradients(the, make_grid(the), parameters).whole
    found = norms_of_experts(whole, owners(the.denoiser, parameters), EXPERTS)
    assert torch.equal(found[:, 1], torch.zeros(3))
    assert (found[:, [0, 2]] > 0).all()


def test_the_shared_part_belongs_to_no_expert() -> None:
    the = fera_task(shared_rank=2)
    owner = owners(the.denoiser, learned(the.denoiser))
    assert (owner == -1).sum() == 2 * 4 + 4 * 2
    assert all((owner == expert).sum() == 2 * 4 * 4 for expert in range(EXPERTS))


def test_one_picture_alone_cannot_be_halved() -> None:
    from dataclasses import replace
    from typing import Any, cast

    the = plain_task()
    the = replace(the, heldout=cast(Any, data(1)))
    with pytest.raises(UserError, match="only one"):
        level_gradients(the, make_grid(the), dict(the.denoiser.named_parameters()))
