"""What one training loop asks of every method: attach, base answer, save, load, parameters."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn

from adapt.config import TrainConfig
from spectra.errors import UserError

if TYPE_CHECKING:
    from adapt.prior import Prior

NAME = "default"
"""Name of the adapter inside the denoiser."""
TEXT_SETTINGS = ("rank", "alpha", "dropout")
"""Settings of the LoRA that text encoders get, whatever the denoiser's method."""
CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"


class Reach(NamedTuple):
    """Which of the layers asked for a method can adapt."""

    kept: list[str]
    """Endings or full names of layers, as PEFT's `target_modules`."""
    left_out: list[str]
    """Full names of layers that were asked for and cannot be adapted."""
    reason: str
    """Why; empty where nothing is left out."""

    def __str__(self) -> str:
        if not self.left_out:
            return "every layer asked for is adapted"
        return f"{len(self.left_out)} of the layers asked for are left out (first: {self.left_out[0]}): {self.reason}"


def everything(denoiser: Any, targets: list[str]) -> Reach:
    """The reach of a method that adapts every Linear and Conv2d."""
    return Reach(list(targets), [], "")


def nothing(denoiser: Any, step: int, total: int) -> None:
    """After a step there is nothing to do."""


def no_gates(denoiser: Any) -> None:
    """The method has no gates."""
    return None


def no_penalty(denoiser: Any) -> None:
    """The method adds nothing to the loss."""
    return None


def no_state(denoiser: Any) -> dict[str, Tensor]:
    """The method remembers nothing beside its parameters."""
    return {}


def nothing_to_restore(denoiser: Any, state: dict[str, Tensor]) -> None:
    """The method remembers nothing beside its parameters."""


def with_adapters(denoiser: Any) -> Any:
    """The same denoiser, with diffusers' calls for adapters where its class lacks them.

    PixArt's and Stable Video Diffusion's do; the mixin is the one that the other denoisers inherit.
    """
    from diffusers.loaders import PeftAdapterMixin

    kind = type(denoiser)
    if not isinstance(denoiser, PeftAdapterMixin):
        denoiser.__class__ = type(kind.__name__, (kind, PeftAdapterMixin), {"__module__": kind.__module__})
    return denoiser


def decayed_groups(denoiser: Any, lr: float, config: TrainConfig) -> list[dict[str, Any]]:
    """Two groups of an optimizer: matrices and kernels, and what has one dimension, which is never decayed."""
    named = {name: p for name, p in denoiser.named_parameters() if p.requires_grad}
    return grouped(named, lr, config.weight_decay)


def grouped(named: dict[str, nn.Parameter], lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Groups {params, lr, weight_decay} of named parameters, empty ones left out."""
    wide = [p for p in named.values() if p.ndim > 1]
    thin = [p for p in named.values() if p.ndim <= 1]
    made = ({"params": wide, "lr": lr, "weight_decay": weight_decay}, {"params": thin, "lr": lr, "weight_decay": 0.0})
    return [group for group in made if group["params"]]


@dataclass(frozen=True)
class Method:
    """One kind of adapter; `denoiser` is a diffusers model."""

    name: str
    settings: Callable[[TrainConfig, list[str], Prior | None, Any], Any]
    """(config, targets, prior, pipe) -> PEFT configuration; None for `full`."""
    save: Callable[[Any, Path], object]
    """(denoiser, folder): write a PEFT folder."""
    load: Callable[[Any, Path], object]
    """(denoiser, folder): attach a saved adapter, frozen; UserError where it does not fit."""
    base: Callable[[Any], AbstractContextManager[None]]
    """Inside, the denoiser answers without the adapter."""
    insert: Callable[[Any, Any], None]
    """(denoiser, PEFT configuration): add a new, trainable adapter to a frozen denoiser."""
    go_on: Callable[[Any, Any, Path], None]
    """(denoiser, PEFT configuration, folder): add a trainable adapter that starts as the saved one."""
    gates: Callable[[Any], Tensor | None] = no_gates
    """Gates (batch, experts) of the denoiser's last call; None for adapters without any."""
    reach: Callable[[Any, list[str]], Reach] = everything
    """(denoiser, targets) -> what the method adapts of them, and what it leaves out and why."""
    after_step: Callable[[Any, int, int], None] = nothing
    """(denoiser, step, total): after optimizer.step() of step 0 .. total - 1, before the gradients are cleared."""
    penalty: Callable[[Any], Tensor | None] = no_penalty
    """A term to add to the loss of each step, already weighted."""
    state: Callable[[Any], dict[str, Tensor]] = no_state
    """What a checkpoint must hold beside parameters and optimizer."""
    restore: Callable[[Any, dict[str, Tensor]], None] = nothing_to_restore
    """(denoiser, state): put `state` back into a freshly attached adapter."""
    groups: Callable[[Any, float, TrainConfig], list[dict[str, Any]]] = decayed_groups
    """(denoiser, peak learning rate, config) -> groups for an optimizer, each with its own peak as `lr`."""
    lacks: tuple[str, ...] = ()
    """Settings that the method has no counterpart of."""
    by_layers: bool = True
    """Whether layers are chosen; else every weight of the denoiser is trained."""

    def attach(
        self, denoiser: Any, config: TrainConfig, targets: list[str], prior: Prior | None, pipe: Any = None
    ) -> Reach:
        """Freeze the base and add a trainable adapter: a new one, or that of `config.start_from`.

        Returns what it reaches, and warns where that is less than `targets`.

        Raises:
            UserError: a setting that the method lacks, no layer that it can adapt, or another adapter to go on from.
        """
        self.check(config)
        reach = self.reach(denoiser, targets)
        if reach.left_out:
            warnings.warn(f"{self.name}: {reach}", UserWarning, stacklevel=2)
        if targets and not reach.kept:
            raise UserError(f"{self.name} can adapt none of the layers asked for: {reach.reason}")
        settings = self.settings(config, reach.kept, prior, pipe)
        denoiser.requires_grad_(False)
        if config.start_from is None:
            self.insert(denoiser, settings)
        else:
            self.go_on(denoiser, settings, self._start(config))
        return reach

    def check(self, config: TrainConfig) -> None:
        """UserError for a setting that was changed and means nothing to the method, or another's `start_from`."""
        used = TEXT_SETTINGS if config.text_encoder and self.by_layers else ()
        for name in self.lacks:
            if getattr(config, name) != TrainConfig.model_fields[name].default and name not in used:
                raise UserError(f"{self.name} has no {name}; leave '{name}' out")
        if config.start_from is not None:
            self._start(config)

    def trainable(self, denoiser: Any) -> int:
        """How many numbers are learned: what equal-parameter comparisons compare."""
        return sum(p.numel() for p in denoiser.parameters() if p.requires_grad)

    def _start(self, config: TrainConfig) -> Path:
        """The folder to go on from."""
        from adapt.methods.folders import find_adapter

        assert config.start_from is not None
        folder, _ = find_adapter(config.start_from)
        if (kind := kind_of(folder)) != self.name:
            raise UserError(
                f"start_from: {folder} holds a {kind} adapter and the method is {self.name}; they must agree"
            )
        if (folder / "text_encoder" / CONFIG_FILE).is_file() and not config.text_encoder:
            raise UserError(f"start_from: {folder} trained the text encoder too; set text_encoder to go on with it")
        return folder


def kind_of(folder: Path) -> str:
    """The method of a PEFT folder, in lower case; UserError where there is none."""
    try:
        saved = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        kind = str(saved["peft_type"]).lower()
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder} holds no adapter: its {CONFIG_FILE} is missing or unreadable") from None
    return "dora" if kind == "lora" and saved.get("use_dora") else kind
