"""Where adapters lie: in run directories and on their own."""

from __future__ import annotations

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


def open_adapter(adapter: Path, record: dict[str, Any] | None, model: str | None, pipe: Any = None) -> Any:
    """The pipeline, opened where none is given, with the adapter attached; UserError where they do not fit."""
    from adapt.methods import load_adapters
    from spectra.models import load_pipeline, model_hash, usable_device

    if pipe is None:
        name = model or (record or {}).get("model")
        if name is None:
            raise UserError(f"{adapter} does not say which model it belongs to; give the model")
        opened: Any = load_pipeline(name)
    else:
        name, opened = type(pipe).__name__, pipe
    if record is not None and model_hash(opened) != record["model_hash"]:
        raise UserError(
            f"the adapter {adapter} was trained on {record['model']!r} (hash {record['model_hash'][:12]}), and "
            f"{name!r} is another model (hash {model_hash(opened)[:12]}); give the model that it was trained on"
        )
    load_adapters(opened, adapter)
    return opened.to(usable_device()) if pipe is None else pipe
