"""A finished run, opened again as the task that it was, with its adapter in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from adapt import state
from adapt.calling import call_of
from adapt.config import TrainConfig
from adapt.methods import METHODS, check_model, find_adapter, load_adapters
from adapt.task import Progress, Task, check_sources, load_data, load_prior, objective_for, silent

UNUSED = ("prior", "prior_data", "overlap")
"""Settings that made a start which is not needed again; the cube that they name may be gone."""


def open_run(run: Path | str, progress: Progress = silent, **changes: Any) -> Task:
    """The task of a finished run; its data are read, or encoded, again, and its adapter is as it was saved.

    Paths are those that the run was given, relative to the working directory.

    Args:
        run: its directory.
        progress: called with (`encode`, done, total).
        changes: settings to have otherwise, such as `eval_draws`, `data` or `cache`.

    Raises:
        UserError: no finished run there, another model under its name, or data that are gone.
    """
    record = state.read_record(Path(run))
    config = config_of(record, **changes)
    check_sources(config)
    from spectra.families import family_of
    from spectra.models import load_pipeline, model_hash, usable_device

    pipe: Any = load_pipeline(config.model)
    identity = model_hash(pipe)
    check_model(f"the run {run}", record, config.model, identity)
    pipe.to(usable_device())
    train, heldout = load_data(config, pipe, progress)
    denoiser: Any = family_of(pipe).denoiser(pipe)
    objective = objective_for(config, pipe, train.shapes[0])
    prior = load_prior(config, identity)
    call = call_of(pipe)
    folder, _ = find_adapter(Path(run))
    load_adapters(pipe, folder)
    denoiser.eval()
    return Task(
        config, pipe, denoiser, call, identity, objective, METHODS[config.method], config.targets or [], prior, train,
        heldout,
    )  # fmt: skip


def config_of(record: dict[str, Any], **changes: Any) -> TrainConfig:
    """The settings of a finished run; a prior only where its noise levels are still asked for."""
    settings = record["config"]
    known = {name: value for name, value in settings.items() if name in TrainConfig.model_fields}
    if settings.get("timesteps") != "prior":
        known = {name: value for name, value in known.items() if name not in UNUSED}
    if not known.get("targets"):  # training every weight has none
        known.pop("targets", None)
    return TrainConfig(**(known | changes))


def learned(denoiser: Any) -> dict[str, Tensor]:
    """What a method trained in a denoiser, by name: the adapter's parameters, or all where there is no adapter.

    FeRA's router and AdaLoRA's divisors, which are no part of the update, are left out.
    """
    named = dict(denoiser.named_parameters())
    kinds = getattr(denoiser, "peft_config", None)
    if not kinds:
        return named
    from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

    prefixes = tuple(PEFT_TYPE_TO_PREFIX_MAPPING[one.peft_type] for one in kinds.values())
    return {
        name: value for name, value in named.items()
        if any(part.startswith(prefixes) for part in name.split(".")) and not name.startswith("fera.")
    }  # fmt: skip
