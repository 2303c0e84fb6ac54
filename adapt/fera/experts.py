"""The kinds of experts: what each adds to the output of a frozen layer, given the gates of the samples.

With the layer's output y = W x + b, gates g (rows, experts) whose uniform value is one, and s = alpha / total rank:

    lora   s B diag(g) A x                       each expert owns `r` rows of A and columns of B
    dora   (c - 1) (y - b) + c s B diag(g) A x   c = m / ||W + s B A|| per output, with one trained magnitude m
    loha   s ((B diag(g) A) * (D C)) x           * is element by element; C and D, as large as A and B, are shared
    ia3    s (g L) y                             each expert owns one row of L, which scales the outputs

Uniform gates give LoRA (Hu et al. 2021), DoRA (Liu et al. 2024, https://arxiv.org/abs/2402.09353), LoHa (Hyeon-Woo et
al. 2022, https://arxiv.org/abs/2108.06098) and IA3 (Liu et al. 2022, with l = 1 + s sum_m L_m) exactly.  In `dora` the
norm is that of the uniform mixture, for every sample, and is held constant in the backward pass, as in the paper: a
norm per sample would need a weight per sample.

The product of two products is a product again, of the square of the rank R: (B A) * (D C) = F E, where row i R + j of E
is A[i] * C[j] and column i R + j of F is B[:, i] * D[:, j] (Khatri-Rao products).  So `loha` is computed as `lora` with
E and F, which are made anew in each call; it costs what a LoRA of rank R^2 costs, and no weight per sample is made.

Dropout acts on the input of A (and E) only.  What is always on (`shared_rank`) comes after the experts and has gate
one: further rows of A for `lora`, `dora` and `loha`, and one further row of L for `ia3`.  The latter has no rank: `r`
and `total_rank` count no parameters there, and `total_rank` only divides `alpha`, so that s is one by default as for
the others.

All kinds add to the base output, so several adapters add up, and an adapter of weight zero is absent.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from spectra.errors import UserError

if TYPE_CHECKING:
    from adapt.fera.config import FeraConfig
    from adapt.fera.layer import FeraProjection


class Experts(Protocol):
    """One kind of experts; it holds nothing, the layer holds the tensors."""

    @property
    def needs_weight(self) -> bool:
        """True where the values of the base weight are read, which a quantised layer does not show."""
        ...

    def start(self, layer: FeraProjection, config: FeraConfig) -> dict[str, Tensor]:
        """First values of the trained tensors, float32, by the names under which the layer keeps them."""
        ...

    def update(self, layer: FeraProjection, name: str, x: Tensor, y: Tensor, gates: Tensor) -> Tensor:
        """What adapter `name` adds to y = base(x); gates (rows, experts)."""
        ...


@dataclass(frozen=True)
class Lora:
    """Low-rank experts, fused into two products for all of them."""

    needs_weight: bool = False

    def start(self, layer: FeraProjection, config: FeraConfig) -> dict[str, Tensor]:
        """A as in a LoRA of the total rank, each row drawn on its own; B is zero."""
        assert config.total_rank is not None
        down, up = layer.factor_shapes(config.total_rank)
        A = torch.empty(down, device=layer.base_weight().device)
        nn.init.kaiming_uniform_(A, a=math.sqrt(5))
        return {"fera_A": A, "fera_B": torch.zeros(up, device=A.device)}

    def update(self, layer: FeraProjection, name: str, x: Tensor, y: Tensor, gates: Tensor) -> Tensor:
        """s B diag(g) A x."""
        return low_rank(layer, name, x, gates, layer.scaling[name])


@dataclass(frozen=True)
class Loha(Lora):
    """Low-rank experts, each multiplied with a second low-rank update that all share: s F diag(g) E x.

    What is added is that of `Lora`, whose factors `factors_of` multiplies out.
    """

    def start(self, layer: FeraProjection, config: FeraConfig) -> dict[str, Tensor]:
        """All factors but C drawn as peft draws them, as FedPara does; C is zero."""
        assert config.total_rank is not None
        down, up = layer.factor_shapes(config.total_rank)
        A, B, D = (torch.empty(shape, device=layer.base_weight().device) for shape in (down, up, up))
        for part in (A, B, D):
            nn.init.kaiming_uniform_(part, a=math.sqrt(5))
        return {"fera_A": A, "fera_B": B, "fera_C": torch.zeros(down, device=A.device), "fera_D": D}


@dataclass(frozen=True)
class Dora:
    """Low-rank experts and one trained magnitude per output, shared by them."""

    needs_weight: bool = True

    def start(self, layer: FeraProjection, config: FeraConfig) -> dict[str, Tensor]:
        """The factors of `Lora`, and the norms of the rows of the weight."""
        factors = Lora().start(layer, config)
        norm = direction_norm(layer.base_weight(), factors["fera_A"], factors["fera_B"], config.scaling)
        return {**factors, "fera_magnitude": norm}

    def update(self, layer: FeraProjection, name: str, x: Tensor, y: Tensor, gates: Tensor) -> Tensor:
        """(c - 1) (y - b) + c s B diag(g) A x, times the weight that `set_scale` gave the adapter."""
        own, weight = layer.full_scaling[name], layer.scaling[name] / layer.full_scaling[name]
        norm = direction_norm(layer.base_weight(), layer.fera_A[name], layer.fera_B[name], own)
        c, bias = layer.fera_magnitude[name] / norm, layer.base_bias()
        product = y if bias is None else y - layer.along_outputs(bias[None], y)
        update = low_rank(layer, name, x, gates, own)
        grown, turned = (layer.along_outputs((value * weight)[None], y) for value in (c - 1, c))
        return grown * product + turned * update


@dataclass(frozen=True)
class Ia3:
    """Experts that scale the outputs; the rows of L start at zero."""

    needs_weight: bool = False

    def start(self, layer: FeraProjection, config: FeraConfig) -> dict[str, Tensor]:
        """L: (experts, out), with one more row where a part is shared."""
        rows = config.num_experts + (config.shared_rank > 0)
        return {"fera_vectors": torch.zeros(rows, layer.factor_shapes(1)[1][0], device=layer.base_weight().device)}

    def update(self, layer: FeraProjection, name: str, x: Tensor, y: Tensor, gates: Tensor) -> Tensor:
        """s (g L) y."""
        factors = rank_factors(gates, 1, min(layer.shared_rank[name], 1)) * layer.scaling[name]
        return layer.along_outputs(factors @ layer.fera_vectors[name].to(factors), y) * y


EXPERTS: dict[str, Experts] = {"lora": Lora(), "dora": Dora(), "loha": Loha(), "ia3": Ia3()}
"""The kinds, by the name that `FeraConfig.expert` gives them."""


def check_experts(config: FeraConfig) -> None:
    """Raises UserError for a setting that its kind of experts would leave without effect."""
    if config.expert == "ia3" and config.dropout > 0:
        raise UserError(f"FeraConfig: experts of kind 'ia3' have no dropout; leave out dropout={config.dropout}")


def rank_factors(gates: Tensor, rank: int, shared: int) -> Tensor:
    """Gates (rows, experts) -> one factor for each row of A (rows, experts * rank + shared); what is shared has one."""
    factors = gates if rank == 1 else gates.repeat_interleave(rank, dim=1)
    return torch.cat([factors, factors.new_ones(factors.shape[0], shared)], 1) if shared else factors


def factors_of(layer: FeraProjection, name: str) -> tuple[Tensor, Tensor]:
    """A (rank, in, ...) and B (out, rank, ...) of the update B diag(g) A; of `loha` E and F."""
    A, B = layer.fera_A[name], layer.fera_B[name]
    if name not in layer.fera_C:
        return A, B
    C, D = layer.fera_C[name], layer.fera_D[name]
    return (A[:, None] * C).flatten(0, 1), (B[:, :, None] * D[:, None]).flatten(1, 2)


def ranks_of(layer: FeraProjection, name: str) -> tuple[int, int]:
    """Rows of that A for each expert, and those that are always on."""
    times = len(layer.fera_C[name]) if name in layer.fera_C else 1
    return layer.r[name] * times, layer.shared_rank[name] * times


def low_rank(layer: FeraProjection, name: str, x: Tensor, gates: Tensor, scaling: float) -> Tensor:
    """scaling B diag(g) A x in the type of x."""
    A, B = factors_of(layer, name)
    factors = rank_factors(gates, *ranks_of(layer, name)) * scaling
    hidden = layer.down(layer.fera_dropout[name](x), A.to(x.dtype))
    return layer.up(hidden * layer.along_outputs(factors, hidden), B.to(x.dtype))


@torch.no_grad()
def direction_norm(weight: Tensor, A: Tensor, B: Tensor, scaling: float) -> Tensor:
    """Norms ||W + s B A|| of the rows, in float32: weight (out, ...), A (rank, ...), B (out, rank, ...) -> (out,).

    From ||W||^2 + 2 s <W, B A> + s^2 ||B A||^2, whose products are as small as the rank: no matrix of the size of W is
    made, as peft makes two.  Computed by one formula at the start and later, so a fresh adapter has c = 1 exactly.
    """
    weight, A, B = weight.flatten(1), A.float().flatten(1), B.float().flatten(1)
    if weight.dtype.itemsize == 1:  # stored in eight bits between calls
        weight = weight.float()
    with _own_precision(weight):
        along = (weight @ A.T.to(weight.dtype)).float() * B
        across = (B @ (A @ A.T)) * B
        own = torch.linalg.vector_norm(weight, dim=1, dtype=torch.float32).square()
    square = own + 2 * scaling * along.sum(1) + scaling**2 * across.sum(1)
    norm: Tensor = square.clamp_min(torch.finfo(torch.float32).tiny).sqrt()
    return norm


def _own_precision(weight: Tensor) -> AbstractContextManager[object]:
    """Autocast off: norms are measured in the types that they are given."""
    device = weight.device.type
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
