"""Layers of FeRA: a frozen layer plus gated low-rank experts, fused into two products.

The rows of A belong to the experts in turn, `r` rows each, and so do the columns of B.  With gates g (batch, experts)
whose uniform value is one, the output for a sample is

    y = base(x) + scaling * B diag(g repeated r times) A x,

so the gates act on the small activation and uniform gates give LoRA of rank `r * experts`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear
from torch.utils.checkpoint import checkpoint

from adapt.fera.config import FeraConfig
from spectra.errors import UserError


class GateCell:
    """Where the router leaves the gates and the layers find them; one per model, shared by all its layers.

    `gates` maps an adapter's name to (batch, experts); None asks for the base output.  Copies and pickles of a model
    start with an empty cell: gates belong to one forward pass, and their graph cannot be copied.
    """

    def __init__(self) -> None:
        self.gates: dict[str, Tensor] | None = None
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


@dataclass(frozen=True)
class RestoringCheckpoint:
    """Gradient checkpointing whose recomputation sees the gates of the forward pass, whatever the cell holds by then.

    An object, not a closure: a copied model then checkpoints with its own cell.
    """

    cell: GateCell

    def __call__(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """module(*args, **kwargs), recomputed in the backward pass."""
        gates = self.cell.gates

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), self.cell.holding(gates)

        return checkpoint(module.__call__, *args, use_reentrant=False, context_fn=contexts, **kwargs)


def checkpointing_function(cell: GateCell) -> RestoringCheckpoint:
    """What to hand to diffusers' `model.enable_gradient_checkpointing(...)`; `cell` comes from `cell_of(model)`."""
    return RestoringCheckpoint(cell)


class FeraLayer(BaseTunerLayer):  # type: ignore[misc, unused-ignore]
    """What the adapted layers and the router have in common: PEFT's and diffusers' view of a tuner layer."""

    adapter_layer_names: tuple[str, ...] = ()
    other_param_names: tuple[str, ...] = ("r", "scaling", "full_scaling")
    cast_input_dtype_enabled = False  # PEFT's switch for casting inputs to the adapter's type, which FeRA never does

    def _prepare(self, cell: GateCell) -> None:
        self.cell = cell  # a plain object: no submodule, and not in the state dict
        self.r: dict[str, int] = {}
        self.scaling: dict[str, float] = {}
        self.full_scaling: dict[str, float] = {}
        self._disable_adapters = False
        self.merged_adapters: list[str] = []

    def _remember(self, name: str, config: FeraConfig) -> None:
        self.r[name] = config.rank
        self.scaling[name] = self.full_scaling[name] = config.scaling

    def set_scale(self, adapter: str, scale: float) -> None:
        """Weight the adapter by `scale`, counted from its own scaling."""
        if adapter in self.scaling:
            self.scaling[adapter] = self.full_scaling[adapter] * scale

    def scale_layer(self, scale: float) -> None:
        """Multiply the weight of the active adapters."""
        for name in self._active_here():
            self.scaling[name] *= scale

    def unscale_layer(self, scale: float | None = None) -> None:
        """Divide the weight of the active adapters, or give them their own scaling back."""
        for name in self._active_here():
            self.scaling[name] = self.full_scaling[name] if scale is None else self.scaling[name] / scale

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Raises UserError: the update depends on the latent, so no single weight holds it."""
        raise UserError(MERGE_REFUSED)

    def unmerge(self) -> None:
        """Nothing is ever merged."""

    def _active_here(self) -> list[str]:
        return [name for name in self.active_adapters if name in self.scaling]

    def _move_adapter_to_device_of_base_layer(self, adapter_name: str, device: torch.device | None = None) -> None:
        """Move the adapter's weights; unlike PEFT's own version this keeps them in float32."""
        target = self._home() if device is None else device
        for attribute in self.adapter_layer_names:
            weights = getattr(self, attribute)
            if adapter_name in weights and not weights[adapter_name].is_meta:
                weights[adapter_name] = weights[adapter_name].to(target)

    def _home(self) -> torch.device:
        return cast(torch.device, self.get_base_layer().weight.device)


MERGE_REFUSED = (
    "a FeRA adapter cannot be merged into the weights, because its update follows the latent: "
    "keep it attached, or remove it with adapt.unload(model)"
)


class FeraProjection(nn.Module, FeraLayer):
    """A frozen linear map with fused experts; the subclasses say how A, B and the gates apply.

    `fera_A[name]`: (experts * r, in, ...), `fera_B[name]`: (out, experts * r, ...), both float32 whatever the base is;
    they are cast to the type of the input, which is never cast itself.  B starts at zero.
    """

    adapter_layer_names: tuple[str, ...] = ("fera_A", "fera_B")
    other_param_names: tuple[str, ...] = ("r", "scaling", "full_scaling", "fera_dropout")

    def __init__(self, base_layer: nn.Module, cell: GateCell) -> None:
        super().__init__()
        self.base_layer = base_layer
        self._prepare(cell)
        self.fera_A = nn.ParameterDict()
        self.fera_B = nn.ParameterDict()
        self.fera_dropout = nn.ModuleDict()
        self.train(base_layer.training)

    def update_layer(self, name: str, config: FeraConfig) -> None:
        """Add the experts of adapter `name`."""
        into, out = self._shapes(config.rank * config.num_experts)
        device = self._home()
        A = torch.empty(into, device=device)
        nn.init.kaiming_uniform_(A, a=math.sqrt(5))  # each row on its own, as in a LoRA of any rank
        self.fera_A[name] = nn.Parameter(A)
        self.fera_B[name] = nn.Parameter(torch.zeros(out, device=device))
        dropout = nn.Dropout(config.dropout) if config.dropout > 0 else nn.Identity()
        self.fera_dropout[name] = dropout.train(self.training)
        self._remember(name, config)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """base(x) plus the update of each active adapter; x (rows, ...) with rows a multiple of the gates' batch."""
        y = cast(Tensor, self.base_layer(x, *args, **kwargs))
        gates = self.cell.gates
        if gates is None or self.disable_adapters:
            return y
        for name in self._active_here():
            if name in gates:
                y = y + self._update(name, x, self._row_gates(name, x, gates[name])).to(y.dtype)
        return y

    def _row_gates(self, name: str, x: Tensor, gates: Tensor) -> Tensor:
        """Gates (batch, experts) as factors (rows, experts * r), scaling included.

        Where frames or patches are folded into the batch, `rows` is a multiple of `batch`; the sample varies slowest.
        """
        folds, rest = divmod(x.shape[0], gates.shape[0])
        if rest or not folds:
            raise UserError(
                f"a FeRA layer got {x.shape[0]} rows but gates for {gates.shape[0]} samples: "
                "give every argument of the denoiser the batch size of the latent"
            )
        if folds > 1:
            gates = gates.repeat_interleave(folds, dim=0)
        return gates.repeat_interleave(self.r[name], dim=1) * self.scaling[name]

    def _shapes(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        raise NotImplementedError

    def _update(self, name: str, x: Tensor, factors: Tensor) -> Tensor:
        raise NotImplementedError


class FeraLinear(FeraProjection):
    """A frozen nn.Linear with experts: x (rows, ..., in) -> (rows, ..., out)."""

    def _shapes(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        base = cast(nn.Linear, self.base_layer)
        return (rank, base.in_features), (base.out_features, rank)

    def _update(self, name: str, x: Tensor, factors: Tensor) -> Tensor:
        hidden = linear(self.fera_dropout[name](x), self.fera_A[name].to(x.dtype))
        factors = factors.view(x.shape[0], *(1,) * (x.ndim - 2), -1).to(hidden)
        return linear(hidden * factors, self.fera_B[name].to(x.dtype))


class FeraConv2d(FeraProjection):
    """A frozen ordinary nn.Conv2d with experts: A has the base's kernel, stride and padding, B is 1 x 1."""

    def _shapes(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        base = cast(nn.Conv2d, self.base_layer)
        return (rank, base.in_channels, *base.kernel_size), (base.out_channels, rank, 1, 1)

    def _update(self, name: str, x: Tensor, factors: Tensor) -> Tensor:
        base = cast(nn.Conv2d, self.base_layer)
        A, B = self.fera_A[name].to(x.dtype), self.fera_B[name].to(x.dtype)
        hidden = conv2d(self.fera_dropout[name](x), A, None, base.stride, base.padding, base.dilation)
        return conv2d(hidden * factors.view(x.shape[0], -1, 1, 1).to(hidden), B)


def layer_class(module: nn.Module) -> type[FeraProjection] | None:
    """The FeRA layer that can wrap `module`, or None."""
    if isinstance(module, nn.Linear):
        return FeraLinear
    if isinstance(module, nn.Conv2d) and module.groups == 1 and module.padding_mode == "zeros":
        return FeraConv2d
    return None
