"""Every method starts at the base, learns, gives the base back, and is the same after saving and loading."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from adapt.methods import METHODS, NAME, kind_of, load_adapter
from adapt.targets import default_targets
from spectra.errors import UserError
from tests.adapt.methods.conftest import EVERY, PLAIN, answer, attach, fresh, settings, train


@pytest.mark.parametrize("method", EVERY)
def test_a_new_adapter_changes_nothing_learns_and_gives_the_base_back(denoiser: Any, method: str) -> None:
    with torch.no_grad():
        before = answer(denoiser)
    attach(denoiser, method)
    with torch.no_grad():
        torch.testing.assert_close(answer(denoiser), before, rtol=1e-4, atol=1e-5)
    learned = sorted(name for name, p in denoiser.named_parameters() if p.requires_grad)
    train(denoiser, method)
    with torch.no_grad():
        assert float((answer(denoiser) - before).abs().max()) > 1e-3
        with METHODS[method].base(denoiser):
            torch.testing.assert_close(answer(denoiser), before, rtol=1e-4, atol=1e-5)
        assert float((answer(denoiser) - before).abs().max()) > 1e-3
    assert sorted(name for name, p in denoiser.named_parameters() if p.requires_grad) == learned


@pytest.mark.parametrize("method", EVERY)
def test_a_saved_adapter_loads_into_a_fresh_base_with_the_same_output(tmp_path: Path, method: str) -> None:
    trained = fresh("sd3")
    attach(trained, method)
    train(trained, method)
    METHODS[method].save(trained, tmp_path / "adapter")
    loaded = fresh("sd3")
    assert load_adapter(loaded, tmp_path / "adapter") == method == kind_of(tmp_path / "adapter")
    with torch.no_grad():
        torch.testing.assert_close(answer(loaded), answer(trained), rtol=1e-5, atol=1e-6)
    METHODS[method].save(loaded, tmp_path / "again")
    for file in ("adapter_config.json", "adapter_model.safetensors")[method == "fera" :]:
        assert (tmp_path / "adapter" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


@pytest.mark.parametrize("method", PLAIN)
def test_plain_peft_reads_the_saved_folder(tmp_path: Path, method: str) -> None:
    trained = fresh("sd3")
    attach(trained, method)
    train(trained, method)
    METHODS[method].save(trained, tmp_path / "adapter")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="Invalid `oft_block_size`")
        wrapped = PeftModel.from_pretrained(fresh("sd3"), str(tmp_path / "adapter")).eval()
    with torch.no_grad():
        torch.testing.assert_close(answer(wrapped), answer(trained), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", EVERY)
def test_tensors_that_are_not_exactly_the_models_are_refused_and_leave_the_model_as_it_was(
    tmp_path: Path, method: str
) -> None:
    trained = fresh("sd3")
    attach(trained, method)
    METHODS[method].save(trained, tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    first = next(iter(tensors))
    for change in (
        {key: value for key, value in tensors.items() if key != first},
        tensors | {"base_model.model.stranger": torch.zeros(1)},
        tensors | {first: torch.zeros(*tensors[first].shape, 2)},
    ):
        save_file(change, tmp_path / "adapter_model.safetensors")
        other = fresh("sd3")
        with pytest.raises(UserError, match="fit SD3Transformer2DModel"):
            load_adapter(other, tmp_path)
        with torch.no_grad():
            assert torch.equal(answer(other), answer(fresh("sd3")))


def test_an_unknown_kind_and_a_folder_without_adapter_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no adapter"):
        load_adapter(fresh(), tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "VERA"}))
    with pytest.raises(UserError, match="holds a VERA adapter; known kinds: fera, lora"):
        load_adapter(fresh(), tmp_path)


@pytest.mark.parametrize("method", EVERY)
def test_a_run_goes_on_from_an_adapter_of_its_own_method(tmp_path: Path, method: str) -> None:
    first = fresh("sd3")
    attach(first, method)
    train(first, method)
    METHODS[method].save(first, tmp_path / "one")
    second = fresh("sd3")
    attach(second, method, seed=5, start_from=tmp_path / "one")
    with torch.no_grad():
        torch.testing.assert_close(answer(second), answer(first), rtol=1e-5, atol=1e-6)
    assert METHODS[method].trainable(second) == METHODS[method].trainable(first) > 0
    other = "lora" if method != "lora" else "dora"
    with pytest.raises(UserError, match=f"holds a {method} adapter and the method is {other}"):
        attach(fresh("sd3"), other, start_from=tmp_path / "one")


@pytest.mark.parametrize("method", ["lora", "fera", "loha", "oft"])
def test_going_on_with_another_rank_is_one_sentence(tmp_path: Path, method: str) -> None:
    first = fresh("sd3")
    attach(first, method)
    METHODS[method].save(first, tmp_path / "one")
    with pytest.raises(UserError, match=r"must agree|does not fit"):
        attach(fresh("sd3"), method, start_from=tmp_path / "one", rank=12)


@pytest.mark.parametrize(
    ("method", "change", "name"),
    [
        ("loha", {"dropout": 0.1}, "dropout"),
        ("lokr", {"dropout": 0.1}, "dropout"),
        ("oft", {"alpha": 3.0}, "alpha"),
        ("ia3", {"dropout": 0.1}, "dropout"),
        ("full", {"alpha": 3.0}, "alpha"),
        ("full", {"targets": ["to_q"]}, "targets"),
        ("ia3", {"rank": 5}, "rank"),
        ("full", {"rank": 5, "text_encoder": True}, "rank"),
    ],
)
def test_a_setting_that_a_method_lacks_is_refused(method: str, change: dict[str, Any], name: str) -> None:
    with pytest.raises(UserError, match=f"{method} has no {name}; leave '{name}' out"):
        attach(fresh(), method, **change)


def test_the_lora_of_text_encoders_may_have_settings_that_the_method_lacks() -> None:
    METHODS["ia3"].check(settings("ia3", rank=5, alpha=2.0, dropout=0.1, text_encoder=True))


@pytest.mark.parametrize("method", PLAIN)
def test_what_learns_does_not_depend_on_the_device(method: str) -> None:
    """Off the CPU PEFT moves an adapter to its layers, and makes parameters of what it moves."""
    here, elsewhere = fresh("sd3"), fresh("sd3").to("meta")
    for denoiser in (here, elsewhere):
        attach(denoiser, method)
    learned = [{name for name, p in one.named_parameters() if p.requires_grad} for one in (here, elsewhere)]
    assert learned[0] == learned[1]


def test_alpha_scales_the_update(tmp_path: Path) -> None:
    for method in ("lora", "dora", "loha", "lokr", "adalora"):
        weak, strong = fresh("sd3"), fresh("sd3")
        attach(weak, method, alpha=0.6)
        attach(strong, method, alpha=6.0)
        scales = [
            {m.scaling[NAME] for m in model.modules() if hasattr(m, "scaling") and NAME in m.scaling}
            for model in (weak, strong)
        ]
        assert [round(max(scales[1]) / max(scales[0]), 6)] == [10.0]


def test_dropout_reaches_the_methods_that_have_it() -> None:
    for method in ("lora", "dora", "adalora", "fera"):
        model = fresh("sd3")
        attach(model, method, dropout=0.25)
        assert any(isinstance(m, torch.nn.Dropout) and m.p == 0.25 for m in model.modules())


@pytest.mark.parametrize("method", EVERY)
def test_biases_and_vectors_are_not_decayed_and_every_parameter_is_in_one_group(method: str) -> None:
    model = fresh("sd3")
    attach(model, method)
    groups = METHODS[method].groups(model, 1e-3, settings(method, weight_decay=0.1))
    listed = [id(p) for group in groups for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    for group in groups:
        assert {p.ndim > 1 for p in group["params"]} == {group["weight_decay"] == 0.1}
        assert group["lr"] == 1e-3


def test_the_router_learns_at_its_own_rate() -> None:
    model = fresh("sd3")
    attach(model, "fera")
    groups = METHODS["fera"].groups(model, 1e-3, settings("fera", router_lr=4.0))
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    for name, p in model.named_parameters():
        if p.requires_grad:
            assert rates[id(p)] == (4e-3 if name.startswith("fera.") else 1e-3)


def test_oft_leaves_wide_convolutions_out_and_says_so() -> None:
    model = fresh("sd")
    with pytest.warns(UserWarning, match=r"oft: \d+ of the layers asked for are left out"):
        reach = METHODS["oft"].attach(model, settings("oft"), default_targets(model), None)
    modules = dict(fresh("sd").named_modules())
    assert "conv_in" in reach.left_out
    assert all(modules[name].kernel_size != (1, 1) for name in reach.left_out)
    adapted = {name.partition(".oft_")[0] for name, _ in model.named_parameters() if ".oft_" in name}
    assert adapted
    assert not adapted & set(reach.left_out)


def test_a_method_that_can_adapt_nothing_of_what_is_asked_says_so() -> None:
    with (
        pytest.raises(UserError, match="oft can adapt none of the layers"),
        pytest.warns(UserWarning, match="left out"),
    ):
        METHODS["oft"].attach(fresh("sd"), settings("oft"), ["conv_in"], None)


def test_adapters_of_a_half_precision_base_learn_in_full_precision() -> None:
    for method in PLAIN:
        model = fresh("sd3").to(torch.bfloat16)
        attach(model, method)
        kinds = {p.dtype for p in model.parameters() if p.requires_grad}
        assert kinds == {torch.float32}


def test_full_training_gives_every_weight_and_loads_only_into_the_same_class(tmp_path: Path) -> None:
    model = fresh("sd3")
    attach(model, "full")
    assert METHODS["full"].trainable(model) == sum(p.numel() for p in fresh("sd3").parameters())
    METHODS["full"].save(model, tmp_path)
    with pytest.raises(UserError, match="do not fit UNet2DConditionModel"):
        load_adapter(fresh("sd"), tmp_path)


def test_copies_of_an_adapted_denoiser_answer_alike() -> None:
    for method in PLAIN:
        model = fresh("sd3")
        attach(model, method)
        train(model, method)
        with torch.no_grad():
            assert torch.equal(answer(copy.deepcopy(model)), answer(model))
