"""May a run go on with these settings?  What changes its result may not change on the way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from adapt.config import TrainConfig
from spectra.errors import UserError

if TYPE_CHECKING:
    from adapt.prior import Prior
    from adapt.task import Task

MAY_CHANGE = frozenset({
    "out", "overwrite", "resume", "checkpoint_every", "keep_checkpoints", "trackers", "project",
    "threads", "accumulate", "checkpointing", "compile", "eval_every",
    "ablate", "preview_every", "preview_prompts", "sample_prompts", "sample_seeds", "sample_steps", "guidance",
    "model", "data", "heldout", "class_data", "cache", "prior", "prior_data",
})  # fmt: skip
"""Settings that leave the course of training as it is, but for float error.  Model, data and prior may move: what they
hold is compared instead."""
HELD = {
    "model_hash": "the model's weights",
    "data_hash": "the pictures or captions",
    "prior_hash": "the prior's numbers",
}
"""What is compared instead, by its name in `config.json`."""
FILLED_IN = ("lr", "targets")
"""Settings whose default depends on the model."""


def resolved(task: Task, lr: float) -> dict[str, Any]:
    """What `config.json` keeps: settings with their defaults filled in, and the identities of run, model and data."""
    return {
        "config": task.config.record() | {"lr": lr, "targets": task.targets},
        "run": uuid4().hex[:12],
        "model_hash": task.model_hash,
        "data_hash": data_hash(task),
        "prior_hash": None if task.prior is None else prior_hash(task.prior),
    }


def data_hash(task: Task) -> str:
    """Identity of the training, held-out and class data: contents and captions in their order."""
    held = [data for data in (task.train, task.heldout, task.class_data) if data is not None]
    parts = [[list(data.keys), [list(captions) for captions in data.caption_lists]] for data in held]
    return _hash(parts)


def prior_hash(prior: Prior) -> str:
    """Identity of what a run reads of its prior, to four digits: one made again from its cube is the same."""
    numbers = (prior.scales, prior.feature_mean, prior.feature_std, prior.timestep_log_snr, (prior.tau,))
    rounded = [[f"{value:.4g}" for value in some] for some in numbers]
    return _hash([rounded, prior.features, prior.experts, prior.hidden])


def _hash(document: Any) -> str:
    return hashlib.sha256(json.dumps(document).encode()).hexdigest()[:32]


def check_settings(saved: Mapping[str, Any], config: TrainConfig, folder: Path) -> None:
    """UserError where the settings given differ from those of the unfinished run; asked before any work."""
    given = config.record()
    open_ = [name for name in FILLED_IN if given[name] is None]
    _refuse(_differences(saved["config"], given, MAY_CHANGE.union(open_)), folder)


def check_resolved(saved: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """UserError where model, data or what was filled in differ; asked when they are known."""
    found = _differences(saved["config"], now["config"], MAY_CHANGE)
    found += [f"{words} are other ones" for name, words in HELD.items() if name in saved and saved[name] != now[name]]
    _refuse(found, folder)


def _differences(saved: Mapping[str, Any], given: Mapping[str, Any], ignored: frozenset[str]) -> list[str]:
    """`name: saved -> given` for every setting that differs; what an older version did not save had its default.

    What only another version knows is a difference too: what it did is not done here.
    """
    known = TrainConfig.model_fields
    names = sorted(given.keys() - ignored)
    pairs = ((name, saved.get(name, known[name].default), given[name]) for name in names)
    foreign = [f"{name}: {json.dumps(saved[name])}, not known to this version" for name in sorted(saved.keys() - known)]
    return [f"{name}: {json.dumps(old)} -> {json.dumps(new)}" for name, old, new in pairs if old != new] + foreign


def _refuse(differences: list[str], folder: Path) -> None:
    if differences:
        raise UserError(
            f"{folder} holds an unfinished run of other settings ({'; '.join(differences)}); give the saved ones to "
            "let it go on, choose another name, or begin it anew (--set resume=false --overwrite)"
        )
