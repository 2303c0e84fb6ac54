"""From latent to gates: features of the latent, a small network, a softmax.

The router sits on the denoiser itself, as `model.fera`, and runs in one permanent forward pre-hook, so that it is
inside whatever wraps the denoiser (DDP, FSDP, a pipeline with guidance) and its gates follow the batch that it is
given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, relu
from torch.utils.hooks import RemovableHandle

from adapt.fera.cell import GateCell
from adapt.fera.config import FeraConfig, router_shapes
from adapt.fera.features import Reader, latent_energy, log_shares
from adapt.fera.layer import FeraLayer
from adapt.fera.noise import Clock
from adapt.fera.view import View, latent_name
from spectra.bands import FilterBank
from spectra.errors import UserError

__all__ = ["FeraRouter", "RouterWeights", "gates", "latent_argument", "latent_energy", "log_shares", "random_start"]
__all__ += ["reader_of", "route", "set_temperature", "start_of"]

latent_argument = latent_name


class RouterWeights(NamedTuple):
    """Weights of the router: w1 (hidden, bands), b1 (hidden,), w2 (experts, hidden), b2 (experts,)."""

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor


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


def reader_of(config: FeraConfig) -> Reader | None:
    """How a resolved configuration reads latents; None where its gates are uniform."""
    if config.gates == "uniform":
        return None
    assert config.bands is not None
    bank = None if config.scales is None else FilterBank(config.scales)
    clock = Clock.of(config.noise_schedule) if config.timed and config.noise_schedule is not None else None
    mean, std = config.feature_mean or (), config.feature_std or ()
    return Reader(config.features, config.bands, bank, clock, mean, std, config.tau)


class FeraRouter(nn.Module, FeraLayer):
    """The routers of all FeRA adapters of a model, one per adapter.

    The weights are flat dictionaries keyed by the adapter's name, because that is what lets PEFT rename them.
    """

    adapter_layer_names: tuple[str, ...] = ("fera_w1", "fera_b1", "fera_w2", "fera_b2")
    other_param_names: tuple[str, ...] = ("r", "scaling", "full_scaling", "reading", "experts")

    hook: RemovableHandle
    trainable_before: list[str]

    def __init__(self, cell: GateCell, latent: View, home: torch.device) -> None:
        super().__init__()
        self._prepare(cell)
        self.view = latent
        self.first_home = home
        self.fera_w1, self.fera_b1 = nn.ParameterDict(), nn.ParameterDict()
        self.fera_w2, self.fera_b2 = nn.ParameterDict(), nn.ParameterDict()
        self.reading: dict[str, Reader | None] = {}
        self.experts: dict[str, int] = {}

    def update_layer(self, name: str, config: FeraConfig) -> None:
        """Add the router of adapter `name`; uniform gates need no weights."""
        self.reading[name], self.experts[name] = reader_of(config), config.num_experts
        if self.reading[name] is not None:
            for attribute, value in zip(self.adapter_layer_names, start_of(config), strict=True):
                getattr(self, attribute)[name] = nn.Parameter(value.to(self.first_home))
        self._remember(name, config)

    def forward(self, latent: Tensor, name: str, timestep: Tensor | None = None) -> Tensor:
        """Gates (batch, experts) of one adapter, in float32 whatever the latent's type.

        `latent`: (batch, channel, [frame], h, w); `timestep`: the scheduler's, (batch,), where the features need it.
        """
        reader = self.reading[name]
        if reader is None:
            return torch.ones(len(latent), self.experts[name], device=latent.device)
        with _full_precision(latent.device):
            features = reader(latent, timestep)
            weights = RouterWeights(*(getattr(self, part)[name].float() for part in self.adapter_layer_names))
            found = gates(features.to(weights.w1), weights, reader.tau)
        return found.to(latent.device)  # a model that waits elsewhere between calls is moved after this hook

    def write(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Fill the cell from a call of the denoiser."""
        if self.cell.bypassed or self.disable_adapters:
            self.cell.gates = None
            return
        readers = {name: self.reading[name] for name in self._active_here()}
        if any(reader is not None for reader in readers.values()):
            timed = any(reader is not None and reader.clock is not None for reader in readers.values())
            latent, timestep = self.view.read(args, kwargs, timed)
            self.cell.fill({name: self(latent, name, timestep) for name in readers})
        else:
            rows, device = self.view.batch(args, kwargs)
            self.cell.fill({name: torch.ones(rows, self.experts[name], device=device) for name in readers})

    @property
    def weight(self) -> Tensor:
        """Raises AttributeError: a router wraps no layer (PEFT's own property would look for one forever)."""
        raise AttributeError("the FeRA router has no weight")

    @property
    def bias(self) -> Tensor:
        """Raises AttributeError, like `weight`."""
        raise AttributeError("the FeRA router has no bias")

    def _home(self) -> torch.device:
        return self.first_home


@torch.compiler.disable  # type: ignore[untyped-decorator]  # traced, it would break a graph of the whole model
def route(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """The forward pre-hook.  It finds the router through the module it is called for, so it survives copies."""
    router = model.fera
    assert isinstance(router, FeraRouter)
    router.write(args, kwargs)


def set_temperature(pipe_or_model: Any, tau: float, adapter_name: str = "default") -> None:
    """Let the gates of an adapter be drawn at temperature `tau` from now on; it is saved with the adapter.

    Raises:
        UserError: `tau` is not above 0, or there is no FeRA adapter of that name.
    """
    from adapt.fera.model import denoiser_of, router_of

    if not (math.isfinite(tau) and tau > 0):
        raise UserError(f"the temperature of gates is a number above 0, got {tau}")
    model = denoiser_of(pipe_or_model)
    router = router_of(model)
    if router is None or adapter_name not in router.reading:
        raise UserError(f"{type(model).__name__} has no FeRA adapter {adapter_name!r} whose temperature could be set")
    reader = router.reading[adapter_name]
    router.reading[adapter_name] = None if reader is None else replace(reader, tau=float(tau))
    config: Any = model.peft_config
    config[adapter_name].tau = float(tau)


def _full_precision(device: torch.device) -> Any:
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
