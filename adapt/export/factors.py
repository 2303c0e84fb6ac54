"""An adapter as plain low-rank factors, layer by layer: exact where it is one, else the nearest ones of a rank.

Every update is written as `up @ down` with its scale inside `up`, so a reader that takes alpha = rank, or ignores alpha
as some do, computes the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from peft.tuners.lora.layer import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from adapt.methods import NAME
from spectra.errors import UserError

RANK = 64
"""Largest rank of factors that only come near an update."""
VANISHING = 1e-6
"""Singular values below this part of the largest one are rounding, and are cut."""


class Factors(NamedTuple):
    """The update of one layer: down (rank, in) or (rank, in, h, w), up (out, rank) or (out, rank, 1, 1)."""

    down: Tensor
    up: Tensor
    magnitude: Tensor | None = None
    """DoRA's magnitude of the outputs, as PEFT shapes it."""

    @property
    def rank(self) -> int:
        """Rank of the update."""
        return int(self.down.shape[0])

    @property
    def delta(self) -> Tensor:
        """What is added to the weight, (out, in) with kernels flattened."""
        return self.up.flatten(1) @ self.down.flatten(1)


def of_lora(model: nn.Module) -> dict[str, Factors]:
    """The factors of a LoRA or DoRA, as they are."""
    found: dict[str, Factors] = {}
    for name, layer in adapted_layers(model):
        if not isinstance(layer, LoraLayer) or NAME not in layer.lora_A:
            raise UserError(f"{name} has no LoRA but a {type(layer).__name__}")
        down, up = (_weight(part[NAME]) for part in (layer.lora_A, layer.lora_B))
        magnitude = _weight(layer.lora_magnitude_vector[NAME]) if layer.use_dora.get(NAME) else None
        found[name] = Factors(down, up * layer.scaling[NAME], magnitude)
    return found


def nearest(model: nn.Module, rank: int = RANK) -> dict[str, Factors]:
    """The best factors of at most this rank for any PEFT method that can be merged, by singular values."""
    found: dict[str, Factors] = {}
    for name, layer in adapted_layers(model):
        found[name] = truncated(merged_difference(layer), layer.get_base_layer(), rank)
    return found


@torch.no_grad()
def merged_difference(layer: Any) -> Tensor:
    """What an adapter adds to the weight of its layer, float32; the layer stays as it was."""
    base = layer.get_base_layer()
    with _restored(base):
        before = base.weight.data = base.weight.data.float().clone()
        before = before.clone()
        layer.merge(adapter_names=[NAME])
        layer.merged_adapters.clear()
        difference: Tensor = base.weight.data - before
    return difference


@torch.no_grad()
def truncated(delta: Tensor, base: nn.Module, rank: int = RANK) -> Factors:
    """The best factors of a dense update (out, in, ...) of a Linear or Conv2d."""
    U, S, V = torch.linalg.svd(delta.float().flatten(1), full_matrices=False)
    keep = max(1, min(rank, int((VANISHING * S[0].clamp_min(1e-30) < S).sum())))
    up, down = U[:, :keep] * S[:keep], V[:keep]
    return shaped(down, up, base)


def shaped(down: Tensor, up: Tensor, base: nn.Module) -> Factors:
    """Flat factors in the shapes of a LoRA on this layer, on the CPU in float32."""
    if isinstance(base, nn.Conv2d):
        down, up = down.reshape(-1, base.in_channels, *base.kernel_size), up.reshape(base.out_channels, -1, 1, 1)
    return Factors(_plain(down), _plain(up))


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Names and tuner layers of what an adapter reaches."""
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer) and hasattr(module, "base_layer"):
            yield name, module


def layer_names(model: nn.Module) -> list[str]:
    """Names of the adapted layers as files have them, those of text encoders with their prefix."""
    rule = _with_prefix if type(model).__name__.startswith("CLIP") else str
    return [rule(name) for name, _ in adapted_layers(model)]


def of_fera(model: nn.Module, gates: Tensor, rank: int = RANK) -> dict[str, Factors]:
    """The factors of a FeRA adapter whose gates are held at `gates` (experts,).

    Exact for `lora` and `loha` experts, where the gates scale columns of B; the latter become a LoRA of the square of
    their rank.  `dora` and `ia3` experts give an update of full rank, which is cut to `rank`; what `ia3` does to a bias
    is lost.
    """
    return {name: _fera_layer(layer, gates, rank) for name, layer in adapted_layers(model)}


@torch.no_grad()
def _fera_layer(layer: Any, gates: Tensor, rank: int) -> Factors:
    from adapt.fera.experts import direction_norm, factors_of, rank_factors, ranks_of

    scaling, base, shared = layer.scaling[NAME], layer.get_base_layer(), layer.shared_rank[NAME]
    gates = gates.float().to(base.weight.device)
    if NAME in layer.fera_vectors:
        vectors = layer.fera_vectors[NAME].float()
        factors = rank_factors(gates[None], 1, min(shared, 1))[0] @ vectors * scaling
        return truncated(factors[:, None] * base.weight.float().flatten(1), base, rank)
    down, up = (part.float().flatten(1) for part in factors_of(layer, NAME))
    turned = up * rank_factors(gates[None], *ranks_of(layer, NAME))[0] * scaling
    if NAME not in layer.fera_magnitude:
        return shaped(down, turned, base)
    norm = direction_norm(base.weight, layer.fera_A[NAME], layer.fera_B[NAME], layer.full_scaling[NAME])
    c = (layer.fera_magnitude[NAME] / norm)[:, None]
    return truncated((c - 1) * base.weight.float().flatten(1) + c * (turned @ down), base, rank)


def by_expert(model: nn.Module) -> dict[str, dict[str, Factors]]:
    """The parts of a FeRA adapter with `lora` or `loha` experts: `expert0` ... and `shared` -> their factors.

    With gates g the adapter is the sum of g_e times expert e, and the shared part.
    """
    from adapt.fera.experts import factors_of, ranks_of

    parts: dict[str, dict[str, Factors]] = {}
    for name, layer in adapted_layers(model):
        if NAME in layer.fera_vectors or NAME in layer.fera_magnitude:
            raise UserError(
                "scheduled-loras needs FeRA with experts of kind 'lora' or 'loha'; export static-lora or peft"
            )
        down, up = (part.float().flatten(1) for part in factors_of(layer, NAME))
        for part, columns in _columns(down.shape[0], *ranks_of(layer, NAME)).items():
            parts.setdefault(part, {})[name] = shaped(
                down[columns], up[:, columns] * layer.scaling[NAME], layer.get_base_layer()
            )
    return parts


def _columns(total: int, rank: int, shared: int) -> dict[str, slice]:
    experts = {f"expert{e}": slice(e * rank, (e + 1) * rank) for e in range((total - shared) // rank)}
    return experts | ({"shared": slice(total - shared, total)} if shared else {})


@contextmanager
def _restored(base: Any) -> Iterator[None]:
    """Give weight and bias back as the very tensors that they were."""
    kept = {name: p.data for name, p in base.named_parameters(recurse=False)}
    for name, p in base.named_parameters(recurse=False):
        p.data = kept[name].clone()
    try:
        yield
    finally:
        for name, p in base.named_parameters(recurse=False):
            p.data = kept[name]


def _weight(part: Any) -> Tensor:
    return _plain(part.weight)


def _plain(value: Tensor) -> Tensor:
    return value.detach().float().cpu().contiguous().clone()


def renamed(factors: dict[str, Factors], rule: Callable[[str], str]) -> dict[str, Factors]:
    """The same factors under other names of layers."""
    return {rule(name): value for name, value in factors.items()}


def text_factors(pipe: Any) -> dict[str, dict[str, Factors]]:
    """The factors of the adapted text encoders, with the prefix `text_model.` that files have always had."""
    from adapt.methods.text_encoders import adapted

    return {part: renamed(of_lora(encoder), _with_prefix) for part, encoder in adapted(pipe)}


def _with_prefix(name: str) -> str:
    return name if re.match(r"text_model\.", name) else f"text_model.{name}"
