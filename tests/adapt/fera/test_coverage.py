"""What an adapter reaches, counted."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from adapt.fera import FeraConfig, coverage, gates_of
from adapt.fera.experts import EXPERTS
from tests.adapt.fera.conftest import adapted, arguments, fera_parameters, run


def queries(model: nn.Module) -> list[nn.Linear]:
    return [m for name, m in model.named_modules() if name.endswith("to_q") and isinstance(m, nn.Linear)]


def test_modules_and_parameters_are_those_of_the_base(unet: nn.Module) -> None:
    every = [m for m in unet.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    total = sum(p.numel() for p in unet.parameters())
    weights = sum(p.numel() for m in queries(unet) for p in m.parameters())
    modules = len(queries(unet))
    assert coverage(unet)[:5] == (0, 0, len(every), total, 0)
    adapted(unet, target_modules=["to_q"])
    found = coverage(unet)
    added = sum(p.numel() for p in fera_parameters(unet).values())
    assert found[:5] == (modules, weights, len(every), total, added)
    assert f"{modules} of {len(every)}" in str(found)
    assert found.share == weights / total


@pytest.mark.parametrize("expert", EXPERTS)
def test_the_size_of_an_adapter_follows_from_its_kind(unet: nn.Module, expert: str) -> None:
    layers = [(m.in_features, m.out_features) for m in queries(unet)]
    adapted(unet, target_modules=["to_q"], expert=expert, r=2, shared_rank=1)
    router = sum(p.numel() for name, p in fera_parameters(unet).items() if name.startswith("fera."))
    sizes = {
        "lora": lambda i, o: 7 * (i + o), "dora": lambda i, o: 7 * (i + o) + o, "loha": lambda i, o: 2 * 7 * (i + o),
        "ia3": lambda i, o: 4 * o,
    }  # fmt: skip
    assert coverage(unet).adapter_parameters == router + sum(sizes[expert](*shape) for shape in layers)


def test_the_table_has_a_row_for_every_pattern_and_one_for_all(unet: nn.Module) -> None:
    weights = sum(p.numel() for m in queries(unet) for p in m.parameters())
    adapted(unet, target_modules=["to_q", "conv_out"])
    out = sum(p.numel() for p in unet.conv_out.get_base_layer().parameters())
    assert coverage(unet).table() == [
        ("conv_out", 1, out),
        ("to_q", 8, weights),
        ("in all", 9, weights + out),
    ]


def test_little_coverage_is_warned_of(unet: nn.Module) -> None:
    assert "only" in coverage(adapted(copy.deepcopy(unet), target_modules=["to_q"])).warning
    assert coverage(adapted(unet)).warning == ""


def test_the_scale_of_adalora_is_what_its_layers_multiply_by(unet: nn.Module) -> None:
    from adapt.methods import METHODS
    from tests.adapt.methods.conftest import settings

    METHODS["adalora"].attach(unet, settings("adalora", rank=8, alpha=4.0), ["to_q"], None)
    assert "scale 0.5 (alpha 6 / rank 12)" in str(coverage(unet))


def test_the_effective_scale_is_shown(unet: nn.Module) -> None:
    adapted(unet, alpha=3.0, r=2, shared_rank=1)
    assert "default: scale 0.428571 (alpha 3 / rank 7)" in str(coverage(unet))


def test_of_peft_adapters_too(unet: nn.Module) -> None:
    inject_adapter_in_model(LoraConfig(r=4, lora_alpha=2, target_modules=["to_q"]), unet)
    found = coverage(unet)
    assert (found.modules, found.scales[0][:4]) == (8, ("default", 0.5, 2.0, 4))
    assert found.patterns[0].modules == 8


@pytest.mark.parametrize("method", ["fera", "lora"])
@pytest.mark.parametrize("meta", [False, True])
def test_the_share_of_arithmetic_is_that_of_the_base_layers(unet: nn.Module, method: str, meta: bool) -> None:
    call = arguments(unet)
    if meta:
        unet, call = unet.to("meta"), {name: value.to("meta") for name, value in call.items()}
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        unet(**call)
    total = counter.get_total_flops()
    latent = 2 * 16 * 16  # rows of the queries, at the resolutions of the layers
    rows = {name: latent if "mid" not in name else latent // 4 for name, _ in unet.named_modules() if "to_q" in name}
    reached = sum(2 * rows[name] * m.in_features * m.out_features for name, m in unet.named_modules() if name in rows)
    config = FeraConfig if method == "fera" else LoraConfig
    inject_adapter_in_model(config(r=2, target_modules=["to_q"]), unet)
    assert coverage(unet).flops is None
    share = coverage(unet, lambda: unet(**call)).flops
    assert share == pytest.approx(reached / total, rel=1e-6)


def test_counting_leaves_the_model_as_it_was(unet: nn.Module) -> None:
    adapted(unet)
    before = run(unet)
    gates = gates_of(unet)
    coverage(unet, lambda: unet(**arguments(unet)))
    assert gates_of(unet) is gates
    assert torch.equal(run(unet), before)
