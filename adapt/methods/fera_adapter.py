"""FeRA as a method of the training loop: settings of a run -> FeraConfig, and a router with its own learning rate."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from adapt.config import TrainConfig
from adapt.methods.base import NAME, Method, grouped, with_adapters
from spectra.errors import UserError

if TYPE_CHECKING:
    from adapt.prior import Prior

ROUTER = "fera."
"""Names of the router's weights begin so."""
SAME = ("r", "num_experts", "shared_rank", "expert", "mode", "target_modules", "gates", "features", "router_hidden")
"""Settings in which a run that goes on from another must agree with it."""


def settings(config: TrainConfig, targets: list[str], prior: Prior | None, pipe: Any) -> Any:
    """The FeraConfig that a run's settings, its prior and the pipeline's noise levels make.

    A prior's own temperature stands unless `tau` is given, because its router was fitted at that temperature.
    """
    from adapt.fera import FeraConfig

    given = _given(config, pipe) | {"target_modules": list(targets)}
    if prior is None:
        return FeraConfig(**given)
    if config.router_start == "random":
        given["router_start"] = None
    return prior.fera_config(**given)


def prior_options(config: TrainConfig) -> dict[str, Any]:
    """What the settings of a run say about a prior that is learned from a cube: keywords of `Prior.from_cube`."""
    features, _ = _router(config)
    chosen = {"bands": config.bands, "overlap": config.overlap, "data": config.prior_data, "tau": config.tau}
    options: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    return options | {"experts": config.experts, "features": features}


def _given(config: TrainConfig, pipe: Any) -> dict[str, Any]:
    """What the settings of a run say about an adapter, whatever prior it starts from."""
    rank = max(1, (config.rank - config.shared_rank) // config.experts)  # `ia3` experts have none, and may get 1
    features, gates = _router(config)
    given: dict[str, Any] = {
        "r": rank, "num_experts": config.experts, "shared_rank": config.shared_rank, "expert": config.expert,
        "alpha": config.alpha, "dropout": config.dropout, "mode": config.fera_mode, "features": features,
        "gates": gates, "noise_schedule": noise_schedule(features, pipe),
    }  # fmt: skip
    chosen = {"bands": config.bands, "tau": config.tau}
    return given | {name: value for name, value in chosen.items() if value is not None}


def _router(config: TrainConfig) -> tuple[tuple[str, ...], str]:
    from adapt.fera.features import FEATURES_OF

    return FEATURES_OF[config.router]


def noise_schedule(features: tuple[str, ...], pipe: Any) -> dict[str, Any] | None:
    """How a timestep tells the noise level, for routers that read it; None for others."""
    from adapt.fera.features import TIMED

    if not set(TIMED) & set(features):
        return None
    if pipe is None:
        raise UserError(f"features {', '.join(features)} follow the noise level and need the pipeline's scheduler")
    from adapt.fera.noise import schedule_of

    found: dict[str, Any] = schedule_of(pipe.scheduler)
    return found


def save(denoiser: Any, folder: Path) -> None:
    """A PEFT folder that `adapt.load_fera` reads."""
    from adapt.fera import save_fera

    save_fera(denoiser, folder, NAME)


def load(denoiser: Any, folder: Path) -> None:
    """Attach a saved adapter, frozen."""
    from adapt.fera import load_fera

    load_fera(denoiser, folder, NAME)


def insert(denoiser: Any, config: Any) -> None:
    """Add a new adapter."""
    with_adapters(denoiser).add_adapter(config, NAME)


def go_on(denoiser: Any, config: Any, folder: Path) -> None:
    """Train a saved adapter further; its bands, features and temperature are its own, the rest must agree."""
    from adapt.fera import load_fera, unload

    saved = load_fera(denoiser, folder, NAME, trainable=True)
    for name in SAME:
        was, wanted = getattr(saved, name), getattr(config, name)
        if was != wanted:
            unload(denoiser)
            raise UserError(f"start_from: {folder} has {name} {was} and this run {wanted}; they must agree")


def gates(denoiser: Any) -> Tensor | None:
    """Gates (batch, experts) of the last call."""
    from adapt.fera import gates_of

    return gates_of(denoiser)


def base(denoiser: Any) -> AbstractContextManager[None]:
    """Inside, the denoiser answers without FeRA."""
    from adapt.fera import base_output

    return base_output(denoiser)


def groups(denoiser: Any, lr: float, config: TrainConfig) -> list[dict[str, Any]]:
    """Groups of the experts at `lr` and of the router at `lr * router_lr`."""
    named = {name: p for name, p in denoiser.named_parameters() if p.requires_grad}
    router = {name: p for name, p in named.items() if name.startswith(ROUTER)}
    experts = {name: p for name, p in named.items() if name not in router}
    return grouped(experts, lr, config.weight_decay) + grouped(router, lr * config.router_lr, config.weight_decay)


FERA = Method("fera", settings, save, load, base, insert, go_on, gates=gates, groups=groups)
