"""What adapters reach in a denoiser: modules, parameters, and the share of its arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from peft import AdaLoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from adapt.fera.matching import means
from adapt.fera.model import base_output, denoiser_of, router_of

LOW = 0.2
"""Below this share of the parameters an adapter often changes nothing that can be seen (peft issue 3554)."""


class Scale(NamedTuple):
    """The factor of an adapter's update: `scale` = alpha / rank where both are known."""

    adapter: str
    scale: float
    alpha: float | None
    rank: int | None

    def __str__(self) -> str:
        origin = f" (alpha {self.alpha:g} / rank {self.rank})" if self.alpha is not None else ""
        return f"{self.adapter}: scale {self.scale:g}{origin}"


class PatternCoverage(NamedTuple):
    """What one target pattern reaches: so many modules with so many parameters; patterns may overlap."""

    pattern: str
    modules: int
    parameters: int


class Coverage(NamedTuple):
    """What an adapter reaches.  `modules` of `all_modules` Linear and Conv2d layers, with `parameters` of the model's
    `all_parameters`, are adapted by `adapter_parameters` parameters; `flops` is the share of the floating-point
    operations of one call that they do, None where no call was given.
    """

    modules: int
    parameters: int
    all_modules: int
    all_parameters: int
    adapter_parameters: int
    flops: float | None = None
    scales: tuple[Scale, ...] = ()
    patterns: tuple[PatternCoverage, ...] = ()

    @property
    def share(self) -> float:
        """Share of the model's parameters."""
        return self.parameters / max(self.all_parameters, 1)

    @property
    def warning(self) -> str:
        """A sentence where little is reached, else the empty string."""
        if self.share >= LOW:
            return ""
        return (
            f"the adapter reaches only {self.share:.1%} of the model's parameters, which may be too little to see: "
            "widen `targets`, or leave it out for the default ones"
        )

    def table(self) -> list[tuple[str, int, int]]:
        """Rows (pattern, modules, parameters), the last of them for all patterns together."""
        return [*self.patterns, ("in all", self.modules, self.parameters)]

    def __str__(self) -> str:
        arithmetic = "" if self.flops is None else f" and {self.flops:.0%} of its arithmetic"
        scales = f"; {', '.join(map(str, self.scales))}" if self.scales else ""
        return (
            f"{self.modules} of {self.all_modules} Linear and Conv2d layers adapted, {self.share:.0%} of the model's "
            f"{self.all_parameters:,} parameters{arithmetic}, by {self.adapter_parameters:,} adapter parameters{scales}"
        )


def coverage(pipe_or_model: Any, call: Callable[[], Any] | None = None) -> Coverage:
    """Count what PEFT adapters, of FeRA or any other method, reach in a denoiser.

    `call` runs the denoiser once, with inputs of the caller's choice (tensors on the meta device do); the operations of
    that call are counted, without those of the adapters.
    """
    model = denoiser_of(pipe_or_model)
    tuners = {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}
    bases = {name: module.get_base_layer() for name, module in tuners.items() if hasattr(module, "base_layer")}
    kept = {id(base) for base in bases.values()}
    inside = {id(part) for tuner in tuners.values() for part in tuner.modules() if part is not tuner} - kept
    plain = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d) and id(m) not in inside]
    everything = {id(p): p.numel() for p in model.parameters()}
    frozen = {id(p): p.numel() for base in bases.values() for p in base.parameters()}
    added = {id(p) for tuner in tuners.values() for p in tuner.parameters()} - set(frozen)
    adapter = sum(everything[key] for key in added)
    return Coverage(
        modules=len(bases),
        parameters=sum(frozen.values()),
        all_modules=len(plain),
        all_parameters=sum(everything.values()) - adapter,
        adapter_parameters=adapter,
        flops=None if call is None else _share_of_flops(model, list(bases), call),
        scales=_scales(model, tuners.values()),
        patterns=_patterns(model, bases),
    )


def _share_of_flops(model: nn.Module, names: list[str], call: Callable[[], Any]) -> float:
    """Operations of the named tuner layers' base layers, of all that are not the adapters' own."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter, base_output(model) if router_of(model) else nullcontext():
        call()
    counts = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    root = type(model).__name__
    whole = sum(counts.get(f"{root}.{name}", 0) for name in names)
    reached = sum(counts.get(f"{root}.{name}.base_layer", 0) for name in names)
    total = counter.get_total_flops() - (whole - reached)
    return reached / max(total, 1)


def _scales(model: nn.Module, tuners: Iterable[Any]) -> tuple[Scale, ...]:
    """Every adapter's factor, from the first layer that has one: of FeRA and LoRA all layers share it."""
    found: dict[str, float] = {}
    for tuner in tuners:
        scaling = getattr(tuner, "scaling", None)
        for name, scale in scaling.items() if isinstance(scaling, dict) else ():
            found.setdefault(name, float(scale))
    configs = getattr(model, "peft_config", {})
    for name, config in configs.items():
        if name in found and isinstance(config, AdaLoraConfig):  # whose layers divide by the rank when they are called
            found[name] /= config.init_r
    return tuple(Scale(name, scale, *_alpha_and_rank(configs.get(name))) for name, scale in found.items())


def _alpha_and_rank(config: Any) -> tuple[float | None, int | None]:
    """Of a FeRA or a LoRA configuration; None twice where alpha over rank is not the factor."""
    alpha = getattr(config, "alpha", None) or getattr(config, "lora_alpha", None)
    rank = getattr(config, "total_rank", None) or getattr(config, "init_r", None) or getattr(config, "r", None)
    if isinstance(alpha, int | float) and isinstance(rank, int) and not getattr(config, "use_rslora", False):
        return float(alpha), rank
    return None, None


def _patterns(model: nn.Module, bases: dict[str, nn.Module]) -> tuple[PatternCoverage, ...]:
    rows = []
    for pattern in _asked(model):
        found = [base for name, base in bases.items() if means(pattern, name)]
        rows.append(PatternCoverage(pattern, len(found), sum(p.numel() for base in found for p in base.parameters())))
    return tuple(rows)


def _asked(model: nn.Module) -> list[str]:
    """The target patterns of all adapters; one regular expression is no list of patterns and is left out."""
    lists = (config.target_modules for config in getattr(model, "peft_config", {}).values())
    return sorted({pattern for names in lists if names and not isinstance(names, str) for pattern in names})
