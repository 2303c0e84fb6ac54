"""How a plan is made: every check of a training, and none of its work."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np

from adapt import processes, state
from adapt.checkpoint import newest
from adapt.checkpoint_settings import check_settings
from adapt.config import TrainConfig
from adapt.methods import METHODS, Reach, attach_text_encoders
from adapt.methods.text_encoders import clip_encoders
from adapt.optimisers import check_optimizer, peak_rate
from adapt.plan import memory
from adapt.plan.data import look_at_data
from adapt.plan.example import example
from adapt.plan.levels import levels_of
from adapt.plan.plan import Plan
from adapt.prior import Prior
from adapt.task import (
    Progress,
    check_objective,
    check_sources,
    load_prior,
    objective_for,
    open_prior,
    silent,
    targets_of,
)
from adapt.trackers import check_trackers
from adapt.trainer import check_denoiser
from spectra.errors import UserError


def make_plan(config: TrainConfig, *, preview: bool = False, progress: Progress = silent) -> Plan:
    """Plan a training without doing any of it; with `preview` one picture is drawn by the model as it is.

    Raises:
        UserError: whatever the training itself would refuse before its first step; that something is at the place of
            the run is no reason, and is among the warnings.
    """
    check_trackers(config)
    check_sources(config)
    with processes.threads(config.threads), processes.accelerated(config) as accelerator:
        return _planned(config, accelerator.device, preview, progress)


def _planned(config: TrainConfig, device: Any, preview: bool, progress: Progress) -> Plan:
    from spectra.families import family_of
    from spectra.models import check_steps, load_pipeline, model_hash

    pipe: Any = load_pipeline(config.model)
    check_steps(pipe, config.sample_steps)
    identity, denoiser = model_hash(pipe), cast(Any, family_of(pipe).denoiser(pipe))
    prior, targets = load_prior(config, identity), targets_of(config, pipe)
    check_objective(config, pipe.scheduler, prior)
    check_denoiser(config, denoiser)
    progress("encode", 0, 1)
    looked = look_at_data(config, pipe)
    twin, reach = adapted_twin(denoiser, config, targets, prior, pipe)
    encoders = encoder_twins(pipe, config)
    rate = peak_rate(config, sum(p.numel() for p in twin.parameters()))
    check_optimizer(config, METHODS[config.method].groups(twin, rate, config))
    pipe.to(device)
    one = example(config, pipe, looked)
    shape = tuple(one.latent.shape[1:])
    objective = objective_for(config, pipe, shape)
    size = sum(p.numel() for p in denoiser.parameters())
    progress("sample", 0, 1)
    return Plan(
        config=config,
        model=f"{config.model}: {type(pipe).__name__}, {type(denoiser).__name__} of {size:,} parameters, "
        f"hash {identity[:12]}",
        targets=targets,
        coverage=None if config.method == "full" else one.coverage(twin),
        reach=reach,
        encoders={name: _trained(encoder) for name, encoder in encoders.items()},
        rate=rate,
        memory=one.memory(denoiser, twin, list(encoders.values())),
        data=looked.facts(),
        levels=levels_of(config, pipe, objective, prior, shape),
        objective=objective.name,
        prior=[] if prior is None else prior.explain(),
        bands=None if prior is None else (np.array(prior.timestep), np.array(prior.shares)),
        pictures=one.pictures() if preview else [],
        place=place_of(config),
    )


def adapted_twin(
    denoiser: Any, config: TrainConfig, targets: list[str], prior: Prior | None, pipe: Any
) -> tuple[Any, Reach | None]:
    """The denoiser as it will be trained, on the meta device, and which of the targets are reached."""
    twin = memory.meta_twin(denoiser)
    if config.method == "full":  # to attach it would copy the weights, and there are none
        return twin.requires_grad_(True), None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=f"{config.method}: ")  # the plan itself says what is left out
        return twin, METHODS[config.method].attach(twin, config, targets, prior, pipe)


def encoder_twins(pipe: Any, config: TrainConfig) -> dict[str, Any]:
    """The text encoders as they will be trained, on the meta device, by the names of their components."""
    if not config.text_encoder:
        return {}
    other = copy.copy(pipe)
    for name, encoder in clip_encoders(pipe).items():
        setattr(other, name, memory.encoder_twin(encoder))
    if config.method == "full":
        return {name: twin.requires_grad_(True) for name, twin in clip_encoders(other).items()}
    return attach_text_encoders(other, config)


def place_of(config: TrainConfig) -> str:
    """What is at the place of the run already, in words; empty where nothing is."""
    if state.is_finished(config.out):
        then = "it will be replaced" if config.overwrite else "training will refuse to replace it without --overwrite"
        return f"{config.out} is a finished run: {then}"
    saved, kept = state.read_begun(config.out), newest(config.out / state.STATE, check=False)
    if saved is None or kept.path is None:
        return ""
    try:
        check_settings(saved, config, config.out)
    except UserError as error:
        return str(error)
    return f"{config.out} is an unfinished run, which goes on from {kept.path.name}"


def explain_prior(config: TrainConfig, figure: Path | None = None) -> list[str]:
    """The sentences of the prior that a configuration names; with `figure` its picture is written."""
    prior = open_prior(config)
    if prior is None:
        raise UserError("there is no prior to explain; give a cube (.zarr) or a saved prior (.json)")
    if figure is not None:
        from spectra.plots.style import save

        save(prior.figure(), figure)
    return prior.explain()


def _trained(model: Any) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
