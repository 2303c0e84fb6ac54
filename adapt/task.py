"""A training task, prepared: the model, the encoded data, the objective, the adapter in place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adapt.config import TrainConfig
from adapt.methods import METHODS, Method
from adapt.objectives import Objective, objective_of
from adapt.prior import Prior
from adapt.targets import resolve_targets
from datasets_cache import find_splits
from datasets_cache.encoding import CachedData, encode_all
from datasets_cache.families import Conditioning
from spectra.errors import UserError

Progress = Callable[[str, int, int], None]
"""(phase, done, total) of `encode`, `train`, `validate` or `sample`."""

HELDOUT_SHARE = 8
"""One picture in so many is held out where no held-out folder is given."""


def silent(phase: str, done: int, total: int) -> None:
    """Progress that goes nowhere."""


@dataclass(frozen=True)
class Task:
    """Everything that stays as it is while an adapter trains (but for the adapter's weights)."""

    config: TrainConfig
    pipe: Any
    denoiser: Any
    latent_argument: str
    model_hash: str
    objective: Objective
    method: Method
    targets: list[str]
    prior: Prior | None
    train: CachedData
    heldout: CachedData

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (c, [t], h, w) of a latent."""
        return self.train.shapes[0]

    @property
    def device(self) -> torch.device:
        """Where the denoiser is."""
        return torch.device(next(self.denoiser.parameters()).device)

    def answer(self, denoiser: Any, latents: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        """The prediction (batch, c, h, w) float32 of the denoiser, which may be wrapped."""
        inputs = {self.latent_argument: latents, "timestep": timestep, **conditioning}
        kind = self.denoiser.dtype
        moved = {name: value.to(self.device, kind if name != "timestep" else None) for name, value in inputs.items()}
        prediction: Tensor = denoiser(**moved, return_dict=False)[0]
        return prediction.float()


def prepare(config: TrainConfig, device: torch.device, progress: Progress = silent) -> Task:
    """Open the model, encode the data and attach a fresh adapter, whose start depends on the seed alone."""
    from spectra.families import family_of
    from spectra.models import check_steps, load_pipeline, model_hash

    pipe: Any = load_pipeline(config.model)
    check_steps(pipe, config.sample_steps)
    family, identity = family_of(pipe), model_hash(pipe)
    prior = load_prior(config, identity)
    denoiser: Any = family.denoiser(pipe)
    objective, targets = (
        objective_of(pipe.scheduler, config.gamma if config.weighting == "min_snr" else None),
        resolve_targets(denoiser, config.targets),
    )
    pipe.to(device)
    train, heldout = load_data(config, pipe, progress)
    method = METHODS[config.method]
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        method.attach(denoiser, config, targets, prior)
    return Task(
        config, pipe, denoiser, family.latent_argument, identity, objective, method, targets, prior, train, heldout
    )  # fmt: skip


def load_prior(config: TrainConfig, model_hash: str) -> Prior | None:
    """The prior that the configuration names, learned from this very model; UserError for another's."""
    if config.prior is None:
        return None
    if not config.prior.exists():
        raise UserError(f"the prior {config.prior} does not exist; probe the model first")
    made = config.prior.suffix == ".json"
    prior = Prior.load(config.prior) if made else Prior.from_cube(config.prior, experts=config.experts)
    prior.check_model(model_hash)
    return prior


def load_data(config: TrainConfig, pipe: Any, progress: Progress) -> tuple[CachedData, CachedData]:
    """Encoded training and held-out pictures."""
    folder, beside = find_splits(config.data)
    held = config.heldout or beside
    folders = [folder] if held is None else [folder, held]
    data, *rest = encode_all(folders, pipe, config.cache, progress=lambda done, total: progress("encode", done, total))
    return (data, rest[0]) if rest else split(data)


def split(data: CachedData) -> tuple[CachedData, CachedData]:
    """Hold out one picture in eight, chosen by content, so that renaming files changes nothing."""
    if len(data) < 2:
        raise UserError(
            f"one picture ({data.paths[0]}) is too few to hold one out; add pictures or give a 'heldout' folder"
        )
    order = sorted(range(len(data)), key=lambda row: (data.keys[row], data.captions[row]))
    count = max(1, len(data) // HELDOUT_SHARE)
    return data.take(sorted(order[count:])), data.take(sorted(order[:count]))
