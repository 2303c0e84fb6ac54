"""Checkpoints with all weights of the base's networks: put in the places of the base's own, and taken out again."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from adapt.methods.peft_adapters import difference
from adapt.methods.text_encoders import PARTS, clip_encoders
from spectra.errors import UserError
from spectra.families import family_of

DENOISERS = ("unet", "transformer")


def files_of(folder: Path) -> list[Path]:
    """The weights of denoiser and text encoders in a pipeline's folder; UserError where there are none."""
    found = [file for part in (*DENOISERS, *PARTS) for file in sorted((folder / part).glob("*.safetensors"))]
    if not any(file.parent.name in DENOISERS for file in found):
        pickled = any(any((folder / part).glob("*.bin")) for part in DENOISERS)
        reason = (
            "its weights are pickled, and those are not read; save it as safetensors" if pickled else "save it again"
        )
        raise UserError(f"the checkpoint {folder} holds no safetensors of a denoiser; {reason}")
    return found


def put_pipeline(pipe: Any, folder: Path) -> None:
    """Give a pipeline the denoiser and the CLIP text encoders of a folder; all else stays the base's.

    Raises:
        UserError: another pipeline, networks of other shapes, or another kind of prediction.
    """
    from spectra.model_files import read_index
    from spectra.models import load_pipeline

    kind = read_index(folder)["_class_name"]
    if kind != type(pipe).__name__:
        raise UserError(f"it is a {kind}, not a {type(pipe).__name__}")
    _check_prediction(pipe, folder)
    names = [denoiser_name(pipe), *clip_encoders(pipe)]
    kept = {name: part for name, part in pipe.components.items() if name not in names}
    device, dtype = family_of(pipe).denoiser(pipe).device, family_of(pipe).denoiser(pipe).dtype
    other: Any = load_pipeline(folder, dtype=dtype, **kept)
    for name in names:
        swap(pipe, name, getattr(other, name).to(device))


def put_denoiser(pipe: Any, folder: Path) -> None:
    """Give a pipeline the denoiser of a folder of its own."""
    from spectra.models import one_line, quiet_libraries

    mine: Any = family_of(pipe).denoiser(pipe)
    named = json.loads((folder / "config.json").read_text(encoding="utf-8"))["_class_name"]
    if named != type(mine).__name__:
        raise UserError(f"it is a {named}, not a {type(mine).__name__}")
    with quiet_libraries() as torn:
        try:
            other = type(mine).from_pretrained(folder, use_safetensors=True, torch_dtype=mine.dtype)
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"it cannot be opened: {one_line(error)}") from error
    if torn:
        raise UserError("some of its weights are missing")
    swap(pipe, denoiser_name(pipe), other.to(mine.device))


def put_file(pipe: Any, file: Path) -> None:
    """Give a pipeline's denoiser all the weights of a file."""
    mine: Any = family_of(pipe).denoiser(pipe)
    found = load_file(file)
    if problem := difference(mine.state_dict(), found):
        raise UserError(problem)
    other = copy.deepcopy(mine)
    other.load_state_dict(found)
    swap(pipe, denoiser_name(pipe), other)


def swap(pipe: Any, name: str, other: Any) -> None:
    """Put a network in the place of another of the same class and shapes; UserError for any other."""
    mine = getattr(pipe, name)
    if type(mine) is not type(other):
        raise UserError(f"its {name} is a {type(other).__name__}, not a {type(mine).__name__}")
    if problem := difference(mine.state_dict(), other.state_dict()):
        raise UserError(f"its {name} is another: {problem}")
    setattr(pipe, name, other)


def denoiser_name(pipe: Any) -> str:
    """The component of a pipeline that is its denoiser."""
    denoiser = family_of(pipe).denoiser(pipe)
    return next(str(name) for name, part in pipe.components.items() if part is denoiser)


def _check_prediction(pipe: Any, folder: Path) -> None:
    """The base's scheduler is used for all, so a checkpoint has to predict what the base does."""
    try:
        told = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    mine, its = pipe.scheduler.config.get("prediction_type", "epsilon"), told.get("prediction_type", "epsilon")
    if mine != its:
        raise UserError(f"it predicts {its}, and the base {mine}")
