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
    if _is_fera(folder):
        return {"prepare": _fera(folder), "label": adapter.name}
    return {"adapter": folder, "label": adapter.name}


def _is_fera(folder: Path) -> bool:
    try:
        settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(settings, dict) and settings.get("peft_type") == "FERA"


def _fera(folder: Path) -> Callable[[Any], object]:
    def attach(pipe: Any) -> object:
        from adapt.fera.files import load_fera

        try:
            return load_fera(pipe, folder)
        except UserError as error:
            raise UserError(f"cannot attach the adapter {folder} to {type(pipe).__name__}: {error}") from error

    return attach
