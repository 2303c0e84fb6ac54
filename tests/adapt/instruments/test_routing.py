"""What gates follow and what they are worth, where the answer is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from adapt.fera import gates_of
from adapt.fera.ablation import edited_gates
from adapt.instruments import effect_cosines, routing, variance_split, worth_of_gates
from adapt.validate import cells_of, make_grid, validate
from spectra.errors import UserError
from tests.adapt.instruments.linear import EXPERTS, fera_task, plain_task


def test_what_follows_the_level_alone_is_a_clock() -> None:
    values = torch.arange(5.0)[:, None, None].expand(5, 4, 3)
    level, picture, draw = variance_split(values).tolist()
    assert (picture, draw) == (0, 0)
    assert level == pytest.approx(torch.arange(5.0).var().item())


def test_components_of_variance_are_recovered() -> None:
    """x = level + picture within level + draw, of variances 4, 1 and 0.25."""
    draw = torch.Generator().manual_seed(0)
    shape = (400, 30, 4)
    values = (
        2 * torch.randn(shape[0], 1, 1, generator=draw)
        + torch.randn(*shape[:2], 1, generator=draw)
        + 0.5 * torch.randn(shape, generator=draw)
    )
    found = variance_split(values[..., None])
    assert found.shape == (3, 1)
    torch.testing.assert_close(found[:, 0], torch.tensor([4.0, 1.0, 0.25]).double(), rtol=0.15, atol=0)


def test_noise_alone_is_given_to_nothing_else() -> None:
    """Means of few draws differ by chance, which the mean squares take into account."""
    values = torch.randn(200, 20, 2, generator=torch.Generator().manual_seed(1))
    level, picture, draw = variance_split(values).tolist()
    assert draw == pytest.approx(1, rel=0.05)
    assert level < 0.01
    assert picture < 0.05


def test_one_draw_cannot_be_split() -> None:
    with pytest.raises(UserError, match="two or more levels, pictures and draws"):
        variance_split(torch.zeros(3, 3, 1))


def test_features_and_gates_are_those_of_the_cells() -> None:
    the = fera_task()
    grid = make_grid(the)
    found = routing(the, grid)
    assert found.features is not None
    reader = the.denoiser.fera.reading["default"]
    with torch.no_grad():
        for cells in cells_of(the, grid):
            cells.answer(the)
            torch.testing.assert_close(found.gates[cells.where], gates_of(the.denoiser))
            torch.testing.assert_close(found.features[cells.where], reader(cells.noisy, cells.timestep))
    assert not the.denoiser.fera._forward_pre_hooks


def test_uniform_gates_read_nothing() -> None:
    the = fera_task(gates="uniform")
    found = routing(the, make_grid(the))
    assert found.features is None
    assert torch.equal(found.gates, torch.ones(3, 4, 2, EXPERTS))


def test_a_clocks_gates_are_all_of_the_levels() -> None:
    the = fera_task(features=("log_snr",), noise_schedule={"kind": "flow", "steps": 1000}, scales=(0.8, 1.6))
    grid = make_grid(the)
    gates = routing(the, grid).gates
    share = variance_split(gates)
    assert (share[0] > 1e6 * share[1:].sum(0)).all()
    worth = worth_of_gates(the, grid, gates)
    torch.testing.assert_close(worth[1], worth[0])
    torch.testing.assert_close(worth[2], worth[0])


def test_the_worth_of_gates_is_the_error_with_other_ones_in_their_place() -> None:
    the = fera_task()
    grid = make_grid(the)
    gates = routing(the, grid).gates
    own, mean, other, uniform = worth_of_gates(the, grid, gates)
    torch.testing.assert_close(own, validate(the, grid).error.mean(2))
    with edited_gates(the.denoiser, torch.ones_like):
        torch.testing.assert_close(uniform, validate(the, grid).error.mean(2))
    for table, found in ((gates.mean((1, 2), keepdim=True).expand_as(gates), mean), (gates.roll(1, 1), other)):
        with torch.no_grad():
            for cells in cells_of(the, grid):

                def put(_: Tensor, table: Tensor = table, cells: Any = cells) -> Tensor:
                    return table[cells.where]

                with edited_gates(the.denoiser, put):
                    error = (cells.answer(the) - cells.target).square().flatten(1).mean(1)
                by_cell = torch.zeros(grid.shape)
                by_cell[cells.where] = error
        torch.testing.assert_close(found, by_cell.mean(2))


def test_experts_that_are_copies_do_the_same_and_opposites_the_opposite() -> None:
    the = fera_task(gates="uniform")
    layer = the.denoiser.mix
    with torch.no_grad():
        A, B = layer.fera_A["default"], layer.fera_B["default"]
        A[4:8], A[8:] = A[:4], A[:4]
        B[:, 4:8], B[:, 8:] = B[:, :4], -B[:, :4]
    found = effect_cosines(the, make_grid(the))
    expected = torch.tensor([[1.0, 1, -1], [1, 1, -1], [-1, -1, 1]]).double().expand(3, 3, 3)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_without_a_router_there_is_nothing_to_look_at() -> None:
    the = plain_task()
    for look in (routing, effect_cosines):
        with pytest.raises(UserError, match="no FeRA adapter"):
            look(the, make_grid(the))
