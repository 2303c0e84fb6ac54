"""How gates travel from the router to the layers: one cell per model, and checkpointing that puts its gates back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class GateCell:
    """Where the router leaves the gates and the layers find them; one per model, shared by all its layers.

    `gates` maps an adapter's name to (batch, experts); None asks for the base output.  Copies and pickles of a model
    start with an empty cell: gates belong to one forward pass, and their graph cannot be copied.

    `edits` maps an adapter's name to a function of its gates, which is applied to what the router gives.
    """

    def __init__(self) -> None:
        self.gates: dict[str, Tensor] | None = None
        self.edits: dict[str, Callable[[Tensor], Tensor]] = {}
        self.bypassed = False

    def __reduce__(self) -> tuple[type[GateCell], tuple[()]]:
        return GateCell, ()

    @contextmanager
    def holding(self, gates: dict[str, Tensor] | None) -> Iterator[None]:
        """Hold other gates for a while."""
        before, self.gates = self.gates, gates
        try:
            yield
        finally:
            self.gates = before

    def fill(self, gates: dict[str, Tensor]) -> None:
        """Hold the gates that the routers gave, edited where that is asked for."""
        self.gates = {name: self.edits[name](one) if name in self.edits else one for name, one in gates.items()}


@dataclass(frozen=True)
class RestoringCheckpoint:
    """Gradient checkpointing whose recomputation sees the gates of the forward pass, whatever the cell holds by then.

    An object, not a closure: a copied model then checkpoints with its own cell.  Combine it with regional compile
    (`model.compile_repeated_blocks`), where this call stays outside the graphs.  In a graph of the whole model no
    context can be restored, nor need it be: there the gates are values of the graph, which recompute like any other.
    """

    cell: GateCell

    def __call__(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """module(*args, **kwargs), recomputed in the backward pass."""
        if torch.compiler.is_compiling():
            return checkpoint(module.__call__, *args, use_reentrant=False, **kwargs)
        gates = self.cell.gates

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), self.cell.holding(gates)

        return checkpoint(module.__call__, *args, use_reentrant=False, context_fn=contexts, **kwargs)


def checkpointing_function(cell: GateCell) -> RestoringCheckpoint:
    """What to hand to diffusers' `model.enable_gradient_checkpointing(...)`; `cell` comes from `cell_of(model)`."""
    return RestoringCheckpoint(cell)
