"""A training task, prepared: the model, the encoded data, the objective, the adapter in place."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from adapt.calling import Call, call_of
from adapt.config import TrainConfig
from adapt.methods import METHODS, Method, Reach, attach_text_encoders, check_text_encoders
from adapt.methods.fera_adapter import prior_options
from adapt.objectives import Objective, objective_of, tokens_of
from adapt.preservation import check_shapes, class_data_of
from adapt.prior import Prior
from adapt.sampling import sampler_of
from adapt.targets import resolve_targets
from datasets_cache import open_dataset, splits_of
from datasets_cache.encoding import CachedData, Preparation, Reading, encode_items
from datasets_cache.families import Conditioning, native_size
from datasets_cache.families.pixels import scales
from datasets_cache.items import Item, listed
from datasets_cache.report import describe, shared
from datasets_cache.sources import decide
from datasets_cache.store import cache_directory
from spectra.errors import UserError
from spectra.prompts import plural

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
    call: Call
    """How the denoiser is asked (`adapt.calling`)."""
    model_hash: str
    objective: Objective
    method: Method
    targets: list[str]
    prior: Prior | None
    train: CachedData
    heldout: CachedData
    class_data: CachedData | None = None
    """Pictures of the class that a subject belongs to, learned beside it (`adapt.preservation`)."""
    reach: Reach | None = None
    """Which of the targets the adapter reaches."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (c, [t], h, w) of a latent."""
        return self.train.shapes[0]

    @property
    def device(self) -> torch.device:
        """Where the denoiser is."""
        return torch.device(next(self.denoiser.parameters()).device)

    def answer(self, denoiser: Any, latents: Tensor, timestep: Tensor, conditioning: Conditioning) -> Tensor:
        """The prediction (batch, c, [t], h, w) float32 of the denoiser, which may be wrapped."""
        return self.call(denoiser, latents, timestep, conditioning)


def prepare(config: TrainConfig, device: torch.device, progress: Progress = silent) -> Task:
    """Open the model, encode the data and attach a fresh adapter, whose start depends on the seed alone."""
    from spectra.families import family_of
    from spectra.models import check_steps, load_pipeline, model_hash

    for words in config.unused():
        warnings.warn(words, UserWarning, stacklevel=2)
    check_sources(config)
    pipe: Any = load_pipeline(config.model)
    check_steps(pipe, config.sample_steps)
    family, identity = family_of(pipe), model_hash(pipe)
    prior = load_prior(config, identity)
    denoiser: Any = family.denoiser(pipe)
    call = call_of(pipe)
    targets = targets_of(config, pipe)
    check_objective(config, pipe.scheduler, prior)
    pipe.to(device)
    train, heldout = load_data(config, pipe, progress)
    objective = objective_for(config, pipe, train.shapes[0])
    class_data = class_data_of(config, pipe, progress)
    check_shapes(train, class_data)
    method = METHODS[config.method]
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        reach = method.attach(denoiser, config, targets, prior, pipe)
        if config.text_encoder:
            attach_text_encoders(pipe, config)
    return Task(
        config, pipe, denoiser, call, identity, objective, method, targets, prior, train, heldout,
        class_data, reach,
    )  # fmt: skip


def targets_of(config: TrainConfig, pipe: Any) -> list[str]:
    """The layers that a run adapts, as PEFT's `target_modules`; none are named where every weight is trained.

    Raises:
        UserError: targets that match nothing, or settings that the method or the model has no use for; asked before
            anything is encoded.
    """
    from spectra.families import family_of

    method = METHODS[config.method]
    method.check(config)
    if config.text_encoder:
        check_text_encoders(pipe)
    return resolve_targets(family_of(pipe).denoiser(pipe), config.targets) if method.by_layers else []


def check_objective(config: TrainConfig, scheduler: Any, prior: Prior | None) -> None:
    """UserError where weighting, timesteps, shift or coupling do not fit the model, before anything is encoded."""
    objective = objective_of(scheduler, config.weighting, config.gamma)
    sampler_of(config, objective, prior)
    if config.ot_coupling and objective.kind != "flow_prediction":
        raise UserError("ot_coupling straightens the paths of flow models, and this model is a denoiser; leave it out")


def objective_for(config: TrainConfig, pipe: Any, shape: tuple[int, ...]) -> Objective:
    """The objective of a run on latents of a shape (c, [t], h, w), on which some models' noise levels depend.

    Of pictures in buckets all are given the levels of the square that the run is asked for, whichever comes first.
    """
    space, _ = scales(pipe)
    square = (config.resolution,) * 2 if config.resolution else native_size(pipe)
    tokens = tokens_of(pipe, (*shape[:-2], *(side // space for side in square)))
    return objective_of(pipe.scheduler, config.weighting, config.gamma, tokens=tokens)


def load_prior(config: TrainConfig, model_hash: str) -> Prior | None:
    """The prior that the configuration names, learned from this very model; UserError for another's."""
    prior = open_prior(config)
    if prior is not None:
        prior.check_model(model_hash)
    return prior


def open_prior(config: TrainConfig) -> Prior | None:
    """The prior that the configuration names: a saved one, or the one that its settings learn from a cube."""
    if config.prior is None:
        return None
    if not config.prior.exists():
        raise UserError(f"the prior {config.prior} does not exist; probe the model first")
    if config.prior.suffix != ".json":
        return Prior.from_cube(config.prior, **prior_options(config))
    for name in ("overlap", "prior_data"):
        if getattr(config, name) is not None:
            raise UserError(f"{config.prior} was made without this {name}; give the probed cube instead to change it")
    return Prior.load(config.prior)


def check_sources(config: TrainConfig) -> None:
    """UserError where data that a run names are not there, before the model is opened."""
    source, beside = splits_of(config.data)
    for named in (source, config.heldout or beside, config.class_data):
        if named is not None:
            decide(str(named))


def items_of(config: TrainConfig) -> tuple[list[Item], list[Item] | None]:
    """The pictures of a run, and the held-out ones where a source of their own has them."""
    source, beside = splits_of(config.data)
    held, reading = config.heldout or beside, reading_of(config)
    train = open_dataset(source, reading, apart=[held] if held else [])
    return train, open_dataset(held, reading, apart=[source]) if held else None


def load_data(config: TrainConfig, pipe: Any, progress: Progress) -> tuple[CachedData, CachedData]:
    """Encoded training and held-out pictures.

    The held-out ones are those of `heldout`, or those beside the training folder, or one in eight of the training
    pictures. They have one shape, with or without buckets, so that errors are measured and pictures generated alike.
    """
    train, heldout = items_of(config)
    kept = [] if heldout is None else [heldout]
    preparation = preparation_of(config)
    whole = replace(preparation, buckets=False)
    preparations = [preparation] + [whole] * len(kept)
    told = partial(progress, "encode")
    data, *others = encode_items([train, *kept], pipe, config.cache, preparations=preparations, progress=told)
    if others:
        _warn_shared(data, others[0])
        return data, others[0]
    train_rows, held_rows = split(data)
    if not config.buckets:
        return data.take(train_rows), replace(data.take(held_rows), hits=0, misses=0, first_miss=None, notes=())
    items = [data.items[row] for row in held_rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what there is to say of them has been said
        again = encode_items([items], pipe, config.cache, preparations=[whole], progress=told)
    return data.take(train_rows), again[0]


def encode_ahead(
    config: TrainConfig, progress: Progress = silent, device: str | None = None
) -> dict[str, dict[str, Any]]:
    """Encode the data of a run without training, on `device`, or where accelerate would train.

    Returns what `datasets_cache.report.describe` says of each part.
    """
    from accelerate import Accelerator

    from spectra.devices import opened

    check_sources(config)
    pipe = opened(config.model, Accelerator().device if device is None else device)
    train, heldout = load_data(config, pipe, progress)
    classes = class_data_of(config, pipe, progress)
    parts = {"training": train, "held out": heldout} | ({} if classes is None else {"class": classes})
    return {name: describe(data, pipe) for name, data in parts.items()}


def _warn_shared(train: CachedData, heldout: CachedData) -> None:
    """Errors that are measured on what was learned say too little."""
    if names := shared(train, heldout):
        warnings.warn(
            f"{plural(len(names), 'held-out picture')} trained on too: {listed(names)}", UserWarning, stacklevel=2
        )


def load_one(config: TrainConfig, source: str, caption: str | None, pipe: Any, progress: Progress) -> CachedData:
    """Another data set of a run, encoded as the training pictures are; `caption` is for pictures without one."""
    reading = replace(reading_of(config), default_caption=caption)
    items = open_dataset(source, reading)
    return encode_items(
        [items], pipe, config.cache, preparations=[preparation_of(config)], progress=partial(progress, "encode")
    )[0]


def reading_of(config: TrainConfig) -> Reading:
    """How the sources of a run are read."""
    return Reading(
        split=config.split,
        image_column=config.image_column,
        caption_column=config.caption_column,
        default_caption=config.default_caption,
        clips=config.frames > 1,
        tables=(config.cache or cache_directory()) / "tables",
    )


def preparation_of(config: TrainConfig) -> Preparation:
    """How the pictures of a run become latents."""
    return Preparation(**{part.name: getattr(config, part.name) for part in fields(Preparation)})


def split(data: CachedData) -> tuple[list[int], list[int]]:
    """Rows to train on and rows to hold out (`held_out`)."""
    return held_out(data.digests, data.captions, data.paths)


def held_out(digests: Sequence[str], captions: Sequence[str], paths: Sequence[Any]) -> tuple[list[int], list[int]]:
    """Rows to train on and rows to hold out: one picture in eight, chosen by content.

    Renaming files changes nothing, and equal pictures stay on one side.
    """
    order = sorted(range(len(digests)), key=lambda row: (digests[row], captions[row]))
    count = max(1, len(order) // HELDOUT_SHARE)
    last = digests[order[count - 1]]
    held = [row for place, row in enumerate(order) if place < count or digests[row] == last]
    if len(held) == len(order):
        different = len(set(digests))
        few = "one picture" if different == 1 else f"{different} different pictures"
        raise UserError(
            f"{few} ({paths[0]}{', ...' * (different > 1)}) {'is' if different == 1 else 'are'} "
            "too few to hold one out; add pictures or give a 'heldout' folder"
        )
    return sorted(set(order) - set(held)), sorted(held)
