"""Updates of weights: ranks and norms are those of the whole matrices, which are never made."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adapt.fera import FeraConfig
from adapt.instruments import Factors, effective_rank, experts_of, inner_products, mixed
from tests.adapt.fera.conftest import adapted, targets
from tests.adapt.instruments.linear import EXPERTS


def drawn(rank: int, out: int, inside: int, seed: int) -> Factors:
    draw = torch.Generator().manual_seed(seed)
    return Factors(
        torch.randn(rank, inside, generator=draw, dtype=torch.float64),
        torch.randn(out, rank, generator=draw, dtype=torch.float64),
    )


def whole(factors: Factors) -> Tensor:
    return factors.B @ factors.A


@pytest.mark.parametrize(("out", "inside"), [(9, 7), (7, 9), (2, 9)])
def test_singular_values_and_inner_products_are_those_of_the_whole_matrix(out: int, inside: int) -> None:
    one, other = drawn(3, out, inside, 0), drawn(4, out, inside, 1)
    expected = torch.linalg.svdvals(whole(one))
    found = one.singular_values()
    torch.testing.assert_close(found, expected[: len(found)])
    assert float(expected[len(found) :].sum()) < 1e-12
    torch.testing.assert_close(one.inner(other), (whole(one) * whole(other)).sum())


def test_effective_rank_counts_equal_directions_and_halves_what_fades() -> None:
    assert float(effective_rank(torch.tensor([3.0, 3.0, 3.0, 0.0]))) == pytest.approx(3)
    assert float(effective_rank(torch.tensor([5.0, 0.0]))) == pytest.approx(1)
    assert float(effective_rank(torch.zeros(3))) == 0
    share = torch.tensor([0.7, 0.2, 0.1])
    assert float(effective_rank(4 * share)) == pytest.approx(float((-(share * share.log()).sum()).exp()))
    assert effective_rank(torch.ones(2, 3, 5)).shape == (2, 3)


@pytest.mark.parametrize("expert", ["lora", "loha"])
@pytest.mark.parametrize("shared", [0, 2])
def test_the_mixture_is_the_weight_that_the_layer_applies(denoiser: nn.Module, shared: int, expert: str) -> None:
    """On every layer: what the layer adds to x is (B A) x of the mixture at its gates."""
    adapted(denoiser, shared_rank=shared, expert=expert)
    gates = torch.tensor([0.3, 1.2, 1.5])
    layers = experts_of(denoiser)
    assert len(layers) > 3
    for path, parts in layers.items():
        layer: Any = denoiser.get_submodule(path)
        assert len(parts) == EXPERTS + (shared > 0)
        update = whole(mixed(parts, gates)).float()
        x = torch.randn(layer.base_weight().shape[1:], generator=torch.Generator().manual_seed(0))
        if not isinstance(layer.base_layer, nn.Linear):
            continue
        with layer.cell.holding({"default": gates[None]}), torch.no_grad():
            added = layer(x[None]) - layer.base_layer(x[None])
        torch.testing.assert_close(added[0], update @ x, atol=1e-5, rtol=1e-4)


def test_uniform_gates_give_the_sum_of_the_experts(transformer: nn.Module) -> None:
    adapted(transformer)
    for parts in experts_of(transformer).values():
        torch.testing.assert_close(whole(mixed(parts, torch.ones(EXPERTS))), sum(whole(part) for part in parts))


def test_a_lora_has_one_update_in_each_layer(transformer: nn.Module) -> None:
    from peft import LoraConfig

    torch.manual_seed(0)
    model: Any = transformer
    model.add_adapter(LoraConfig(r=4, lora_alpha=8, target_modules=targets(transformer), init_lora_weights=False))
    layers = experts_of(transformer)
    assert layers
    for path, parts in layers.items():
        (part,) = parts
        layer: Any = transformer.get_submodule(path)
        expected = layer.get_delta_weight("default").flatten(1).double()
        torch.testing.assert_close(whole(part), expected, atol=1e-6, rtol=1e-4)


def test_what_adalora_prunes_is_no_part_of_its_update(transformer: nn.Module) -> None:
    from peft import AdaLoraConfig

    torch.manual_seed(0)
    model: Any = transformer
    model.add_adapter(
        AdaLoraConfig(init_r=6, target_r=4, total_step=10, target_modules=targets(transformer), init_lora_weights=False)
    )
    layers = experts_of(transformer)
    assert layers
    for path, (part,) in layers.items():
        layer: Any = transformer.get_submodule(path)
        layer.lora_E["default"].data[0] = 0
        (part,) = experts_of(transformer)[path]
        expected = layer.get_delta_weight("default").flatten(1).double()
        torch.testing.assert_close(whole(part), expected, atol=1e-6, rtol=1e-4)
        assert torch.linalg.matrix_rank(whole(part)) <= 5


def test_adapters_without_factors_have_no_updates(transformer: nn.Module) -> None:
    assert experts_of(transformer) == {}
    model: Any = transformer
    model.add_adapter(FeraConfig(expert="ia3", target_modules=targets(transformer)), "default")
    assert experts_of(transformer) == {}


def test_inner_products_of_networks_are_those_of_all_layers_together() -> None:
    layers = [[drawn(2, 5, 4, 0), drawn(2, 5, 4, 1)], [drawn(2, 3, 6, 2), drawn(2, 3, 6, 3)]]
    found = inner_products(layers)
    stacked = [torch.cat([whole(layer[i]).flatten() for layer in layers]) for i in range(2)]
    expected = torch.stack([torch.stack([one @ other for other in stacked]) for one in stacked])
    torch.testing.assert_close(found, expected)
