"""Every kind of experts on every kind of layer, from injection to unloading."""

from __future__ import annotations

import copy
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from adapt.fera import (
    FeraConfig,
    base_output,
    cell_of,
    checkpointing_function,
    coverage,
    gates_of,
    load_fera,
    save_fera,
    unload,
)
from adapt.fera.experts import EXPERTS
from adapt.fera.files import WEIGHTS_FILE
from spectra.errors import UserError
from tests.adapt.fera.conftest import adapted, arguments, fera_parameters, run
from tests.tiny import tiny_sd

LAYERS = {"Linear": ["to_q", "to_out.0", "ff.net.2"], "Conv2d": ["conv1", "conv_shortcut", "downsamplers.0.conv"]}
BLOCKS = ("BasicTransformerBlock", "ResnetBlock2D")

pytestmark = pytest.mark.parametrize("kind", list(product(EXPERTS, LAYERS)), ids="-".join)
Kind = tuple[str, str]


def settings(kind: Kind) -> dict[str, Any]:
    expert, layer = kind
    return {"expert": expert, "target_modules": LAYERS[layer], "r": 2, "shared_rank": 1}


def tensors(kind: Kind) -> set[str]:
    return {
        "lora": {"fera_A", "fera_B"},
        "dora": {"fera_A", "fera_B", "fera_magnitude"},
        "ia3": {"fera_vectors"},
        "loha": {"fera_A", "fera_B", "fera_C", "fera_D"},
    }[kind[0]]


def gradients(model: nn.Module, between: str = "nothing") -> dict[str, Tensor]:
    model.zero_grad()
    loss = run(model.train()).square().mean()
    if between == "another batch":
        run(model, seed=1)
    loss.backward()
    return {name: p.grad.clone() for name, p in fera_parameters(model).items() if p.grad is not None}


def test_injection_adds_its_tensors_alone_and_changes_nothing(unet: nn.Module, kind: Kind) -> None:
    before = run(unet)
    unet.add_adapter(FeraConfig(**settings(kind)))  # type: ignore[operator]
    assert torch.equal(run(unet), before)
    trainable = {name for name, p in unet.named_parameters() if p.requires_grad}
    assert trainable == set(fera_parameters(unet))
    parts = {name.split(".")[-2] for name in trainable if not name.startswith("fera.")}
    assert parts == tensors(kind)
    assert {p.dtype for p in fera_parameters(unet).values()} == {torch.float32}
    assert all("lora" not in name for name in trainable)


def test_training_lowers_a_loss_and_leaves_the_base(unet: nn.Module, kind: Kind) -> None:
    adapted(unet, **settings(kind))
    frozen = {name: p.clone() for name, p in unet.named_parameters() if not p.requires_grad}
    target = run(unet).detach() * 0.5
    optimiser = torch.optim.AdamW(list(fera_parameters(unet).values()), lr=3e-3, weight_decay=0.0)
    losses = []
    for _ in range(4):
        optimiser.zero_grad()
        loss = (run(unet) - target).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(torch.equal(p, frozen[name]) for name, p in unet.named_parameters() if name in frozen)


def test_saved_and_loaded_under_another_name_it_is_the_same(unet: nn.Module, kind: Kind, tmp_path: Path) -> None:
    clean = copy.deepcopy(unet)
    save_fera(adapted(unet, "first", **settings(kind)), tmp_path, "first")
    config = load_fera(clean, tmp_path, "conv1")  # a name that is also part of the layers' names
    assert torch.equal(run(clean), run(unet))
    assert (config.expert, config.shared_rank) == (kind[0], 1)
    assert not any(p.requires_grad for p in clean.parameters())


def test_disabled_it_is_the_base_and_enabled_itself(unet: nn.Module, kind: Kind) -> None:
    before = run(unet)
    changed = run(adapted(unet, **settings(kind)))
    assert not torch.allclose(changed, before, atol=1e-3)
    unet.disable_adapters()  # type: ignore[operator]
    assert torch.equal(run(unet), before)
    unet.enable_adapters()  # type: ignore[operator]
    assert torch.equal(run(unet), changed)
    with base_output(unet):
        assert torch.equal(run(unet), before)


@pytest.mark.parametrize("between", ["nothing", "another batch"])
def test_gradients_with_checkpointing_are_those_without(unet: nn.Module, kind: Kind, between: str) -> None:
    adapted(unet, **settings(kind))
    expected = gradients(unet)
    assert set(expected) == set(fera_parameters(unet))
    unet.enable_gradient_checkpointing(checkpointing_function(cell_of(unet)))  # type: ignore[operator]
    for name, gradient in gradients(unet, between).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.slow
def test_compiled_blocks_are_those_of_eager_and_see_new_gates_in_old_graphs(unet: nn.Module, kind: Kind) -> None:
    expected = copy.deepcopy(adapted(unet, **settings(kind)))
    eager = gradients(expected)
    torch._dynamo.reset()
    for block in unet.down_blocks[0].modules():
        if type(block).__name__ in BLOCKS:
            block.compile(backend="aot_eager", fullgraph=True)
    for name, gradient in gradients(unet).items():
        torch.testing.assert_close(gradient, eager[name], rtol=1e-4, atol=1e-6, msg=name)
    with torch.compiler.set_stance("fail_on_recompile"):
        for seed in (1, 2):
            gates = gates_of(unet)
            torch.testing.assert_close(run(unet, seed), run(expected, seed), rtol=1e-4, atol=1e-5)
            assert gates is not None
            assert not torch.equal(gates, gates_of(unet))  # type: ignore[arg-type]


def test_a_second_adapter_adds_its_update_and_can_be_weighted_and_deleted(unet: nn.Module, kind: Kind) -> None:
    before = run(unet)
    one = run(adapted(unet, **settings(kind)))
    adapted(unet, "other", seed=9, target_modules=["conv2", *LAYERS[kind[1]]])
    unet.set_adapters(["default", "other"], [1.0, 0.0])  # type: ignore[operator]
    torch.testing.assert_close(run(unet), one)
    unet.set_adapters(["default", "other"], [0.0, 0.0])  # type: ignore[operator]
    torch.testing.assert_close(run(unet), before)
    unet.set_adapters(["default", "other"])  # type: ignore[operator]
    assert not torch.allclose(run(unet), one, atol=1e-3)
    unet.delete_adapters("other")  # type: ignore[operator]
    torch.testing.assert_close(run(unet), one)
    assert not any(name.endswith(".other") for name in unet.state_dict())


def test_unloading_leaves_nothing(unet: nn.Module, kind: Kind) -> None:
    state, before = list(unet.state_dict()), run(unet)
    adapted(unet, **settings(kind))
    run(unet)
    unload(unet)
    assert list(unet.state_dict()) == state
    assert torch.equal(run(unet), before)
    assert not unet._forward_pre_hooks
    assert not hasattr(unet, "peft_config")


def test_a_copy_is_its_own_and_follows_the_original_as_an_average(unet: nn.Module, kind: Kind) -> None:
    adapted(unet, **settings(kind))
    before = run(unet)  # leaves gates with a graph in the cell
    copied = copy.deepcopy(unet)
    average = torch.optim.swa_utils.AveragedModel(unet, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5))
    with torch.no_grad():
        for p in fera_parameters(unet).values():
            p.mul_(0.5)
    average.update_parameters(unet)
    assert torch.equal(run(copied), before)
    torch.testing.assert_close(run(average.module), run(unet))  # the first update copies


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_compute_in_their_type_with_float32_masters(
    unet: nn.Module, kind: Kind, dtype: torch.dtype
) -> None:
    adapted(unet.to(dtype), **settings(kind))
    call = {name: value.to(dtype) for name, value in arguments(unet).items()}
    output = unet(**call).sample
    assert output.dtype == dtype
    output.float().square().mean().backward()
    for name, p in fera_parameters(unet).items():
        assert p.dtype == torch.float32
        assert p.grad is not None, name
        assert torch.isfinite(p.grad).all(), name


def test_autocast_gives_what_float32_gives_but_for_rounding(unet: nn.Module, kind: Kind) -> None:
    adapted(unet, **settings(kind))
    expected = run(unet)
    with torch.autocast("cpu", torch.bfloat16):
        found = run(unet)
    assert (found.float() - expected).norm() < 0.05 * expected.norm()


def test_eight_bit_storage_spares_its_tensors(unet: nn.Module, kind: Kind) -> None:
    """diffusers' layerwise casting; also where the adapter comes after it."""
    late = copy.deepcopy(unet)
    adapted(unet, **settings(kind)).enable_layerwise_casting(torch.float8_e4m3fn, torch.float32)
    late.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32)  # type: ignore[operator]
    adapted(late, **settings(kind))
    for model in (unet, late):
        assert torch.isfinite(run(model)).all()
        assert {p.dtype for p in fera_parameters(model).values()} == {torch.float32}
        assert any(p.dtype == torch.float8_e4m3fn for p in model.parameters())


def test_a_pipeline_takes_weights_of_several_adapters(kind: Kind) -> None:
    pipe = tiny_sd()
    generate = {"prompt": "a red square", "num_inference_steps": 2, "output_type": "latent", "guidance_scale": 3.0}

    def picture() -> Tensor:
        images: Tensor = pipe(**generate, generator=torch.Generator().manual_seed(0)).images
        return images

    plain = picture()
    adapted(pipe.unet, "one", **settings(kind))
    adapted(pipe.unet, "two", seed=9, **settings(kind))
    pipe.set_adapters(["one", "two"], [0.0, 0.0])
    torch.testing.assert_close(picture(), plain)
    pipe.set_adapters(["one", "two"], [1.0, 0.5])
    both = picture()
    pipe.set_adapters("one")
    assert not torch.allclose(picture(), both, atol=1e-3)
    pipe.disable_lora()
    assert torch.equal(picture(), plain)
    pipe.enable_lora()
    pipe.delete_adapters(["one", "two"])
    torch.testing.assert_close(picture(), plain)
    unload(pipe)
    assert torch.equal(picture(), plain)


def test_a_model_without_memory_can_be_planned_with_it(unet: nn.Module, kind: Kind) -> None:
    expected = coverage(adapted(copy.deepcopy(unet), **settings(kind)))
    unet.to("meta").add_adapter(FeraConfig(**settings(kind)))
    assert {p.device.type for p in unet.parameters()} == {"meta"}
    assert coverage(unet) == expected


def test_peft_itself_loads_it_with_little_memory(unet: nn.Module, kind: Kind, tmp_path: Path) -> None:
    clean = copy.deepcopy(unet)
    save_fera(adapted(unet, **settings(kind)), tmp_path)
    PeftModel.from_pretrained(clean, str(tmp_path), low_cpu_mem_usage=True)
    torch.testing.assert_close(run(clean), run(unet))


def test_tensors_that_are_missing_are_named(unet: nn.Module, kind: Kind, tmp_path: Path) -> None:
    save_fera(adapted(unet, **settings(kind)), tmp_path)
    unload(unet)
    weights = load_file(tmp_path / WEIGHTS_FILE)
    del weights[next(key for key in sorted(weights) if key.rpartition(".")[2] in tensors(kind))]
    save_file(weights, tmp_path / WEIGHTS_FILE)
    with pytest.raises(UserError, match=r"1 missing \(first: .*fera_"):
        load_fera(unet, tmp_path)
    assert not hasattr(unet, "fera")
