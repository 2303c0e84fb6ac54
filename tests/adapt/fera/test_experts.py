"""The kinds of experts on one layer: with uniform gates each is PEFT's own method."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import IA3Config, LoHaConfig, LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from adapt.fera import FeraConfig, FeraConv2d, FeraLinear, GateCell
from adapt.fera.experts import EXPERTS, check_experts, direction_norm, rank_factors
from adapt.fera.layer import FeraProjection
from spectra.errors import UserError

BASES = {
    "linear": (lambda: nn.Linear(10, 6), (3, 5, 10)),
    "linear without bias": (lambda: nn.Linear(10, 6, bias=False), (3, 10)),
    "conv": (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1), (3, 4, 9, 9)),
    "conv without bias": (lambda: nn.Conv2d(4, 6, 1, bias=False), (3, 4, 8, 8)),
}
M, RANK = 3, 2
GATES = torch.tensor([[3.0, 0, 0], [0, 1.5, 1.5], [0.2, 0.3, 2.5]])


@pytest.fixture(params=BASES)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    build, shape = BASES[request.param]
    return build(), torch.randn(shape)


def wrap(base: nn.Module, expert: str, gates: Tensor | None = GATES, **settings: Any) -> FeraProjection:
    """A layer whose adapter has an update, and whose cell holds these gates."""
    torch.manual_seed(1)
    layer = (FeraLinear if isinstance(base, nn.Linear) else FeraConv2d)(base, GateCell())
    layer.update_layer("default", FeraConfig(r=RANK, expert=expert, target_modules=["0"], **settings))
    for part in (layer.fera_B, layer.fera_C, layer.fera_vectors, layer.fera_magnitude):
        for value in part.values():
            value.data += torch.randn(value.shape) * 0.3
    layer.cell.gates = None if gates is None else {"default": gates}
    return layer


def pefts_own(base: nn.Module, layer: FeraProjection, expert: str, alpha: float) -> Any:
    """PEFT's layer of the method that this kind generalises, with the same tensors."""
    if expert == "ia3":
        made = inject_adapter_in_model(
            IA3Config(target_modules=["0"], feedforward_modules=[]), nn.Sequential(copy.deepcopy(base))
        )[0]
        vector = made.ia3_l["default"]
        vector.data.copy_((1 + layer.scaling["default"] * layer.fera_vectors["default"].sum(0)).view(vector.shape))
        return made
    A, B = layer.fera_A["default"], layer.fera_B["default"]
    if expert == "loha":
        made = inject_adapter_in_model(
            LoHaConfig(r=len(A), alpha=alpha, target_modules=["0"]), nn.Sequential(copy.deepcopy(base))
        )[0]
        for mine, w in ((B, "w1_a"), (A, "w1_b"), (layer.fera_D["default"], "w2_a"), (layer.fera_C["default"], "w2_b")):
            getattr(made, f"hada_{w}")["default"].data.copy_(mine.flatten(1))
        return made
    config = LoraConfig(r=len(A), lora_alpha=alpha, target_modules=["0"], use_dora=expert == "dora")
    made = inject_adapter_in_model(config, nn.Sequential(copy.deepcopy(base)))[0]
    made.lora_A["default"].weight.data.copy_(A)
    made.lora_B["default"].weight.data.copy_(B)
    if expert == "dora":
        magnitude = made.lora_magnitude_vector["default"].weight
        magnitude.data.copy_(layer.fera_magnitude["default"].view(magnitude.shape))
    return made


def down(base: nn.Module, x: Tensor, A: Tensor) -> Tensor:
    if isinstance(base, nn.Conv2d):
        return nn.functional.conv2d(x, A, None, base.stride, base.padding)
    return x @ A.T


def channels_last(y: Tensor) -> Tensor:
    return y.movedim(1, -1) if y.ndim == 4 else y


@pytest.mark.parametrize("shared", [0, 3])
@pytest.mark.parametrize("alpha", [None, 1.5])
@pytest.mark.parametrize("expert", EXPERTS)
def test_uniform_gates_are_pefts_own_method(
    case: tuple[nn.Module, Tensor], expert: str, alpha: float | None, shared: int
) -> None:
    base, x = case
    layer = wrap(base, expert, torch.ones(3, M), alpha=alpha, shared_rank=shared)
    theirs = pefts_own(base, layer, expert, RANK * M + shared if alpha is None else alpha)
    torch.testing.assert_close(layer(x), theirs(x), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(layer(x), base(x), atol=1e-2)


@pytest.mark.parametrize("expert", ["lora", "dora"])
def test_uniform_gates_have_the_gradients_of_pefts_own_method(case: tuple[nn.Module, Tensor], expert: str) -> None:
    base, x = case
    layer = wrap(base, expert, torch.ones(3, M))
    theirs = pefts_own(base, layer, expert, RANK * M)
    for module in (layer, theirs):
        module(x).square().sum().backward()
    pairs = [
        (layer.fera_A["default"], theirs.lora_A["default"].weight),
        (layer.fera_B["default"], theirs.lora_B["default"].weight),
    ]
    if expert == "dora":
        pairs.append((layer.fera_magnitude["default"], theirs.lora_magnitude_vector["default"].weight))
    for ours, other in pairs:
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad.flatten(), other.grad.flatten(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("expert", EXPERTS)
def test_a_fresh_layer_is_the_base_whatever_the_gates(case: tuple[nn.Module, Tensor], expert: str) -> None:
    base, x = case
    layer = (FeraLinear if isinstance(base, nn.Linear) else FeraConv2d)(base, GateCell())
    layer.update_layer("default", FeraConfig(expert=expert, target_modules=["0"], shared_rank=2))
    layer.cell.gates = {"default": GATES}
    assert torch.equal(layer(x), base(x))


def test_scaling_experts_follow_the_formula(case: tuple[nn.Module, Tensor]) -> None:
    base, x = case
    layer = wrap(base, "ia3", alpha=3.0, shared_rank=5)  # one shared vector, whatever the rank
    L = layer.fera_vectors["default"]
    assert L.shape == (M + 1, 6)
    factor = 1 + 3.0 / 11 * (GATES @ L[:M] + L[M])
    y = base(x)
    expected = y * factor.view(3, 6, *(1,) * 2) if y.ndim == 4 else y * factor.view(3, *(1,) * (y.ndim - 2), 6)
    torch.testing.assert_close(layer(x), expected)


def test_the_direction_of_dora_turns_with_the_gates_and_its_norm_does_not(case: tuple[nn.Module, Tensor]) -> None:
    base, x = case
    layer = wrap(base, "dora", alpha=2.0)
    A, B, m = (getattr(layer, part)["default"].double() for part in ("fera_A", "fera_B", "fera_magnitude"))
    base, x, s = base.double(), x.double(), 2.0 / (RANK * M)
    W = base.weight.flatten(1)
    norm = (W + s * B.flatten(1) @ A.flatten(1)).norm(dim=1)
    turned = channels_last(down(base, x, A)) * GATES.double().repeat_interleave(RANK, 1).view(
        3, *(1,) * (x.ndim - 2), -1
    )
    product = channels_last(down(base, x, base.weight))
    expected = m / norm * (product + s * turned @ B.flatten(1).T)
    expected = expected if base.bias is None else expected + base.bias
    base.float()
    torch.testing.assert_close(channels_last(layer(x.float())), expected.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("expert", ["lora", "dora"])
def test_what_is_shared_is_on_whatever_the_gates(case: tuple[nn.Module, Tensor], expert: str) -> None:
    base, x = case
    layer = wrap(base, expert, torch.zeros(3, M), shared_rank=2)
    silent = layer(x)
    with torch.no_grad():
        layer.fera_B["default"][:, : M * RANK] = 0  # the experts' own columns: gates of one then add nothing
    layer.cell.gates = {"default": torch.ones(3, M)}
    if expert == "lora":
        torch.testing.assert_close(layer(x), silent)
    assert not torch.allclose(layer(x), base(x), atol=1e-3)


def test_factors_belong_to_experts_in_turn_and_then_to_the_shared_part() -> None:
    factors = rank_factors(torch.tensor([[0.5, 2.5]]), 2, 3)
    assert factors.tolist() == [[0.5, 0.5, 2.5, 2.5, 1, 1, 1]]


@pytest.mark.parametrize("expert", EXPERTS)
def test_gradients_reach_every_tensor_and_the_gates(case: tuple[nn.Module, Tensor], expert: str) -> None:
    base, x = case
    gates = GATES.clone().requires_grad_()
    layer = wrap(base, expert, gates, shared_rank=1)
    layer(x).square().sum().backward()
    tensors = [p for name, p in layer.named_parameters() if "base_layer" not in name]
    assert len(tensors) == {"lora": 2, "dora": 3, "ia3": 1, "loha": 4}[expert]
    for tensor in (*tensors, gates):
        assert tensor.grad is not None
        assert tensor.grad.abs().max() > 0


@pytest.mark.parametrize("expert", EXPERTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_nothing_of_the_size_of_an_activation_is_kept_in_float32(
    case: tuple[nn.Module, Tensor], expert: str, dtype: torch.dtype
) -> None:
    """Masters are float32, products are in the type of the input, which is never cast."""
    base, x = case
    layer = wrap(base.to(dtype), expert)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = layer(x.to(dtype))
    assert y.dtype == dtype
    assert kept
    largest = max(value.numel() for value in layer.parameters())
    assert all(t.dtype == dtype for t in kept if t.numel() > largest)
    y.float().sum().backward()
    for name, tensor in layer.named_parameters():
        if "base_layer" not in name:
            assert tensor.dtype == tensor.grad.dtype == torch.float32, name


@pytest.mark.parametrize("expert", EXPERTS)
def test_a_weight_scales_the_update_and_zero_removes_it(case: tuple[nn.Module, Tensor], expert: str) -> None:
    base, x = case
    layer = wrap(base, expert, alpha=3.0)
    update = layer(x) - base(x)
    layer.set_scale("default", 0.5)
    torch.testing.assert_close(layer(x), base(x) + 0.5 * update, rtol=1e-4, atol=1e-5)
    layer.set_scale("default", 0.0)
    assert torch.equal(layer(x), base(x))


@pytest.mark.parametrize("expert", EXPERTS)
def test_two_adapters_of_different_kinds_add_up(case: tuple[nn.Module, Tensor], expert: str) -> None:
    base, x = case
    layer = wrap(base, expert)
    layer.update_layer("other", FeraConfig(r=1, num_experts=2, target_modules=["0"]))
    nn.init.normal_(layer.fera_B["other"])
    layer.cell.gates = {"default": GATES, "other": torch.rand(3, 2)}
    alone = []
    for name in ("default", "other"):
        layer.set_adapter(name)
        alone.append(layer(x) - base(x))
    layer.set_adapter(["default", "other"])
    torch.testing.assert_close(layer(x), base(x) + alone[0] + alone[1], rtol=1e-4, atol=1e-5)
    layer.delete_adapter("other")
    layer.set_adapter("default")
    torch.testing.assert_close(layer(x), base(x) + alone[0], rtol=1e-4, atol=1e-5)
    assert list(layer.kinds) == list(layer.shared_rank) == ["default"]


@pytest.mark.parametrize("shape", [(6, 10), (6, 4, 3, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_of_the_direction_are_those_of_the_whole_matrix(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    W = torch.randn(shape).to(dtype)
    A, B = torch.randn(5, *shape[1:]), torch.randn(6, 5, *(1,) * (len(shape) - 2))
    direct = (W.double().flatten(1) + 0.7 * B.double().flatten(1) @ A.double().flatten(1)).norm(dim=1)
    torch.testing.assert_close(
        direction_norm(W, A, B, 0.7).double(), direct, rtol=1e-5 if dtype == torch.float32 else 2e-2, atol=0
    )
    start = direction_norm(W, A, torch.zeros_like(B), 0.7)
    torch.testing.assert_close(start, W.float().flatten(1).norm(dim=1))
    assert not start.requires_grad


def test_a_direction_of_no_length_has_a_finite_norm() -> None:
    assert direction_norm(torch.zeros(2, 3), torch.zeros(1, 3), torch.zeros(2, 1), 1.0).min() > 0


def test_a_setting_without_effect_is_refused() -> None:
    with pytest.raises(UserError, match="'ia3' have no dropout"):
        check_experts(FeraConfig(target_modules=["0"], expert="ia3", dropout=0.1))
