"""Where a model computes: on a device that a person names, or on the accelerator that is there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra.errors import UserError

if TYPE_CHECKING:
    import torch


def chosen_device(name: str | None = None) -> torch.device:
    """The device of a name, such as "cuda:1" or "cpu"; without one, the accelerator that is there, else the CPU.

    Raises:
        UserError: a device that is not here.
    """
    import torch

    from spectra.models import usable_device

    best = usable_device()
    count = 0 if best.type == "cpu" else torch.accelerator.device_count()
    there = [*(f"{best.type}:{number}" for number in range(count)), "cpu"]
    if name is not None and name not in {*there, best.type}:
        raise UserError(f"the device {name!r} cannot be used; give one that is here: {', '.join(there)}")
    return best if name is None else torch.device(name)


def placed(pipe: Any, device: torch.device) -> Any:
    """The pipeline, moved to a device; UserError where the device will not have it."""
    from spectra.models import one_line

    try:
        return pipe.to(device)
    except RuntimeError as error:  # such as one that others have filled
        raise UserError(f"the device {str(device)!r} cannot be used: {one_line(error)}") from error


def opened(model: str | Path | Any, device: str | torch.device | None = None, **options: Any) -> Any:
    """A model by name, folder or hub id, opened on a device, which is looked for first; a pipeline is left where it is.

    `options` go to `spectra.models.load_pipeline`.

    Raises:
        UserError: a device that is not here or has no room, a device for a pipeline, a model that cannot be opened.
    """
    from spectra.models import load_pipeline

    if not isinstance(model, str | Path):
        refuse_device(device)
        return model
    place = chosen_device(device) if device is None or isinstance(device, str) else device
    return placed(load_pipeline(model, **options), place)


def refuse_device(device: object) -> None:
    """UserError for a device that was named beside an opened pipeline."""
    if device is not None:
        raise UserError("a device is for models that are opened here; a pipeline has its own")
