"""Layers of FeRA: a frozen layer, and what each active adapter's experts add to its output.

The rows of A belong to the experts in turn, `r` rows each, and so do the columns of B; the gates act on the small
activation between them.  The formulas of every kind of expert are in `adapt.fera.experts`.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from adapt.fera.cell import GateCell, RestoringCheckpoint, checkpointing_function
from adapt.fera.config import FeraConfig
from adapt.fera.experts import EXPERTS, Experts
from spectra.errors import UserError

__all__ = ["FeraConv2d", "FeraLayer", "FeraLinear", "FeraProjection", "GateCell", "RestoringCheckpoint"]
__all__ += ["checkpointing_function", "layer_class", "refusal"]


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
    """A frozen linear map with experts; the subclasses say how A, B and factors per output apply.

    Each adapter has tensors of its kind, all float32 whatever the base is; they are cast to the type of the input,
    which is never cast itself.

        fera_A          (total rank, in, ...)         `lora`, `dora`, `loha`
        fera_B          (out, total rank, ...)        the same; starts at zero but in `loha`
        fera_C, fera_D  as A and B                    `loha`; C starts at zero
        fera_magnitude  (out,)                        `dora`
        fera_vectors    (experts [+ 1 shared], out)   `ia3`; starts at zero
    """

    adapter_layer_names: tuple[str, ...] = (
        "fera_A", "fera_B", "fera_C", "fera_D", "fera_magnitude", "fera_vectors",
    )  # fmt: skip
    other_param_names: tuple[str, ...] = ("r", "scaling", "full_scaling", "shared_rank", "kinds", "fera_dropout")

    def __init__(self, base_layer: nn.Module, cell: GateCell) -> None:
        super().__init__()
        self.base_layer = base_layer
        self._prepare(cell)
        self.shared_rank: dict[str, int] = {}
        self.kinds: dict[str, Experts] = {}
        self.fera_A, self.fera_B = nn.ParameterDict(), nn.ParameterDict()
        self.fera_C, self.fera_D = nn.ParameterDict(), nn.ParameterDict()
        self.fera_magnitude, self.fera_vectors = nn.ParameterDict(), nn.ParameterDict()
        self.fera_dropout = nn.ModuleDict()
        self.train(base_layer.training)

    def update_layer(self, name: str, config: FeraConfig) -> None:
        """Add the experts of adapter `name`."""
        kind = EXPERTS[config.expert]
        for part, value in kind.start(self, config).items():
            getattr(self, part)[name] = nn.Parameter(value)
        dropout = nn.Dropout(config.dropout) if config.dropout > 0 else nn.Identity()
        self.fera_dropout[name] = dropout.train(self.training)
        self.kinds[name], self.shared_rank[name] = kind, config.shared_rank
        self._remember(name, config)

    def forward(self, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """base(x) plus the update of each active adapter; x (rows, ...) with rows a multiple of the gates' batch.

        The argument has torch's name for it, since some models pass it by name.
        """
        x, base = input, cast(Tensor, self.base_layer(input, *args, **kwargs))
        gates = self.cell.gates
        if gates is None or self.disable_adapters:
            return base
        y = base
        for name in self._active_here():
            if name in gates:
                y = y + self.kinds[name].update(self, name, x, base, _of_rows(gates[name], x)).to(y.dtype)
        return y

    def base_weight(self) -> Tensor:
        """Weight of the frozen layer (out, in, ...)."""
        return cast(Tensor, self.base_layer.weight)

    def base_bias(self) -> Tensor | None:
        """Bias of the frozen layer (out,), or None."""
        return cast("Tensor | None", self.base_layer.bias)

    def factor_shapes(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of A and B."""
        raise NotImplementedError

    def down(self, x: Tensor, A: Tensor) -> Tensor:
        """A x."""
        raise NotImplementedError

    def up(self, hidden: Tensor, B: Tensor) -> Tensor:
        """B h."""
        raise NotImplementedError

    def along_outputs(self, values: Tensor, y: Tensor) -> Tensor:
        """Values (rows or 1, outputs) in the type of y (rows, ...), shaped to multiply it."""
        raise NotImplementedError


def _of_rows(gates: Tensor, x: Tensor) -> Tensor:
    """Gates (batch, experts) -> (rows, experts).

    Where frames or patches are folded into the batch, `rows` is a multiple of `batch`; the sample varies slowest.
    """
    folds, rest = divmod(x.shape[0], gates.shape[0])
    if rest or not folds:
        raise UserError(
            f"a FeRA layer got {x.shape[0]} rows but gates for {gates.shape[0]} samples: "
            "give every argument of the denoiser the batch size of the latent"
        )
    return gates.repeat_interleave(folds, dim=0) if folds > 1 else gates


class FeraLinear(FeraProjection):
    """A frozen nn.Linear with experts: x (rows, ..., in) -> (rows, ..., out)."""

    def factor_shapes(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """A (rank, in), B (out, rank)."""
        base = cast(nn.Linear, self.base_layer)
        return (rank, base.in_features), (base.out_features, rank)

    def down(self, x: Tensor, A: Tensor) -> Tensor:
        """x (rows, ..., in) -> (rows, ..., rank)."""
        return linear(x, A)

    def up(self, hidden: Tensor, B: Tensor) -> Tensor:
        """h (rows, ..., rank) -> (rows, ..., out)."""
        return linear(hidden, B)

    def along_outputs(self, values: Tensor, y: Tensor) -> Tensor:
        """(rows, outputs) -> (rows, 1, ..., outputs)."""
        return values.view(values.shape[0], *(1,) * (y.ndim - 2), -1).to(y.dtype)


class FeraConv2d(FeraProjection):
    """A frozen ordinary nn.Conv2d with experts: A has the base's kernel, stride and padding, B is 1 x 1."""

    def factor_shapes(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """A (rank, in, kernel), B (out, rank, 1, 1)."""
        base = cast(nn.Conv2d, self.base_layer)
        return (rank, base.in_channels, *base.kernel_size), (base.out_channels, rank, 1, 1)

    def down(self, x: Tensor, A: Tensor) -> Tensor:
        """x (rows, in, h, w) -> (rows, rank, h', w')."""
        base = cast(nn.Conv2d, self.base_layer)
        return conv2d(x, A, None, base.stride, base.padding, base.dilation)

    def up(self, hidden: Tensor, B: Tensor) -> Tensor:
        """h (rows, rank, h', w') -> (rows, out, h', w')."""
        return conv2d(hidden, B)

    def along_outputs(self, values: Tensor, y: Tensor) -> Tensor:
        """(rows, outputs) -> (rows, outputs, 1, 1)."""
        return values.view(values.shape[0], -1, 1, 1).to(y.dtype)


QUANTISERS = ("bitsandbytes", "torchao", "optimum")
"""Packages whose quantised nn.Linear computes in the type of its input and passes gradients to it."""


def layer_class(module: nn.Module) -> type[FeraProjection] | None:
    """The FeRA layer that can wrap `module`, or None."""
    if isinstance(module, nn.Linear) and not isinstance(module, NonDynamicallyQuantizableLinear):
        return FeraLinear  # the exception is read by nn.MultiheadAttention, which never calls it
    if isinstance(module, nn.Conv2d) and module.groups == 1 and module.padding_mode == "zeros":
        return FeraConv2d
    return None


def refusal(name: str, module: nn.Module, expert: str) -> str | None:
    """Why a Linear or Conv2d cannot have experts of this kind, or None.

    All but `dora` only call their base, so layers quantised by bitsandbytes, torchao or optimum-quanto serve; `dora`
    reads the weight.  Layers of other packages whose weight is no floating-point tensor are not guessed at.
    """
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor):
        return f"FeRA does not support the base layer {name} of class {type(module).__name__}, which has no weight"
    makers = {type(part).__module__.partition(".")[0] for part in (module, weight, weight.data)}
    known = not makers.isdisjoint(QUANTISERS)
    if weight.is_floating_point() and not known:
        return None
    if known and not EXPERTS[expert].needs_weight:
        return None
    cure = "use expert='lora', or load" if known else "load"
    return (
        f"FeRA does not support experts of kind {expert!r} on the base layer {name} of class {type(module).__name__}, "
        f"whose weight is {str(weight.dtype).removeprefix('torch.')} {type(weight).__name__}: "
        f"{cure} the model in bf16, fp16 or fp32"
    )
