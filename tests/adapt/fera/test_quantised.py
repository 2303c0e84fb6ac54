"""Base layers whose weights are quantised: served where calling them suffices, else refused in one clear sentence."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from adapt.fera import FeraConfig
from adapt.fera.experts import EXPERTS
from adapt.fera.layer import layer_class, refusal
from spectra.errors import UserError
from tests.adapt.fera.test_experts import wrap


class Quantised(nn.Linear):
    """A layer as quantising packages make it: a subclass whose weight holds integers, and which computes in floats."""

    def __init__(self) -> None:
        super().__init__(10, 6)
        scale = self.weight.detach().abs().max() / 127
        self.scale = scale
        self.weight = nn.Parameter((self.weight.detach() / scale).round().to(torch.int8), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight.to(x.dtype) * self.scale, self.bias)


class KnownQuantised(Quantised):
    __module__ = "bitsandbytes.nn"


@pytest.mark.parametrize("expert", EXPERTS)
def test_an_unknown_quantised_layer_is_refused_by_name_and_class(expert: str) -> None:
    reason = refusal("blocks.0.to_q", Quantised(), expert)
    assert reason is not None
    assert "blocks.0.to_q of class Quantised, whose weight is int8" in reason
    assert reason.endswith("load the model in bf16, fp16 or fp32")


def test_a_known_quantised_layer_serves_the_kinds_that_only_call_it() -> None:
    base, x = KnownQuantised(), torch.randn(3, 10)
    for expert in ("lora", "ia3"):
        assert refusal("to_q", base, expert) is None
        layer = wrap(base, expert)
        assert not torch.allclose(layer(x), base(x))
        layer(x).sum().backward()
    reason = refusal("to_q", base, "dora")
    assert reason is not None
    assert "use expert='lora'" in reason


def test_the_output_layer_of_torchs_own_attention_is_no_target() -> None:
    """It is read by nn.MultiheadAttention, which never calls it: experts on it would do nothing."""
    assert layer_class(nn.MultiheadAttention(4, 2).out_proj) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_int8_weights_of_torchao_serve_the_kinds_that_only_call_the_base(dtype: torch.dtype) -> None:
    quantization = pytest.importorskip("torchao.quantization")
    base, x = nn.Sequential(nn.Linear(64, 32)).to(dtype), torch.randn(3, 64).to(dtype).requires_grad_()
    quantization.quantize_(base, quantization.Int8WeightOnlyConfig())
    assert refusal("0", base[0], "dora") is not None
    for expert in ("lora", "ia3"):
        assert refusal("0", base[0], expert) is None
        layer = wrap(base[0], expert)
        assert layer(x).dtype == dtype
        layer(x).float().sum().backward()
        assert x.grad is not None
        assert x.grad.abs().max() > 0


def test_a_model_with_an_unknown_quantised_layer_is_refused_before_it_changes(unet: nn.Module) -> None:
    unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q = Quantised()
    state = list(unet.state_dict())
    with pytest.raises(UserError, match=r"mid_block.*attn1\.to_q of class Quantised"):
        unet.add_adapter(FeraConfig(target_modules=["to_q"]))
    assert list(unet.state_dict()) == state
    assert not hasattr(unet, "fera")
