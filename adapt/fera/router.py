"""From latent to gates: log shares of the band energies, a small network, a softmax.

The router sits on the denoiser itself, as `model.fera`, and runs in one permanent forward pre-hook, so that it is
inside whatever wraps the denoiser (DDP, FSDP, a pipeline with guidance) and its gates follow the batch that it is
given.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, relu
from torch.utils.hooks import RemovableHandle

from adapt.fera.config import FeraConfig, router_shapes
from adapt.fera.layer import FeraLayer, GateCell
from adapt.trajectory import SMALLEST_SHARE
from spectra.bands import FilterBank
from spectra.errors import UserError


class RouterWeights(NamedTuple):
    """Weights of the router: w1 (hidden, bands), b1 (hidden,), w2 (experts, hidden), b2 (experts,)."""

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor


def latent_energy(latent: Tensor, bank: FilterBank) -> Tensor:
    """Band energies of each sample, over channels and frames: (batch, channel, [frame], h, w) -> (batch, bands)."""
    if latent.ndim < 4:
        raise UserError(
            f"FeRA reads latents (batch, channel, [frame], height, width), but the denoiser was given a tensor "
            f"{tuple(latent.shape)}; latents packed into tokens are not supported"
        )
    return bank.energies(latent).float().flatten(1, -2).sum(1)


def log_shares(energy: Tensor) -> Tensor:
    """Logarithm of each band's share: energy (..., bands) -> (..., bands).  Free of the latent's overall scale."""
    total = energy.sum(-1, keepdim=True).clamp_min(torch.finfo(energy.dtype).tiny)
    return (energy / total).clamp_min(SMALLEST_SHARE).log()


def gates(features: Tensor, weights: RouterWeights, tau: float) -> Tensor:
    """Gates softmax(logits / tau) * experts, whose mean is one: features (batch, bands) -> (batch, experts)."""
    logits = linear(relu(linear(features, weights.w1, weights.b1)), weights.w2, weights.b2)
    return torch.softmax(logits / tau, -1) * logits.shape[-1]


def random_start(bands: int, hidden: int, experts: int, generator: torch.Generator | None = None) -> RouterWeights:
    """Weights as nn.Linear draws them: uniform within one over the root of the fan-in.  Gates start nearly uniform."""
    fan_in = {"w1": bands, "b1": bands, "w2": hidden, "b2": hidden}
    shapes = router_shapes(bands, hidden, experts)
    drawn = {name: torch.rand(shape, generator=generator) * 2 - 1 for name, shape in shapes.items()}
    return RouterWeights(**{name: value / math.sqrt(fan_in[name]) for name, value in drawn.items()})


def start_of(config: FeraConfig) -> RouterWeights:
    """The first weights that a resolved configuration asks for."""
    if config.router_start is None:
        return random_start(config.feature_width, config.router_hidden, config.num_experts)
    start = config.router_start
    return RouterWeights(*(torch.tensor(start[name], dtype=torch.float32) for name in RouterWeights._fields))


@dataclass(frozen=True)
class Reading:
    """How one adapter reads the latent."""

    bank: FilterBank
    mean: tuple[float, ...]
    std: tuple[float, ...]
    tau: float

    @classmethod
    def of(cls, config: FeraConfig) -> Reading:
        """The reading of a resolved configuration."""
        assert config.scales is not None
        assert config.feature_mean is not None
        assert config.feature_std is not None
        return cls(FilterBank(config.scales), config.feature_mean, config.feature_std, config.tau)


class FeraRouter(nn.Module, FeraLayer):
    """The routers of all FeRA adapters of a model, one per adapter.

    The weights are flat dictionaries keyed by the adapter's name, because that is what lets PEFT rename them.
    """

    adapter_layer_names: tuple[str, ...] = ("fera_w1", "fera_b1", "fera_w2", "fera_b2")
    other_param_names: tuple[str, ...] = ("r", "scaling", "full_scaling", "reading")

    hook: RemovableHandle
    trainable_before: list[str]

    def __init__(self, cell: GateCell, latent: tuple[str, int], home: torch.device) -> None:
        super().__init__()
        self._prepare(cell)
        self.latent_argument, self.latent_position = latent
        self.first_home = home
        self.fera_w1, self.fera_b1 = nn.ParameterDict(), nn.ParameterDict()
        self.fera_w2, self.fera_b2 = nn.ParameterDict(), nn.ParameterDict()
        self.reading: dict[str, Reading] = {}
        self._statistics: dict[tuple[str, torch.device], tuple[Tensor, Tensor]] = {}

    def update_layer(self, name: str, config: FeraConfig) -> None:
        """Add the router of adapter `name`."""
        for attribute, value in zip(self.adapter_layer_names, start_of(config), strict=True):
            getattr(self, attribute)[name] = nn.Parameter(value.to(self.first_home))
        self.reading[name] = Reading.of(config)
        self._statistics.clear()
        self._remember(name, config)

    def forward(self, latent: Tensor, name: str) -> Tensor:
        """Gates (batch, experts) of one adapter, in float32 whatever the latent's type."""
        reading = self.reading[name]
        with _full_precision(latent.device):
            features = log_shares(latent_energy(latent, reading.bank))
            mean, std = self._statistics_on(name, features.device)
            weights = RouterWeights(*(getattr(self, part)[name].float() for part in self.adapter_layer_names))
            return gates(((features - mean) / std).to(weights.w1), weights, reading.tau)

    def write(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Fill the cell from a call of the denoiser."""
        if self.cell.bypassed or self.disable_adapters:
            self.cell.gates = None
            return
        latent = self._latent(args, kwargs)
        self.cell.gates = {name: self(latent, name) for name in self._active_here()}

    @property
    def weight(self) -> Tensor:
        """Raises AttributeError: a router wraps no layer (PEFT's own property would look for one forever)."""
        raise AttributeError("the FeRA router has no weight")

    @property
    def bias(self) -> Tensor:
        """Raises AttributeError, like `weight`."""
        raise AttributeError("the FeRA router has no bias")

    def _latent(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        if self.latent_argument in kwargs:
            found = kwargs[self.latent_argument]
        elif len(args) > self.latent_position:
            found = args[self.latent_position]
        else:
            found = None
        if not isinstance(found, Tensor):
            raise UserError(
                f"FeRA reads the denoiser's argument {self.latent_argument!r}; this call has no tensor there"
            )
        return found

    def _statistics_on(self, name: str, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the features; kept per device, so that no step waits for a copy."""
        if (name, device) not in self._statistics:
            reading = self.reading[name]
            with torch.inference_mode(False):
                mean, std = (torch.tensor(values, device=device) for values in (reading.mean, reading.std))
            self._statistics[name, device] = mean, std
        return self._statistics[name, device]

    def _home(self) -> torch.device:
        return self.first_home


def route(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """The forward pre-hook.  It finds the router through the module it is called for, so it survives copies."""
    router = model.fera
    assert isinstance(router, FeraRouter)
    router.write(args, kwargs)


def latent_argument(model: nn.Module, name: str | None) -> tuple[str, int]:
    """Name and position of the denoiser's latent: `name` if given, else the first argument of its forward."""
    skip = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    names = [p.name for p in inspect.signature(model.forward).parameters.values() if p.kind not in skip]
    if not names:
        raise UserError(f"{type(model).__name__}.forward names no argument: FeRA cannot tell which one is the latent")
    if name is not None and name not in names:
        raise UserError(f"{type(model).__name__}.forward has no argument {name!r}; it has {', '.join(names)}")
    chosen = names[0] if name is None else name
    return chosen, names.index(chosen)


def _full_precision(device: torch.device) -> Any:
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
