"""TensorBoard and Weights & Biases beside the run directory, through accelerate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import filter_trackers

from adapt import state
from adapt.config import TrainConfig
from adapt.validate import Validation
from spectra.errors import UserError


def check_trackers(config: TrainConfig) -> None:
    """UserError where a tracker's package is not installed; accelerate would leave it out without a word."""
    for name in config.trackers:
        found = find_spec(name)
        if found is None or found.origin is None:  # a folder of that name, such as wandb makes, is no package
            raise UserError(f"tracker {name!r} needs the package {name}; install it with `pip install {name}`")


@contextmanager
def tracked(accelerator: Accelerator, config: TrainConfig, folder: Path, step: int) -> Iterator[None]:
    """Inside, `accelerator.log` reaches the trackers of the run in `folder`.

    A run that goes on from `step` is the same run to the trackers; what was logged after that step is replaced.
    """
    if not config.trackers:
        yield
        return
    logs, name = folder / state.LOGS, (state.read_begun(folder) or {}).get("run", config.out.name)
    logs.mkdir(parents=True, exist_ok=True)
    accelerator.project_configuration.logging_dir = str(logs)
    accelerator.log_with = filter_trackers(list(config.trackers), str(logs))
    settings = {
        "tensorboard": {"purge_step": step + 1},
        "wandb": {"name": config.out.name, "id": name, "resume": "allow", "dir": str(logs)},
    }
    try:
        _start(accelerator, config, {name: settings[name] for name in config.trackers})
        yield
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()
        accelerator.trackers.clear()


def _start(accelerator: Accelerator, config: TrainConfig, settings: Mapping[str, Any]) -> None:
    """Start the trackers; UserError where one cannot, such as W&B without a login or a connection."""
    try:
        accelerator.init_trackers(config.project, plain(config.record()), dict(settings))
    except Exception as error:  # each has errors of its own
        names = " and ".join(config.trackers)
        raise UserError(f"{names} cannot start: {error}; mend that, or leave trackers out") from error


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as the numbers and texts that trackers take."""
    return {name: value if isinstance(value, bool | int | float) else str(value) for name, value in settings.items()}


def measured(one: Validation) -> dict[str, float]:
    """A measurement as named numbers: mean error, and how much each expert is used."""
    found = {"validation/error": float(one.error.mean())}
    if one.gates is not None:
        usage = one.gates.flatten(0, -2).mean(0).tolist()
        found |= {f"validation/gate_{i}": value for i, value in enumerate(usage)}
    return found
