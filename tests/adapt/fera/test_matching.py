"""Targets inside FeRA: every pattern means a layer, or nothing is changed."""

from __future__ import annotations

import pytest
import torch
from peft import inject_adapter_in_model
from torch import nn

from adapt.fera import FeraConfig, coverage
from adapt.fera.matching import expanded, matched, means
from spectra.errors import UserError
from tests.adapt.fera.conftest import adapted, run


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        (["to_q", "to_qq"], "'to_qq' matches no module.*'to_q'"),
        (["to_out.0", "to_add_out.0"], "'to_add_out.0' matches no module"),
        (["conv1", "conv_3"], "'conv_3'.*nearest.*'conv"),
        (["attn1"], "attn1, a Attention"),
        ("no.*such", "'no.*such' matches no module"),
        ("(", "not a regular expression"),
        ([], "needs target_modules"),
        (None, "needs target_modules"),
    ],
)
def test_every_target_pattern_must_match_a_layer(unet: nn.Module, asked: object, hint: str) -> None:
    state, attributes = list(unet.state_dict()), set(vars(unet))
    with pytest.raises(UserError, match=hint):
        inject_adapter_in_model(FeraConfig(target_modules=asked), unet)  # type: ignore[arg-type]
    assert list(unet.state_dict()) == state
    assert set(vars(unet)) == attributes


def test_a_refused_second_adapter_leaves_the_first_alone(unet: nn.Module) -> None:
    adapted(unet)
    before = run(unet)
    with pytest.raises(UserError, match="matches no module"):
        unet.add_adapter(FeraConfig(target_modules=["nothing"]), "other")
    assert list(unet.peft_config) == ["default"]
    assert torch.equal(run(unet), before)


@pytest.mark.parametrize("asked", ["all-linear", r".*\.(to_q|conv1)", ["down_blocks.0.resnets.0.conv1"]])
def test_targets_can_be_all_linear_a_regular_expression_or_full_names(unet: nn.Module, asked: str | list[str]) -> None:
    unet.add_adapter(FeraConfig(target_modules=asked))
    assert coverage(unet).modules >= 1
    unet.add_adapter(FeraConfig(target_modules=asked), "again")
    run(unet)


def test_convolutions_that_are_not_ordinary_are_refused() -> None:
    class Net(nn.Sequential):
        pass

    for conv in (nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")):
        with pytest.raises(UserError, match="groups=1"):
            inject_adapter_in_model(FeraConfig(target_modules=["0"], grid=(16, 16)), Net(conv, nn.Linear(4, 4)))


def test_patterns_to_leave_out_must_match_too_and_are_left_out(unet: nn.Module) -> None:
    with pytest.raises(UserError, match=r"exclude_modules: 'up_blocks.9.conv1' matches no module"):
        unet.add_adapter(FeraConfig(target_modules=["conv1"], exclude_modules=["up_blocks.9.conv1"]))
    out = ["up_blocks.*.resnets.*.conv1"]
    unet.add_adapter(FeraConfig(target_modules=["conv1"], exclude_modules=out))
    wrapped = {name for name, module in unet.named_modules() if hasattr(module, "base_layer")}
    assert wrapped == {name for name in matched(unet, "conv1") if not name.startswith("up_blocks")}


def test_a_star_is_written_out_so_that_files_and_peft_hold_plain_names(unet: nn.Module) -> None:
    unet.add_adapter(FeraConfig(target_modules=["down_blocks.*.resnets.0.conv1", "to_q"]))
    names = ["down_blocks.0.resnets.0.conv1", "down_blocks.1.resnets.0.conv1", "to_q"]
    assert list(unet.peft_config["default"].target_modules) == names
    assert expanded(unet, ["to_q", "down_blocks.*.resnets.0.conv1", "to_q"]) == ["to_q", *names[:2]]


def test_patterns_mean_whole_parts_of_names() -> None:
    assert means("to_q", "a.to_q")
    assert means("*.to_q", "a.b.to_q")
    assert means("attn*.to_q", "a.attn1.to_q")
    assert not means("o_q", "a.to_q")
    assert not means("a.*.to_q", "a.b.c.to_q")
    assert not means("a+.to_q", "aa.to_q")
