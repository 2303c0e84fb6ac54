"""What a probe changes about a pipeline before it generates: its scheduler and its adapter."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spectra.errors import UserError
from spectra.models import one_line
from spectra.recording.attached import Attached

WEIGHTS = "adapter_model.safetensors"


@contextmanager
def scheduled(pipe: Any, name: str | None) -> Iterator[None]:
    """Let the pipeline use the diffusers scheduler `name`, set up as its own was, until the block ends.

    The ending "Scheduler" may be left out. Raises UserError for a name that diffusers does not have, and for a
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
        yield
    finally:
        pipe.scheduler = before


def _scheduler_class(name: str) -> Any:
    import diffusers

    known = [one for one in dir(diffusers) if one.endswith("Scheduler") and not one.startswith("Flax")]
    full = name if name.endswith("Scheduler") else f"{name}Scheduler"
    if full not in known:
        near = difflib.get_close_matches(full, known, 3, 0.5)
        raise UserError(f"diffusers has no scheduler {name!r}" + (f"; near are {', '.join(near)}" if near else ""))
    return getattr(diffusers, full)


def load_adapter(pipe: Any, path: str | Path) -> None:
    """Attach the adapter in a folder, or .safetensors file, under the name of that; it stays on the pipeline.

    Folders are those of `save_lora_weights` of diffusers, and of `save_pretrained` of PEFT, which is put on the
    denoiser. Pickled weights are not read. Raises UserError if there is none, or one that does not fit.
    """
    place = Path(path)
    if not place.exists():
        raise UserError(f"there is no adapter at {place}")
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
    files = [place] if place.is_file() else sorted(place.glob("*.safetensors"))
    if len(files) != 1 or files[0].suffix != ".safetensors":
        raise UserError(f"{place} holds {len(files)} safetensors files, and an adapter is one")
    if not hasattr(pipe, "load_lora_weights"):
        raise UserError(f"{type(pipe).__name__} takes no LoRA weights; attach the adapter with prepare=")
    pipe.load_lora_weights(str(files[0].parent), weight_name=files[0].name, adapter_name=name)


def _load_peft(pipe: Any, place: Path, name: str) -> None:
    from peft import PeftConfig, inject_adapter_in_model, set_peft_model_state_dict
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
    from safetensors.torch import load_file

    kind = str(json.loads((place / "adapter_config.json").read_text()).get("peft_type"))
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
