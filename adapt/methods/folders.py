"""Where adapters lie: in run directories and on their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapt import state
from adapt.methods.base import CONFIG_FILE
from spectra.errors import UserError


def find_adapter(path: Path) -> tuple[Path, dict[str, Any] | None]:
    """The PEFT folder of a run directory or an adapter folder, and the record of its run if there is one."""
    if (path / CONFIG_FILE).is_file():
        run = path.resolve().parent
        inside = path.resolve().name == state.ADAPTER and (run / state.RECORD).is_file()
        return path, state.read_record(run) if inside else None
    if not path.is_dir():
        raise UserError(f"{path} does not exist; give a run directory or an adapter folder")
    record = state.read_record(path)
    if not (path / state.ADAPTER / CONFIG_FILE).is_file():
        raise UserError(f"the run {path} has no adapter; train it again")
    return path / state.ADAPTER, record


def open_adapter(
    adapter: Path, record: dict[str, Any] | None, model: str | None, pipe: Any = None, device: str | None = None
) -> Any:
    """The pipeline, opened on `device` where none is given, with the adapter attached.

    Raises:
        UserError: they do not fit, nobody names the model, or a device that is not here or is not asked of a pipeline.
    """
    from spectra.devices import chosen_device, placed, refuse_device
    from spectra.models import load_pipeline

    if pipe is not None:
        refuse_device(device)
        return _with_adapter(pipe, type(pipe).__name__, adapter, record)
    name = model or (record or {}).get("model")
    if name is None:
        raise UserError(f"{adapter} does not say which model it belongs to; give the model")
    place = chosen_device(device)
    return placed(_with_adapter(load_pipeline(name), name, adapter, record), place)


def _with_adapter(pipe: Any, name: str, adapter: Path, record: dict[str, Any] | None) -> Any:
    """The pipeline of a model `name` with the adapter attached, where it is the model that the record names."""
    from adapt.methods import load_adapters
    from spectra.models import model_hash

    if record is not None:
        check_model(f"the adapter {adapter}", record, name, model_hash(pipe))
    load_adapters(pipe, adapter)
    return pipe


def check_model(what: str, record: Mapping[str, Any], name: str, identity: str) -> None:
    """UserError unless the run of this record was trained on the model `name`, whose hash is `identity`.

    `what` is what the sentence is about: the run, or its adapter.
    """
    if record["model_hash"] != identity:
        raise UserError(
            f"{what} was trained on {record['model']!r} (hash {record['model_hash'][:12]}), and {name!r} is another "
            f"model (hash {identity[:12]}); give the model that it was trained on"
        )
