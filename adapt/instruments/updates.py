"""What was learned, as updates of weights: how large, of what rank, and how much they differ between noise levels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adapt.fera.experts import factors_of, ranks_of
from adapt.fera.layer import FeraProjection


class Factors(NamedTuple):
    """A low-rank update B A of a weight, without its scaling: A (rank, in), B (out, rank); kernels are flattened."""

    A: Tensor
    B: Tensor

    def inner(self, other: Factors) -> Tensor:
        """<B A, B' A'> = sum((B^T B') * (A A'^T)), scalar; no matrix of the size of the weight is made."""
        found: Tensor = ((self.B.T @ other.B) * (self.A @ other.A.T)).sum()
        return found

    def singular_values(self) -> Tensor:
        """Of B A, (rank or less,), falling."""
        left, right = torch.linalg.qr(self.B)[1], torch.linalg.qr(self.A.T)[1]
        found: Tensor = torch.linalg.svdvals(left @ right.T)
        return found


def effective_rank(singular: Tensor) -> Tensor:
    """exp of the entropy of the singular values' shares (Roy and Vetterli 2007): (..., n) -> (...), 1 to n, or 0."""
    share = singular / singular.sum(-1, keepdim=True).clamp_min(torch.finfo(singular.dtype).tiny)
    return torch.where(singular.sum(-1) > 0, torch.special.entr(share).sum(-1).exp(), 0.0)


def experts_of(denoiser: Any, name: str = "default") -> dict[str, list[Factors]]:
    """Updates of every layer's experts, scaled, the shared part last where there is one; experts of FeRA's low-rank
    kinds only (of `dora` without its magnitudes).

    Of other adapters made of two factors (LoRA, DoRA, AdaLoRA) each layer has one.
    """
    found = dict(_fera(denoiser, name))
    return found or dict(_lora(denoiser, name))


def _fera(denoiser: Any, name: str) -> Iterator[tuple[str, list[Factors]]]:
    for path, layer in denoiser.named_modules():
        if isinstance(layer, FeraProjection) and name in layer.fera_A:
            A, B = (part.detach().double().cpu().flatten(1) for part in factors_of(layer, name))
            rank, shared = ranks_of(layer, name)
            ranks = [rank] * ((len(A) - shared) // rank) + [shared] * (shared > 0)
            pairs = zip(A.split(ranks), B.split(ranks, 1), strict=True)
            yield path, [Factors(a, b * layer.scaling[name]) for a, b in pairs]


def _lora(denoiser: Any, name: str) -> Iterator[tuple[str, list[Factors]]]:
    from peft.tuners.adalora import AdaLoraLayer
    from peft.tuners.lora import LoraLayer

    for path, layer in denoiser.named_modules():
        if isinstance(layer, AdaLoraLayer) and name in layer.lora_A:
            yield path, [_pruned(layer, name)]
        elif isinstance(layer, LoraLayer) and name in layer.lora_A:
            A, B = (part[name].weight.detach().double().cpu().flatten(1) for part in (layer.lora_A, layer.lora_B))
            yield path, [Factors(A, B * layer.scaling[name])]


def _pruned(layer: Any, name: str) -> Factors:
    """AdaLoRA's update B diag(E) A, over the rank that is left: PEFT divides by it."""
    A, E, B, rank = (getattr(layer, part)[name].detach().double().cpu()
                     for part in ("lora_A", "lora_E", "lora_B", "ranknum"))  # fmt: skip
    return Factors(A * E, B * layer.scaling[name] / (rank + 1e-5))


def mixed(parts: list[Factors], gates: Tensor) -> Factors:
    """The update that gates (experts,) make of a layer's experts; a shared part beyond them counts whole."""
    factors = [*gates.double().tolist(), *[1.0] * (len(parts) - len(gates))]
    B = torch.cat([part.B * factor for part, factor in zip(parts, factors, strict=True)], 1)
    return Factors(torch.cat([part.A for part in parts]), B)


def inner_products(updates: list[list[Factors]]) -> Tensor:
    """Inner products (n, n) of n updates of the whole network: those of their layers, [layer][update], added up."""
    count = len(updates[0])
    rows = [[sum(layer[i].inner(layer[j]) for layer in updates) for j in range(count)] for i in range(count)]
    return torch.tensor(rows, dtype=torch.float64)


def owners(denoiser: Any, parameters: dict[str, Tensor], name: str = "default") -> Tensor:
    """Which expert each number of `parameters`, laid end to end, belongs to, (numbers,); -1 for what all share."""
    return torch.cat([_owner(denoiser, path, value, name).flatten() for path, value in parameters.items()])


def _owner(denoiser: Any, path: str, value: Tensor, name: str) -> Tensor:
    layer_path, _, attribute = path.removesuffix(f".{name}").rpartition(".")
    layer, found = denoiser.get_submodule(layer_path), torch.full(value.shape, -1)
    axis = {"fera_A": 0, "fera_B": 1, "fera_vectors": 0}.get(attribute)
    if axis is not None and isinstance(layer, FeraProjection):
        rank = 1 if attribute == "fera_vectors" else layer.r[name]
        always = min(layer.shared_rank[name], 1) if attribute == "fera_vectors" else layer.shared_rank[name]
        routed = value.shape[axis] - always
        index = torch.arange(value.shape[axis])
        own = torch.where(index < routed, index // rank, -1)
        found[:] = own.reshape([-1 if i == axis else 1 for i in range(value.ndim)])
    return found
