"""Adapters on disk: whole, under any name, or refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, inject_adapter_in_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from adapt.fera import FeraConfig, load_fera, save_fera, unload
from spectra.errors import UserError
from tests.adapt.fera.conftest import adapted, arguments, fera_parameters, randomise, run, targets

WEIGHTS = "adapter_model.safetensors"


def test_a_saved_adapter_comes_back_under_any_name(denoiser: nn.Module, tmp_path: Path) -> None:
    clean = copy.deepcopy(denoiser)
    adapted(denoiser, "first", r=2, num_experts=4, tau=0.4, bands=3)
    save_fera(denoiser, tmp_path, "first")
    load_fera(clean, tmp_path, "to_q")  # a name that is also part of the layers' names
    assert torch.equal(run(clean), run(denoiser))
    assert not any(parameter.requires_grad for parameter in clean.parameters())


def test_a_trainable_adapter_can_be_trained_on(unet: nn.Module, tmp_path: Path) -> None:
    save_fera(adapted(unet), tmp_path)
    unload(unet)
    load_fera(unet, tmp_path, trainable=True)
    trainable = {name for name, parameter in unet.named_parameters() if parameter.requires_grad}
    assert trainable == set(fera_parameters(unet))


def test_equal_adapters_are_equal_bytes(unet: nn.Module, tmp_path: Path) -> None:
    other = copy.deepcopy(unet)
    save_fera(adapted(unet), tmp_path / "a")
    save_fera(adapted(other, "another name"), tmp_path / "b", "another name")
    for name in (WEIGHTS, "adapter_config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_peft_reads_what_we_write(unet: nn.Module, tmp_path: Path) -> None:
    clean = copy.deepcopy(unet)
    save_fera(adapted(unet), tmp_path)
    loaded = PeftModel.from_pretrained(clean, str(tmp_path), adapter_name="other")
    assert torch.equal(loaded(**arguments(unet)).sample, run(unet))


@pytest.mark.parametrize("meta", [False, True])
def test_we_read_what_peft_writes(unet: nn.Module, tmp_path: Path, meta: bool) -> None:
    clean = copy.deepcopy(unet)
    model = get_peft_model(unet, FeraConfig(target_modules=targets(unet)))
    randomise(model.get_base_model())
    model.save_pretrained(str(tmp_path))
    if meta:
        PeftModel.from_pretrained(clean, str(tmp_path), low_cpu_mem_usage=True)
    else:
        load_fera(clean, tmp_path)
    assert torch.equal(run(clean), run(unet))
    assert {parameter.dtype for parameter in fera_parameters(clean).values()} == {torch.float32}


def test_what_diffusers_writes_it_refuses_as_lora_loudly(unet: nn.Module, tmp_path: Path) -> None:
    clean = copy.deepcopy(unet)
    adapted(unet).save_lora_adapter(tmp_path)
    with pytest.raises(TypeError, match="LoraConfig"):
        clean.load_lora_adapter(tmp_path, weight_name="pytorch_lora_weights.safetensors", prefix=None)


def test_a_run_directory_is_as_good_as_its_adapter(unet: nn.Module, tmp_path: Path) -> None:
    save_fera(adapted(unet), tmp_path / "adapter")
    expected = run(unet)
    load_fera(unload(unet), tmp_path)
    assert torch.equal(run(unet), expected)


def test_a_loaded_adapter_works_with_diffusers_calls(unet: nn.Module, tmp_path: Path) -> None:
    before = run(unet)
    save_fera(adapted(unet), tmp_path)
    unload(unet)
    load_fera(unet, tmp_path, "style")
    styled = run(unet)
    unet.disable_adapters()
    assert torch.equal(run(unet), before)
    unet.enable_adapters()
    unet.set_adapters("style", 1.0)
    assert torch.equal(run(unet), styled)


def missing(tensors: dict[str, Tensor]) -> None:
    del tensors["base_model.model.fera.fera_w1"]


def unexpected(tensors: dict[str, Tensor]) -> None:
    tensors["base_model.model.somewhere.fera_A"] = torch.zeros(1)


def reshaped(tensors: dict[str, Tensor]) -> None:
    tensors["base_model.model.fera.fera_w1"] = torch.zeros(64, 7)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (missing, r"1 missing \(first: fera.fera_w1\)"),
        (unexpected, r"1 unexpected \(first: somewhere.fera_A\)"),
        (reshaped, r"fera.fera_w1 is \(64, 7\) instead of \(64, 4\)"),
    ],
)
@pytest.mark.parametrize("occupied", [False, True])
def test_tensors_that_do_not_fit_are_refused_and_nothing_changes(
    unet: nn.Module, tmp_path: Path, damage: Callable[[dict[str, Tensor]], None], words: str, occupied: bool
) -> None:
    save_fera(adapted(unet, target_modules=["to_q", "conv1"]), tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    damage(tensors)
    save_file(tensors, tmp_path / WEIGHTS)
    unload(unet)
    if occupied:
        adapted(unet, "asleep", target_modules=["to_k", "to_v"])
        adapted(unet, "resident", target_modules=["to_k"])
    state, before = list(unet.state_dict()), run(unet)
    needing = [parameter.requires_grad for parameter in unet.parameters()]
    with pytest.raises(UserError, match=words):
        load_fera(unet, tmp_path)
    assert list(unet.state_dict()) == state
    assert torch.equal(run(unet), before)
    assert [parameter.requires_grad for parameter in unet.parameters()] == needing
    assert list(getattr(unet, "peft_config", {})) == ["asleep", "resident"] * occupied


def test_a_folder_that_is_not_a_whole_adapter_is_refused(unet: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no adapter"):
        load_fera(unet, tmp_path / "nowhere")
    save_fera(adapted(unet), tmp_path)
    unload(unet)
    torn = (tmp_path / WEIGHTS).read_bytes()[:-100]
    (tmp_path / WEIGHTS).write_bytes(torn)
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        load_fera(unet, tmp_path)
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        load_fera(unet, tmp_path)
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as adapter settings"):
        load_fera(unet, tmp_path)
    assert not hasattr(unet, "fera")


def test_settings_of_another_method_or_version_are_refused(unet: nn.Module, tmp_path: Path) -> None:
    save_fera(adapted(unet), tmp_path)
    unload(unet)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    for change, words in (
        ({"peft_type": "LORA"}, "'LORA' adapter"),
        ({"mode": "quick"}, "mode is 'exact' or 'published'"),
        ({"shortcut": 1}, "unknown settings shortcut"),
        ({"target_modules": ["to_q", "to_nothing"]}, "'to_nothing' matches no module"),
    ):
        (tmp_path / "adapter_config.json").write_text(json.dumps({**settings, **change}))
        with pytest.raises(UserError, match=words):
            load_fera(unet, tmp_path)


def test_names_in_use_and_absent_names_are_refused(unet: nn.Module, tmp_path: Path) -> None:
    save_fera(adapted(unet), tmp_path)
    with pytest.raises(UserError, match="has an adapter 'default'"):
        load_fera(unet, tmp_path)
    with pytest.raises(UserError, match="no FeRA adapter 'other' to save"):
        save_fera(unet, tmp_path, "other")
    unload(unet)
    inject_adapter_in_model(LoraConfig(target_modules=["to_q"]), unet)
    with pytest.raises(UserError, match="no FeRA adapter 'default' to save"):
        save_fera(unet, tmp_path)


def test_a_place_that_cannot_be_written_is_named(unet: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match=r"cannot write the adapter to .*taken"):
        save_fera(adapted(unet), tmp_path / "taken")
