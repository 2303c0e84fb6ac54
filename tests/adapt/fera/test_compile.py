"""FeRA under torch.compile: gates are data of the graphs, whatever is compiled and whenever they change."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adapt.fera import base_output, cell_of, checkpointing_function
from adapt.fera.experts import EXPERTS
from tests.adapt.fera.conftest import adapted, arguments, fera_parameters, run


@pytest.fixture(autouse=True)
def fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Graphs:
    """A backend that runs the graphs as they are and counts them."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, module: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        self.count += 1
        return module


def gradients(model: nn.Module, call: Callable[..., Any], between: bool = False) -> dict[str, Tensor]:
    model.zero_grad()
    model.train()
    loss = call(**arguments(model)).sample.square().mean()
    if between:
        call(**arguments(model, seed=1))
    loss.backward()
    return {name: p.grad.clone() for name, p in fera_parameters(model).items() if p.grad is not None}


@pytest.mark.parametrize(
    "expert", [name if name == "lora" else pytest.param(name, marks=pytest.mark.slow) for name in EXPERTS]
)
def test_repeated_blocks_compile_whole_and_once_for_all_gates(unet: nn.Module, expert: str) -> None:
    """Values of the gates change, the base is asked for, graphs are reused."""
    adapted(unet, expert=expert, target_modules=["to_q", "to_out.0", "ff.net.2"])
    expected, graphs = copy.deepcopy(unet), Graphs()
    unet.compile_repeated_blocks(fullgraph=True, backend=graphs)  # type: ignore[operator]
    with torch.no_grad():
        torch.testing.assert_close(run(unet), run(expected))
        first = graphs.count
        for seed in range(1, 4):
            torch.testing.assert_close(run(unet, seed), run(expected, seed))
        assert graphs.count == first
        with base_output(unet), base_output(expected):
            torch.testing.assert_close(run(unet), run(expected))
        with_base = graphs.count
        torch.testing.assert_close(run(unet, 5), run(expected, 5))
    assert graphs.count == with_base
    assert first < with_base <= 2 * first


def test_gates_that_need_gradients_cost_one_graph_more(unet: nn.Module) -> None:
    adapted(unet, target_modules=["to_q"])
    graphs = Graphs()
    block = unet.down_blocks[0].attentions[0].transformer_blocks[0]
    block.compile(backend=graphs, fullgraph=True)
    with torch.no_grad():
        run(unet)
    assert graphs.count == 1
    for seed in range(3):
        run(unet, seed)
        with torch.no_grad():
            run(unet, seed)
    assert graphs.count == 2


def test_gates_that_come_after_the_first_call_are_seen(unet: nn.Module) -> None:
    adapted(unet, target_modules=["to_q"])
    expected = run(unet)
    unet.down_blocks[0].attentions[0].transformer_blocks[0].compile(fullgraph=True, backend="eager")
    with base_output(unet):
        run(unet)
    torch.testing.assert_close(run(unet), expected)


@pytest.mark.slow
def test_compiled_blocks_under_checkpointing_have_the_gradients_of_neither(unet: nn.Module) -> None:
    adapted(unet, target_modules=["to_q", "ff.net.2"])
    expected = gradients(unet, unet)
    unet.compile_repeated_blocks(fullgraph=True, backend="aot_eager")  # type: ignore[operator]
    unet.enable_gradient_checkpointing(checkpointing_function(cell_of(unet)))  # type: ignore[operator]
    for name, gradient in gradients(unet, unet, between=True).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-7, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("expert", EXPERTS)
def test_a_whole_compiled_model_under_checkpointing_has_the_gradients_of_neither(unet: nn.Module, expert: str) -> None:
    """The router stays outside the graph, the gates are inputs of it: recomputing sees them without being restored."""
    adapted(unet, expert=expert)
    expected = gradients(unet, unet)
    unet.enable_gradient_checkpointing(checkpointing_function(cell_of(unet)))  # type: ignore[operator]
    compiled = torch.compile(unet, backend="aot_eager", fullgraph=True)
    for between in (False, True):
        for name, gradient in gradients(unet, compiled, between).items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-7, msg=name)


class Doubling(nn.Module):
    """y = x times whatever the carrier holds."""

    def __init__(self, carrier: Any) -> None:
        super().__init__()
        self.carrier = carrier

    def forward(self, x: Tensor) -> Tensor:
        held: Tensor = self.carrier.get()
        return x * held


def test_a_context_variable_cannot_carry_gates() -> None:
    """Why the cell is a plain object: dynamo does not trace a ContextVar."""
    carrier: ContextVar[Tensor] = ContextVar("gates", default=torch.ones(1))  # noqa: B039
    compiled = torch.compile(Doubling(carrier), backend="eager", fullgraph=True)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        compiled(torch.ones(2))
