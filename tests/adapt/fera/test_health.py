from __future__ import annotations

import numpy as np
import pytest
import torch

from adapt.fera.health import balance, usage
from spectra.errors import UserError


def hard(levels: int, samples: int, experts: int) -> np.ndarray:
    """Each level has one expert to itself."""
    gates = np.zeros((levels, samples, experts))
    for level in range(levels):
        gates[level, :, level * experts // levels] = experts
    return gates


def test_even_gates_are_used_evenly_and_have_full_entropy() -> None:
    health = usage(np.ones((4, 5, 3)))
    np.testing.assert_array_equal(health.usage, np.ones((4, 3)))
    np.testing.assert_allclose(health.entropy, 1)
    assert health.dead == ()
    assert health.warning == ""


def test_experts_with_levels_of_their_own_have_no_entropy_and_are_alive() -> None:
    health = usage(torch.from_numpy(hard(6, 5, 3)))
    np.testing.assert_allclose(health.entropy, 0, atol=1e-9)
    np.testing.assert_allclose(health.usage.sum(0), 6)
    assert health.dead == ()


def test_entropy_is_that_of_each_sample_not_of_their_mean() -> None:
    """Samples that disagree use the experts evenly, and yet each is decided."""
    gates = 2 * np.eye(2)[None]
    health = usage(gates)
    np.testing.assert_allclose(health.usage, [[1, 1]])
    np.testing.assert_allclose(health.entropy, 0, atol=1e-9)


def test_an_expert_that_no_level_uses_is_dead_and_named() -> None:
    gates = np.stack([np.full((4, 5), 1.5), np.full((4, 5), 1.46), np.full((4, 5), 0.04)], -1)
    health = usage(gates)
    assert health.dead == (2,)
    assert "expert 2 (of 0 to 2) is hardly used" in health.warning
    gates[1] = 1.0  # one level suffices
    assert usage(gates).dead == ()


def test_two_dead_experts_are_named_together() -> None:
    gates = np.zeros((2, 3, 4))
    gates[..., :2] = 2
    assert "experts 2, 3 (of 0 to 3) are hardly used" in usage(gates).warning


def test_a_single_expert_is_healthy() -> None:
    health = usage(np.ones((2, 3, 1)))
    np.testing.assert_array_equal(health.entropy, [1, 1])
    assert health.dead == ()


@pytest.mark.parametrize("gates", [np.ones((3, 2)), np.ones((0, 2, 3)), np.full((2, 2, 2), 0.5), -np.ones((1, 1, 1))])
def test_what_are_no_gates_is_refused(gates: np.ndarray) -> None:
    with pytest.raises(UserError, match="gates are"):
        usage(gates)


def test_balance_is_zero_for_even_gates_and_for_levels_shared_out_evenly() -> None:
    quantile = (torch.arange(12) + 0.5) / 12
    assert balance(torch.ones(12, 3), quantile).item() == 0
    shared_out = torch.from_numpy(hard(12, 1, 3)[:, 0])
    assert balance(shared_out, quantile).item() == pytest.approx(0, abs=1e-12)


def test_balance_is_the_squared_distance_from_even_use() -> None:
    """All the weight on one of M experts: ((M - 1)^2 + (M - 1)) / M = M - 1."""
    gates = torch.zeros(5, 4)
    gates[:, 1] = 4
    assert balance(gates, torch.rand(5)).item() == pytest.approx(3)


def test_balance_counts_noise_levels_not_samples() -> None:
    """Three samples of one half of the range and one of the other, each half with its own expert."""
    gates = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    crowded = torch.tensor([0.1, 0.2, 0.25, 0.75])
    assert balance(gates, crowded).item() == pytest.approx(0, abs=1e-12)
    shuffle = torch.tensor([2, 0, 3, 1])
    assert balance(gates[shuffle], crowded[shuffle]).item() == pytest.approx(0, abs=1e-12)
    assert balance(gates, torch.full((4,), 0.5)).item() == pytest.approx(0.25)  # equal levels count alike


def test_its_gradient_moves_weight_to_the_expert_that_is_used_less() -> None:
    logits = torch.tensor([[1.0, 0.0]] * 6, requires_grad=True)
    gates = 2 * logits.softmax(-1)
    balance(gates, (torch.arange(6) + 0.5) / 6).backward()
    assert logits.grad is not None
    assert (logits.grad[:, 0] > 0).all()
    assert (logits.grad[:, 1] < 0).all()
    quantile, free = torch.tensor([0.1, 0.4, 0.5, 0.9]), torch.rand(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda g: balance(g, quantile), free)


def test_balance_refuses_quantiles_of_other_samples() -> None:
    with pytest.raises(UserError, match="a quantile each"):
        balance(torch.ones(3, 2), torch.rand(2))
