"""What the options of `spectra probe` mean."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra.errors import UserError

WEIGHTS = "adapter_model.safetensors"

if TYPE_CHECKING:
    from spectra.bands import FilterBank


def parse_bands(text: str | None) -> FilterBank | int | None:
    """`6` is a number of octave bands; `0.8,1.6,3.2` are scales in latent pixels."""
    from spectra.bands import FilterBank

    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--bands {text!r} is not understood; write 4, or scales such as 0.8,1.6") from None
    whole = len(values) == 1 and values[0].is_integer() and "." not in text
    return int(values[0]) if whole else FilterBank(values)


def parse_signals(text: str) -> tuple[str, ...]:
    """`latent,x0` as names, each once."""
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise UserError("--signals names nothing; write latent,x0,eps,prediction or some of them")
    return tuple(dict.fromkeys(names))


def parse_call(words: list[str]) -> dict[str, Any]:
    """`NAME=VALUE` each, the value as JSON where it is some, else as text."""
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.strip().isidentifier():
            raise UserError(f"--call {word!r} is not understood; write NAME=VALUE, such as height=512")
        if name.strip() in found:
            raise UserError(f"--call gives {name.strip()} twice; give it once")
        found[name.strip()] = _json_or_text(value)
    return found


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def runs_in(store: str) -> int:
    """Complete runs of a cube, 0 where there is none yet."""
    from spectra.cube import count_runs
    from spectra.storage.stores import exists

    if store.startswith("memory://"):
        raise UserError(f"{store} would be gone when this command ends; give a folder, or a URL of a place that lasts")
    return count_runs(store) if exists(store) else 0


def leads() -> bool:
    """True in the process that speaks, of several that a launcher started."""
    return int(os.environ.get("RANK", "0")) == 0


def attaching(adapter: Path | None) -> dict[str, Any]:
    """Arguments of a probe that attach an adapter: a FeRA folder or run with adapt's loader, all others with PEFT's."""
    if adapter is None:
        return {}
    if adapter.name == WEIGHTS and adapter.with_name("adapter_config.json").is_file():
        adapter = adapter.parent
    folder = adapter / "adapter" if (adapter / "adapter" / "adapter_config.json").is_file() else adapter
    owner = adapter.absolute().parent.name if adapter.name == "adapter" else ""  # a run, which has the name
    label = owner or adapter.name
    return {"prepare": _loader(folder), "label": label}


def _loader(folder: Path) -> Callable[[Any], object]:
    """What attaches the adapter in `folder` to a pipeline."""
    from spectra.setting import load_adapter

    def attach(pipe: Any) -> object:
        try:
            return (_fera if _is_fera(folder) else load_adapter)(pipe, folder)
        except UserError as error:
            made = _made_for(folder)
            if not made or _is_that(pipe, made):
                raise
            raise UserError(
                f"the adapter {folder} was made for {made['model']}, and does not fit this {type(pipe).__name__}"
            ) from error

    return attach


def _made_for(folder: Path) -> dict[str, str]:
    """The name and the hash of the model that an adapter was trained on, as far as its run or its settings say."""
    settings, run = _object(folder / "adapter_config.json"), _object(folder.parent / "run.json")
    prior = settings.get("provenance")
    named = {"model": settings.get("base_model_name_or_path")}
    for found in (run, prior if isinstance(prior, dict) else {}, named):
        if isinstance(found.get("model"), str) and found["model"]:
            return {"model": found["model"], "model_hash": str(found.get("model_hash", ""))}
    return {}


def _is_that(pipe: Any, made: dict[str, str]) -> bool:
    from spectra.models import model_hash

    return bool(made["model_hash"]) and model_hash(pipe) == made["model_hash"]


def _object(file: Path) -> dict[str, Any]:
    """A JSON object, empty where the file holds none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_fera(folder: Path) -> bool:
    return _object(folder / "adapter_config.json").get("peft_type") == "FERA"


def _fera(pipe: Any, folder: Path) -> object:
    from adapt.fera.files import load_fera

    try:
        return load_fera(pipe, folder)
    except UserError as error:
        raise UserError(f"cannot attach the adapter {folder} to {type(pipe).__name__}: {error}") from error
