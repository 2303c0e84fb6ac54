from __future__ import annotations

import copy
import pickle

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from adapt.fera import FeraConfig, FeraConv2d, FeraLinear, GateCell
from adapt.fera.layer import FeraProjection
from spectra.errors import UserError

BASES = {
    "linear": (lambda: nn.Linear(10, 6), (3, 5, 10)),
    "linear on rows": (lambda: nn.Linear(10, 6, bias=False), (3, 10)),
    "conv 3x3": (lambda: nn.Conv2d(4, 6, 3, padding=1), (3, 4, 8, 8)),
    "conv strided": (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1), (3, 4, 9, 9)),
    "conv strided without padding": (lambda: nn.Conv2d(4, 6, 3, stride=2), (3, 4, 9, 9)),
    "conv 1x1": (lambda: nn.Conv2d(4, 6, 1), (3, 4, 8, 8)),
    "conv 2x2 stride 2": (lambda: nn.Conv2d(4, 6, 2, stride=2), (3, 4, 8, 8)),
}
EXPERTS, RANK = 3, 2


def wrap(base: nn.Module, name: str = "default", seed: int = 1, **settings: float) -> FeraProjection:
    torch.manual_seed(seed)
    kind = FeraLinear if isinstance(base, nn.Linear) else FeraConv2d
    layer = kind(base, GateCell())
    layer.update_layer(name, FeraConfig(r=RANK, num_experts=EXPERTS, target_modules=["0"], **settings))
    nn.init.normal_(layer.fera_B[name])
    return layer


def peft_lora(base: nn.Module, A: Tensor, B: Tensor, alpha: float) -> nn.Module:
    """PEFT's own LoRA layer with these factors."""
    config = LoraConfig(r=A.shape[0], lora_alpha=alpha, target_modules=["0"], init_lora_weights=False)
    layer = inject_adapter_in_model(config, nn.Sequential(copy.deepcopy(base)))[0]
    layer.lora_A["default"].weight.data.copy_(A)
    layer.lora_B["default"].weight.data.copy_(B)
    return layer


@pytest.fixture(params=BASES)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    build, shape = BASES[request.param]
    return build(), torch.randn(shape)


@pytest.mark.parametrize("alpha", [6.0, 1.5])
def test_uniform_gates_are_lora_of_the_total_rank(case: tuple[nn.Module, Tensor], alpha: float) -> None:
    base, x = case
    layer = wrap(base, alpha=alpha)
    layer.cell.gates = {"default": torch.ones(3, EXPERTS)}
    lora = peft_lora(base, layer.fera_A["default"], layer.fera_B["default"], alpha)
    torch.testing.assert_close(layer(x), lora(x), rtol=1e-5, atol=1e-5)


def test_each_sample_gets_its_own_mixture_of_the_experts(case: tuple[nn.Module, Tensor]) -> None:
    base, x = case
    layer = wrap(base)
    gates = torch.tensor([[3.0, 0, 0], [0, 1.5, 1.5], [0.2, 0.3, 2.5]])
    layer.cell.gates = {"default": gates}
    A, B = layer.fera_A["default"], layer.fera_B["default"]
    rows = [slice(m * RANK, (m + 1) * RANK) for m in range(EXPERTS)]
    experts = [peft_lora(base, A[s], B[:, s], RANK)(x) - base(x) for s in rows]
    mixed = base(x) + sum(g.view(3, *(1,) * (x.ndim - 1)) * y for g, y in zip(gates.T, experts, strict=True))
    torch.testing.assert_close(layer(x), mixed, rtol=1e-5, atol=1e-5)


def test_an_empty_cell_is_the_base(case: tuple[nn.Module, Tensor]) -> None:
    base, x = case
    assert torch.equal(wrap(base)(x), base(x))


def test_a_fresh_layer_is_the_base_whatever_the_gates(case: tuple[nn.Module, Tensor]) -> None:
    base, x = case
    layer = wrap(base)
    nn.init.zeros_(layer.fera_B["default"])
    layer.cell.gates = {"default": torch.rand(3, EXPERTS)}
    assert torch.equal(layer(x), base(x))


def test_gradients_reach_both_factors_and_the_gates(case: tuple[nn.Module, Tensor]) -> None:
    base, x = case
    layer, gates = wrap(base), torch.rand(3, EXPERTS, requires_grad=True)
    layer.cell.gates = {"default": gates}
    layer(x).square().sum().backward()
    for tensor in (layer.fera_A["default"], layer.fera_B["default"], gates):
        assert tensor.grad is not None
        assert tensor.grad.abs().min() > 0


def test_masters_stay_float32_and_the_input_is_never_cast(case: tuple[nn.Module, Tensor]) -> None:
    base, x = case
    layer = wrap(base.to(torch.bfloat16))
    layer.cell.gates = {"default": torch.ones(3, EXPERTS)}
    seen: list[torch.dtype] = []
    saved = torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(t.dtype) or t, lambda t: t)
    with saved:
        y = layer(x.bfloat16())
    assert y.dtype == torch.bfloat16
    assert set(seen) == {torch.bfloat16}  # a cast input would be kept for the backward pass, twice as large
    y.sum().backward()
    assert {p.dtype for p in (layer.fera_A["default"], layer.fera_B["default"])} == {torch.float32}
    assert layer.fera_A["default"].grad.dtype == torch.float32


def test_autocast_decides_the_type_of_the_products() -> None:
    layer, x = wrap(nn.Linear(10, 6)), torch.randn(3, 10)
    layer.cell.gates = {"default": torch.ones(3, EXPERTS)}
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x), rtol=0.05, atol=0.05)


def test_rows_folded_into_the_batch_share_the_gates_of_their_sample() -> None:
    layer, x = wrap(nn.Linear(10, 6)), torch.randn(6, 5, 10)
    gates = torch.rand(3, EXPERTS)
    layer.cell.gates = {"default": gates}
    folded = layer(x)
    layer.cell.gates = {"default": gates.repeat_interleave(2, 0)}
    assert torch.equal(folded, layer(x))


@pytest.mark.parametrize("rows", [1, 4])
def test_rows_that_belong_to_no_sample_are_refused(rows: int) -> None:
    layer = wrap(nn.Linear(10, 6))
    layer.cell.gates = {"default": torch.ones(3, EXPERTS)}
    with pytest.raises(UserError, match="batch size"):
        layer(torch.randn(rows, 10))


def test_two_active_adapters_add_up() -> None:
    base, x = nn.Linear(10, 6), torch.randn(3, 10)
    layer = wrap(base, "one")
    layer.update_layer("two", FeraConfig(r=1, num_experts=2, target_modules=["0"]))
    nn.init.normal_(layer.fera_B["two"])
    layer.cell.gates = {"one": torch.rand(3, EXPERTS), "two": torch.rand(3, 2)}
    alone = []
    for name in ("one", "two"):
        layer.set_adapter(name)
        alone.append(layer(x) - base(x))
    layer.set_adapter(["one", "two"])
    torch.testing.assert_close(layer(x), base(x) + alone[0] + alone[1])


def test_dropout_follows_the_mode_of_the_wrapped_layer() -> None:
    base, x = nn.Linear(10, 6).eval(), torch.randn(3, 10)
    layer = wrap(base, dropout=0.5)
    layer.cell.gates = {"default": torch.ones(3, EXPERTS)}
    assert torch.equal(layer(x), layer(x))
    layer.train()
    assert not torch.equal(layer(x), layer(x))


def test_scales_multiply_the_update_and_can_be_taken_back() -> None:
    base, x = nn.Linear(10, 6), torch.randn(3, 10)
    layer = wrap(base, alpha=3.0)
    layer.cell.gates = {"default": torch.ones(3, EXPERTS)}
    update = layer(x) - base(x)
    layer.set_scale("default", 0.5)
    torch.testing.assert_close(layer(x), base(x) + 0.5 * update)
    layer.scale_layer(4.0)
    torch.testing.assert_close(layer(x), base(x) + 2.0 * update)
    layer.unscale_layer(4.0)
    layer.unscale_layer()
    torch.testing.assert_close(layer(x), base(x) + update)


def test_merging_is_refused_with_a_way_out() -> None:
    with pytest.raises(UserError, match=r"adapt\.unload"):
        wrap(nn.Linear(10, 6)).merge()


def test_a_copied_or_pickled_cell_is_empty_and_still_shared() -> None:
    pair = [wrap(nn.Linear(10, 6)), wrap(nn.Linear(10, 6))]
    pair[1].cell = pair[0].cell
    pair[0].cell.gates = {"default": torch.ones(3, EXPERTS, requires_grad=True) * 2}  # no leaf: torch cannot copy it
    for copied in (copy.deepcopy(pair), pickle.loads(pickle.dumps(pair))):
        assert copied[0].cell is copied[1].cell
        assert copied[0].cell is not pair[0].cell
        assert copied[0].cell.gates is None
