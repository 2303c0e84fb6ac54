"""Gradients under gradient checkpointing: the recomputation must see the gates of its own forward pass."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError

from adapt.fera import base_output, cell_of, checkpointing_function
from tests.adapt.fera.conftest import adapted, arguments, fera_parameters, run


def gradients(model: nn.Module, between: str = "nothing") -> dict[str, Tensor]:
    """Gradients of a loss, with something happening between the forward and the backward pass."""
    model.zero_grad()
    loss = run(model.train(), seed=0).square().mean()
    if between == "cleared":
        cell_of(model).gates = None
    if between == "another batch":
        run(model, seed=1)
    if between == "another batch size":
        with torch.no_grad():
            run(model, seed=1, batch=1)
    loss.backward()
    found = {name: parameter.grad for name, parameter in fera_parameters(model).items()}
    assert all(gradient is not None for gradient in found.values())
    return {name: gradient.clone() for name, gradient in found.items() if gradient is not None}


@pytest.mark.parametrize("between", ["nothing", "cleared", "another batch", "another batch size"])
def test_gradients_equal_those_without_checkpointing(denoiser: nn.Module, between: str) -> None:
    adapted(denoiser)
    expected = gradients(denoiser)
    denoiser.enable_gradient_checkpointing(checkpointing_function(cell_of(denoiser)))  # type: ignore[operator]
    for name, gradient in gradients(denoiser, between).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-7, msg=name)


def test_plain_checkpointing_would_be_wrong_in_silence(unet: nn.Module) -> None:
    """Why the function exists: diffusers' own one gives other gradients where a second batch was routed."""
    adapted(unet)
    expected = gradients(unet)
    unet.enable_gradient_checkpointing()
    wrong = gradients(unet, "another batch")
    assert max((wrong[name] - expected[name]).norm() / expected[name].norm() for name in expected) > 0.01
    with pytest.raises(CheckpointError):
        gradients(unet, "cleared")


def test_diffusers_own_function_is_right_where_the_cell_is_left_alone(unet: nn.Module) -> None:
    """As in a step that asks the base first, without gradients, and then the adapter."""
    adapted(unet)
    expected = gradients(unet)
    unet.enable_gradient_checkpointing()  # type: ignore[operator]
    unet.train().zero_grad()
    with torch.no_grad(), base_output(unet):
        run(unet)
    run(unet).square().mean().backward()
    for name, parameter in fera_parameters(unet).items():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-7, msg=name)


def test_after_the_backward_pass_the_cell_holds_what_it_held_before(unet: nn.Module) -> None:
    adapted(unet)
    unet.enable_gradient_checkpointing(checkpointing_function(cell_of(unet)))
    loss = run(unet.train(), seed=0).square().mean()
    run(unet, seed=1)
    held = cell_of(unet).gates
    loss.backward()
    assert cell_of(unet).gates is held


def test_a_copied_model_checkpoints_with_its_own_cell(unet: nn.Module) -> None:
    adapted(unet)
    expected = gradients(unet)
    unet.enable_gradient_checkpointing(checkpointing_function(cell_of(unet)))
    copied = copy.deepcopy(unet)
    with torch.no_grad():
        unet(**arguments(unet, seed=4))
    for name, gradient in gradients(copied, "cleared").items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-7, msg=name)
