"""The adapted layer of FeRA's published code, restated from its description, to have something to be faster than.

Each expert is a module of its own with a `down`, an `up` and a dropout; the layer stacks the outputs of all experts and
adds them up with one weight a sample.  Targets are q, k and v of attention only, as there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

QKV = ("to_q", "to_k", "to_v")


class Expert(nn.Module):
    """up(down(dropout(x))) * alpha / rank, without biases; up starts at zero."""

    def __init__(self, into: int, out: int, rank: int, alpha: float) -> None:
        super().__init__()
        self.down = nn.Linear(into, rank, bias=False)
        self.up = nn.Linear(rank, out, bias=False)
        self.dropout = nn.Dropout(0.0)
        self.scale = alpha / rank
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, ..., in) -> (rows, ..., out)."""
        out: Tensor = self.up(self.down(self.dropout(x))) * self.scale
        return out


class PublishedLinear(nn.Module):
    """base(x) + sum over experts of gate * expert(x); without gates the base alone."""

    def __init__(self, base: nn.Linear, rank: int, experts: int, alpha: float) -> None:
        super().__init__()
        self.base_layer = base
        made = [Expert(base.in_features, base.out_features, rank, alpha) for _ in range(experts)]
        self.experts = nn.ModuleList(made).to(base.weight)
        self.gates: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(rows, ..., in) -> (rows, ..., out); gates are (rows, experts)."""
        y: Tensor = self.base_layer(x)
        if self.gates is None:
            return y
        every = torch.stack([expert(x) for expert in self.experts], dim=1)
        weights = self.gates.view(*self.gates.shape, *(1,) * (x.ndim - 1))
        return y + (weights * every).sum(1)


class PublishedFera(nn.Module):
    """A denoiser with published layers on q, k and v, and the router that a caller runs before each step."""

    def __init__(self, denoiser: nn.Module, rank: int, experts: int, bands: int, alpha: float = 1.0) -> None:
        super().__init__()
        self.denoiser, self.bands = denoiser, bands
        device = next(denoiser.parameters())
        self.router = nn.Sequential(nn.Linear(bands, 64), nn.ReLU(), nn.Linear(64, experts)).to(device)
        self.layers = [
            _wrap(denoiser, name, rank, experts, alpha)
            for name, module in list(denoiser.named_modules())
            if isinstance(module, nn.Linear) and name.rpartition(".")[2] in QKV
        ]

    def route(self, latent: Tensor) -> None:
        """Set the gates of every layer from the latent (batch, c, h, w)."""
        from adapt.fera.published import indicator

        logits = self.router(indicator(latent, self.bands).to(next(self.router.parameters())))
        gates = torch.softmax(logits / 0.7, -1)
        for layer in self.layers:
            layer.gates = gates


def _wrap(denoiser: nn.Module, name: str, rank: int, experts: int, alpha: float) -> PublishedLinear:
    parent, _, child = name.rpartition(".")
    base = denoiser.get_submodule(name)
    assert isinstance(base, nn.Linear)
    layer = PublishedLinear(base, rank, experts, alpha)
    setattr(denoiser.get_submodule(parent), child, layer)
    return layer
