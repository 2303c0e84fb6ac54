"""FeRA inside PEFT and diffusers."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import torch
from diffusers.utils.peft_utils import recurse_remove_peft_layers
from peft import IA3Config, LoraConfig, get_peft_model, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

import adapt
from adapt import fera
from adapt.fera import FeraConfig, FeraRouter, base_output, cell_of, coverage, gates_of, unload
from adapt.fera.layer import FeraLayer
from spectra.errors import UserError
from tests.adapt.fera.conftest import adapted, arguments, fera_parameters, randomise, run, targets
from tests.tiny import tiny_sd


def test_a_fresh_adapter_is_exactly_the_base(denoiser: nn.Module) -> None:
    before = run(denoiser)
    denoiser.add_adapter(FeraConfig(target_modules=targets(denoiser)))  # type: ignore[operator]
    assert torch.equal(run(denoiser), before)
    assert gates_of(denoiser) is not None


def test_uniform_gates_are_pefts_lora_on_the_whole_network(denoiser: nn.Module) -> None:
    lora = copy.deepcopy(denoiser)
    adapted(denoiser, r=2, num_experts=3, alpha=3.0)
    inject_adapter_in_model(LoraConfig(r=6, lora_alpha=3, target_modules=targets(denoiser)), lora)
    parameters = dict(lora.named_parameters())
    with torch.no_grad():
        for name, value in fera_parameters(denoiser).items():
            if "fera_A" in name or "fera_B" in name:
                parameters[name.replace("fera_", "lora_") + ".weight"].copy_(value)
            else:
                value.zero_()
    torch.testing.assert_close(run(denoiser), run(lora), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("expert", ["dora", "ia3"])
def test_uniform_gates_are_pefts_dora_and_ia3_on_the_whole_network(denoiser: nn.Module, expert: str) -> None:
    theirs, names = copy.deepcopy(denoiser), targets(denoiser)
    adapted(denoiser, expert=expert, gates="uniform", r=2)
    ia3 = IA3Config(target_modules=names, feedforward_modules=[])
    inject_adapter_in_model(LoraConfig(r=6, lora_alpha=6, target_modules=names, use_dora=True)
                            if expert == "dora" else ia3, theirs)  # fmt: skip
    parameters = dict(theirs.named_parameters())
    with torch.no_grad():
        for name, value in fera_parameters(denoiser).items():
            if expert == "ia3":
                vector = parameters[name.replace("fera_vectors", "ia3_l")]
                vector.copy_((1 + value.sum(0)).view(vector.shape))
            else:
                found = parameters[name.replace("magnitude", "magnitude_vector").replace("fera_", "lora_") + ".weight"]
                found.copy_(value.view(found.shape))
    torch.testing.assert_close(run(denoiser), run(theirs), rtol=1e-4, atol=1e-5)


def test_only_the_adapter_is_trainable(denoiser: nn.Module) -> None:
    """PEFT leaves the whole base trainable where the router is attached before the layers."""
    denoiser.add_adapter(FeraConfig(target_modules=targets(denoiser)))  # type: ignore[operator]
    trainable = {name for name, parameter in denoiser.named_parameters() if parameter.requires_grad}
    assert trainable == set(fera_parameters(denoiser))
    assert sum(name.startswith("fera.") for name in trainable) == 4
    run(denoiser).sum().backward()
    assert all(parameter.grad is not None for parameter in fera_parameters(denoiser).values())


def test_every_saved_name_has_the_prefix_and_none_says_lora(unet: nn.Module) -> None:
    base = set(unet.state_dict())
    adapted(unet)
    added = {name for name in unet.state_dict() if name.replace(".base_layer", "") not in base}
    assert added
    assert all("fera_" in name and "lora" not in name for name in added)


def test_the_router_is_a_tuner_layer_on_the_root(unet: nn.Module) -> None:
    adapted(unet)
    adapted(unet, "other")
    router = unet.fera
    assert isinstance(router, FeraRouter)
    assert isinstance(router, BaseTunerLayer)
    unet.set_adapter("default")
    assert router.active_adapters == ["default"]
    assert router.fera_w1["default"].requires_grad
    assert not router.fera_w1["other"].requires_grad
    assert not hasattr(router, "weight")
    unet.delete_adapters("other")
    assert list(router.fera_w1) == list(router.reading) == ["default"]


def test_one_cell_serves_the_whole_model_and_is_not_saved(unet: nn.Module) -> None:
    adapted(unet)
    adapted(unet, "other", target_modules=["proj_in"])
    cells = {id(module.cell) for module in unet.modules() if isinstance(module, FeraLayer)}
    assert cells == {id(cell_of(unet))}
    assert not any("cell" in name for name in unet.state_dict())


def test_the_hook_is_registered_once(unet: nn.Module) -> None:
    adapted(unet)
    adapted(unet, "other")
    assert len(unet._forward_pre_hooks) == 1


def test_diffusers_disables_and_enables(denoiser: nn.Module) -> None:
    before = run(denoiser)
    adapted(denoiser)
    with_adapter = run(denoiser)
    assert not torch.allclose(with_adapter, before, atol=1e-3)
    denoiser.disable_adapters()  # type: ignore[operator]
    assert torch.equal(run(denoiser), before)
    assert gates_of(denoiser) is None
    denoiser.enable_adapters()  # type: ignore[operator]
    assert torch.equal(run(denoiser), with_adapter)


def test_diffusers_chooses_among_adapters_and_weights_them(unet: nn.Module) -> None:
    before = run(unet)
    adapted(unet)
    one = run(unet)
    adapted(unet, "other", seed=9, r=1, num_experts=2)
    other = run(unet)
    unet.set_adapter("default")
    assert torch.equal(run(unet), one)
    unet.set_adapters(["default", "other"], [1.0, 0.0])
    torch.testing.assert_close(run(unet), one)
    unet.set_adapters(["default", "other"], [0.0, 1.0])
    torch.testing.assert_close(run(unet), other)
    unet.set_adapters(["default", "other"], [0.0, 0.0])
    torch.testing.assert_close(run(unet), before)
    unet.set_adapters(["default", "other"])
    run(unet)
    assert cell_of(unet).gates is not None
    assert {name: gates.shape for name, gates in cell_of(unet).gates.items()} == {"default": (2, 3), "other": (2, 2)}


def test_the_scale_of_a_call_weights_the_adapter(unet: nn.Module) -> None:
    before = run(unet)
    adapted(unet)
    full = run(unet)
    assert torch.equal(unet(**arguments(unet), cross_attention_kwargs={"scale": 0.0}).sample, before)
    assert torch.equal(run(unet), full)


def test_fusing_is_refused_with_a_way_out(unet: nn.Module) -> None:
    adapted(unet)
    with pytest.raises(UserError, match=r"adapt\.unload"):
        unet.fuse_lora()
    wrapped = get_peft_model(tiny_sd().unet, FeraConfig(target_modules=["to_q"]))
    for merge in (wrapped.merge_adapter, wrapped.merge_and_unload):
        with pytest.raises(UserError, match="cannot be merged"):
            merge()


def test_diffusers_own_removal_leaves_the_router_and_unload_takes_it(unet: nn.Module) -> None:
    before = run(unet)
    adapted(unet)
    recurse_remove_peft_layers(unet)
    assert hasattr(unet, "fera")
    unload(unet)
    assert not hasattr(unet, "fera")
    assert torch.equal(run(unet), before)


def test_unload_leaves_nothing_behind(denoiser: nn.Module) -> None:
    attributes, state, before = set(vars(denoiser)), copy.deepcopy(denoiser.state_dict()), run(denoiser)
    structure = [(name, type(module)) for name, module in denoiser.named_modules()]
    trainable = {name: parameter.requires_grad for name, parameter in denoiser.named_parameters()}
    adapted(denoiser)
    adapted(denoiser, "other", seed=3)
    run(denoiser)
    assert unload(denoiser) is denoiser
    assert torch.equal(run(denoiser), before)
    assert set(vars(denoiser)) == attributes
    assert not denoiser._forward_pre_hooks
    assert not denoiser._forward_pre_hooks_with_kwargs
    assert [(name, type(module)) for name, module in denoiser.named_modules()] == structure
    assert {name: parameter.requires_grad for name, parameter in denoiser.named_parameters()} == trainable
    assert list(denoiser.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in denoiser.state_dict().items())
    assert torch.equal(run(unload(denoiser)), before)  # a second time changes nothing
    adapted(denoiser)  # and it can be adapted again


def test_a_copy_unloads_without_the_original(unet: nn.Module) -> None:
    before = run(unet)
    adapted(unet)
    changed, copied = run(unet), copy.deepcopy(unet)
    unload(copied)
    assert not copied._forward_pre_hooks
    assert torch.equal(run(copied), before)
    assert torch.equal(run(unet), changed)


def test_the_base_output_is_one_pass_away_and_gates_come_back(denoiser: nn.Module) -> None:
    before = run(denoiser)
    adapted(denoiser)
    run(denoiser)
    gates, needing = gates_of(denoiser), [p.requires_grad for p in denoiser.parameters()]
    with base_output(denoiser), base_output(denoiser):
        assert torch.equal(run(denoiser, seed=0), before)
        assert gates_of(denoiser) is None
        assert [p.requires_grad for p in denoiser.parameters()] == needing
    assert gates_of(denoiser) is gates
    assert not torch.equal(run(denoiser), before)


def test_base_output_recovers_from_an_error(unet: nn.Module) -> None:
    adapted(unet)
    with pytest.raises(RuntimeError, match="stop"), base_output(unet):
        raise RuntimeError("stop")
    run(unet)
    assert gates_of(unet) is not None


def test_a_peft_model_works_the_same(unet: nn.Module) -> None:
    before = run(unet)
    torch.manual_seed(7)
    model = get_peft_model(copy.deepcopy(unet), FeraConfig(target_modules=targets(unet)))
    randomise(model.get_base_model())
    torch.testing.assert_close(model(**arguments(unet)).sample, run(adapted(unet)))
    with model.disable_adapter():
        assert torch.equal(model(**arguments(unet)).sample, before)
    model.add_adapter("other", FeraConfig(target_modules=["to_q"]))
    assert model.get_base_model().fera.active_adapters == ["default"]
    assert not model.get_base_model().fera.fera_w1["other"].requires_grad
    assert torch.equal(run(model.unload()), before)


def test_eight_bit_storage_spares_the_adapter(unet: nn.Module) -> None:
    adapted(unet)
    unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    run(unet)
    assert {parameter.dtype for parameter in fera_parameters(unet).values()} == {torch.float32}
    assert any(parameter.dtype == torch.float8_e4m3fn for parameter in unet.parameters())


def test_an_adapter_on_a_half_precision_model_keeps_float32_masters(unet: nn.Module) -> None:
    adapted(unet.to(torch.bfloat16))
    assert {parameter.dtype for parameter in fera_parameters(unet).values()} == {torch.float32}
    call = {name: value.bfloat16() for name, value in arguments(unet).items()}
    assert unet(**call).sample.dtype == torch.bfloat16


def test_another_method_on_the_model_is_refused(unet: nn.Module) -> None:
    inject_adapter_in_model(LoraConfig(target_modules=["to_q"]), unet)
    with pytest.raises(UserError, match="another method"):
        inject_adapter_in_model(FeraConfig(target_modules=["to_k"]), unet, "other")
    assert list(unet.peft_config) == ["default"]


def test_a_pipeline_routes_every_step_and_unloads() -> None:
    pipe = tiny_sd()
    generate = {"prompt": "a red square", "num_inference_steps": 2, "output_type": "latent", "guidance_scale": 3.0}
    plain = pipe(**generate, generator=torch.Generator().manual_seed(0)).images
    adapted(pipe.unet)
    styled = pipe(**generate, generator=torch.Generator().manual_seed(0)).images
    assert not torch.allclose(plain, styled, atol=1e-3)
    gates = gates_of(pipe)
    assert gates is not None
    assert gates.shape == (2, 3)  # guidance doubles the batch
    assert coverage(pipe).modules > 0
    unload(pipe)
    assert torch.equal(pipe(**generate, generator=torch.Generator().manual_seed(0)).images, plain)


def test_asking_an_unadapted_model_for_gates_is_a_clear_mistake(unet: nn.Module) -> None:
    with pytest.raises(UserError, match="no FeRA adapter"):
        gates_of(unet)


def test_registration_is_idempotent_and_refuses_an_old_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    fera.register()
    assert peft.mapping.PEFT_TYPE_TO_TUNER_MAPPING["FERA"] is fera.FeraModel
    monkeypatch.setattr(peft, "__version__", "0.20.0")
    with pytest.raises(ImportError, match=r"peft>=0\.21, found 0\.20\.0"):
        fera.register()


def test_importing_adapt_costs_nothing_and_its_names_arrive_when_asked_for() -> None:
    script = (
        "import sys, adapt; assert not {'torch', 'peft', 'xarray'} & set(sys.modules);"
        "import adapt.prior; assert not {'peft', 'diffusers', 'transformers'} & set(sys.modules);"
        "assert adapt.FeraConfig.__name__ == 'FeraConfig' and 'peft' in sys.modules;"
        "from adapt.sample import sample; assert adapt.sample is sample"  # the submodule does not hide the function
    )
    root = Path(adapt.__file__).parents[1]
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": str(root)})
    assert {"FeraConfig", "Prior", "TrainConfig", "load_fera", "sample", "train", "unload"} <= set(dir(adapt))
    with pytest.raises(AttributeError, match="nothing"):
        _ = adapt.nothing
