"""What a probe changes about a pipeline before it generates: its scheduler and its adapter."""

from __future__ import annotations

import copy
import difflib
import inspect
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spectra.errors import UserError
from spectra.models import one_line
from spectra.recording.attached import Attached

WEIGHTS = "adapter_model.safetensors"
ASKED = ("init_noise_sigma", "scale_model_input", "order")  # what schedulers of one kind have and those of another lack


@contextmanager
def scheduled(pipe: Any, name: str | None) -> Iterator[None]:
    """Let the pipeline use the diffusers scheduler `name`, set up as its own was, until the block ends.

    Case does not matter, and Discrete, Multistep, Singlestep and Scheduler may be left out where that leaves one
    scheduler: heun is HeunDiscreteScheduler. Raises UserError for a name that diffusers does not have, and for a
    scheduler that cannot be made from that configuration.
    """
    if name is None:
        yield
        return
    before = pipe.scheduler
    kind = _scheduler_class(name)
    try:
        pipe.scheduler = kind.from_config(before.config)
    except Exception as error:  # each scheduler objects to options in its own way
        raise UserError(f"{name} cannot be made from this model's configuration: {one_line(error)}") from error
    try:
        _check_fit(pipe, before, name)
        yield
    finally:
        pipe.scheduler = before


def _check_fit(pipe: Any, before: Any, name: str) -> None:
    """Raise UserError if the pipeline's scheduler cannot stand in for the one `before`, with which it was trained."""
    from spectra.families import family_of

    kind, now = type(pipe).__name__, pipe.scheduler
    lacking = [part for part in ASKED if hasattr(before, part) and not hasattr(now, part)]
    if lacking or _called(now) != _called(before):
        what = f"it has no {lacking[0]}" if lacking else f"its step is called with {', '.join(_called(now))}"
        raise UserError(f"{name} does not fit {kind}: {what}; choose another scheduler")
    flow, was = (space_of(scheduler) == "flow" for scheduler in (now, before))
    if flow != was and family_of(pipe).name != "gaussian" and "unknown" not in (space_of(now), space_of(before)):
        trained = "with flow matching" if was else "without flow matching"
        raise UserError(f"{name} does not fit {kind}, which was trained {trained}; choose another scheduler")


def _called(scheduler: Any) -> list[str]:
    """How pipelines call the scheduler's step."""
    return list(inspect.signature(scheduler.step).parameters)[:3] if hasattr(scheduler, "step") else []


def timed(scheduler: Any) -> Any:
    """A copy of a scheduler with four timesteps set, to be asked about."""
    scheduler = copy.deepcopy(scheduler)
    shifted = bool(scheduler.config.get("use_dynamic_shifting", False))
    scheduler.set_timesteps(4, **({"mu": 1.0} if shifted else {}))
    return scheduler


def space_of(scheduler: Any) -> str:
    """The space of a scheduler's states: vp, ve, flow or unknown."""
    from spectra.signals import schedule_of

    try:
        return schedule_of(timed(scheduler), ("latent",)).space
    except Exception:  # each scheduler objects in its own way to steps that do not suit it
        return "unknown"


def _scheduler_class(name: str) -> Any:
    import diffusers

    known = [one for one in dir(diffusers) if one.endswith("Scheduler") and not one.startswith("Flax")]
    full = name if name.lower().endswith("scheduler") else f"{name}Scheduler"
    found = [one for one in known if one.lower() == full.lower()]
    found = found or [one for one in known if _short(one) == _short(name)]
    if len(found) == 1:
        return getattr(diffusers, found[0])
    if found:
        raise UserError(f"{name!r} may be {' or '.join(found)}: give the whole name")
    near = difflib.get_close_matches(full, known, 3, 0.5)
    raise UserError(f"diffusers has no scheduler {name!r}" + (f"; near are {', '.join(near)}" if near else ""))


def _short(name: str) -> str:
    """A scheduler's name without what many leave out: `heun` for HeunDiscreteScheduler."""
    return re.sub("discrete|multistep|singlestep|scheduler", "", name.lower())


def load_adapter(pipe: Any, path: str | Path) -> None:
    """Attach the adapter in a folder, or .safetensors file, under the name of that; it stays on the pipeline.

    Folders are those of `save_lora_weights` of diffusers, and of `save_pretrained` of PEFT, which is put on the
    denoiser. Pickled weights are not read. Raises UserError if there is none, or one that does not fit.
    """
    place = Path(path)
    if not place.exists():
        raise UserError(f"there is no adapter at {place}; give a folder of PEFT or diffusers, or a LoRA file")
    name = place.stem.replace(".", "_") or "adapter"
    try:
        if (place / "adapter_config.json").is_file():
            _load_peft(pipe, place, name)
        else:
            _load_lora(pipe, place, name)
    except UserError:
        raise
    except Exception as error:  # PEFT and diffusers object to weights that do not fit in many ways
        raise UserError(f"the adapter at {place} does not fit {type(pipe).__name__}: {one_line(error)}") from error
    if name not in Attached(pipe).look()[0].split("+"):
        raise UserError(f"the adapter at {place} has no weights for any layer of {type(pipe).__name__}")


def _load_lora(pipe: Any, place: Path, name: str) -> None:
    if place.is_file() and place.suffix != ".safetensors":
        raise UserError(f"{place} is no .safetensors file; other kinds of weights are not read")
    files = [place] if place.is_file() else sorted(place.glob("*.safetensors"))
    if len(files) != 1:
        raise UserError(f"{place} holds {len(files)} safetensors files, and an adapter is one: give its folder or file")
    if not hasattr(pipe, "load_lora_weights"):
        raise UserError(f"{type(pipe).__name__} takes no LoRA weights; attach the adapter with prepare=")
    with _no_advice():
        pipe.load_lora_weights(str(files[0].parent), weight_name=files[0].name, adapter_name=name)


@contextmanager
def _no_advice() -> Iterator[None]:
    """Keep back what diffusers logs about weights that fit nowhere: it is said in one sentence afterwards."""
    from diffusers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _load_peft(pipe: Any, place: Path, name: str) -> None:
    from peft import PeftConfig, inject_adapter_in_model, set_peft_model_state_dict
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from safetensors.torch import load_file

    kind = str(_settings(place / "adapter_config.json").get("peft_type"))
    if kind not in {str(getattr(one, "value", one)) for one in PEFT_TYPE_TO_CONFIG_MAPPING}:
        raise UserError(f"the adapter at {place} is a {kind}, which PEFT does not know; attach it with prepare=")
    if not (place / WEIGHTS).is_file():
        raise UserError(f"{place} holds no {WEIGHTS}")
    denoiser = next(part for part in (getattr(pipe, "unet", None), getattr(pipe, "transformer", None)) if part)
    inject_adapter_in_model(PeftConfig.from_pretrained(str(place)), denoiser, adapter_name=name)
    found = set_peft_model_state_dict(denoiser, load_file(str(place / WEIGHTS)), adapter_name=name)
    if found.unexpected_keys:
        raise UserError(f"the adapter at {place} has weights for layers that are not there: {found.unexpected_keys[0]}")
    denoiser.to(denoiser.device)


def _settings(file: Path) -> dict[str, Any]:
    """What an adapter says about itself. Raises UserError where that is no JSON object."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {one_line(error)}; save the adapter again") from error
    if not isinstance(found, dict):
        raise UserError(f"{file} is not the configuration of an adapter; save the adapter again")
    return found
