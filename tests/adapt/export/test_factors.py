"""Factors of a rank are the nearest ones, and have the shapes of a LoRA."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from adapt.export.factors import truncated

LAYERS: dict[str, nn.Module] = {
    "linear": nn.Linear(7, 5),
    "conv": nn.Conv2d(3, 6, (3, 2)),
    "pointwise": nn.Conv2d(4, 4, 1),
}


@pytest.mark.parametrize("kind", list(LAYERS))
@given(rank=st.integers(1, 9), seed=st.integers(0, 99))
def test_what_is_cut_away_is_what_the_smaller_singular_values_hold(kind: str, rank: int, seed: int) -> None:
    """Eckart and Young: the squared distance is the sum of the squares of the singular values left out."""
    layer = LAYERS[kind]
    weight: torch.Tensor = next(layer.parameters())
    delta = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    found = truncated(delta, layer, rank)
    left = torch.linalg.svdvals(delta.flatten(1))[rank:]
    assert float((found.delta - delta.flatten(1)).square().sum()) == pytest.approx(float(left.square().sum()), abs=1e-4)
    assert found.rank <= rank
    assert found.down.shape[1:] == weight.shape[1:]
    assert found.up.shape == (weight.shape[0], found.rank, *(1,) * (weight.ndim - 2))


def test_ranks_that_hold_rounding_only_are_cut() -> None:
    delta = torch.outer(torch.arange(1.0, 6), torch.arange(1.0, 8))
    assert truncated(delta, LAYERS["linear"], 5).rank == 1
    assert truncated(torch.zeros(5, 7), LAYERS["linear"], 5).rank == 1


def test_the_layer_computes_with_the_factors_what_it_computes_with_the_update() -> None:
    layer = nn.Conv2d(3, 6, 3, stride=2, padding=1)
    delta, x = torch.randn(6, 3, 3, 3), torch.randn(2, 3, 8, 8)
    found = truncated(delta, layer, 6)
    hidden = nn.functional.conv2d(x, found.down, stride=2, padding=1)
    expected = nn.functional.conv2d(x, delta, stride=2, padding=1)
    torch.testing.assert_close(nn.functional.conv2d(hidden, found.up), expected, rtol=1e-4, atol=1e-4)
