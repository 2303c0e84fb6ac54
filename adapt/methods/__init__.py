"""The methods that the one loop trains: FeRA, what PEFT offers, and training every weight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapt.methods.base import CONFIG_FILE, NAME, WEIGHTS_FILE, Method, Reach, kind_of
from adapt.methods.fera_adapter import FERA
from adapt.methods.folders import check_model, find_adapter, open_adapter
from adapt.methods.full import FULL
from adapt.methods.peft_adapters import methods
from adapt.methods.text_encoders import (
    attach_text_encoders,
    check_text_encoders,
    load_text_encoders,
    save_text_encoders,
)
from spectra.errors import UserError

__all__ = [
    "CONFIG_FILE",
    "METHODS",
    "NAME",
    "WEIGHTS_FILE",
    "Method",
    "Reach",
    "attach_text_encoders",
    "check_model",
    "check_text_encoders",
    "find_adapter",
    "kind_of",
    "load_adapter",
    "load_adapters",
    "load_text_encoders",
    "open_adapter",
    "remove_adapters",
    "save_text_encoders",
]

METHODS: dict[str, Method] = {"fera": FERA, **methods(), "full": FULL}


def load_adapter(denoiser: Any, folder: Path) -> str:
    """Attach the adapter that a PEFT folder holds to a denoiser; returns its method.

    Raises:
        UserError: no adapter there, an unknown kind, or one that does not fit.
    """
    kind = kind_of(folder)
    if kind not in METHODS:
        raise UserError(f"{folder} holds a {kind.upper()} adapter; known kinds: {', '.join(METHODS)}")
    METHODS[kind].load(denoiser, folder)
    return kind


def remove_adapters(pipe: Any) -> None:
    """Take everything off a pipeline that `load_adapters` or diffusers' own loaders attached to its networks."""
    from adapt.methods.text_encoders import clip_encoders, remove
    from spectra.families import family_of

    for network in (family_of(pipe).denoiser(pipe), *clip_encoders(pipe).values()):
        remove(network)


def load_adapters(pipe: Any, folder: Path) -> str:
    """Attach everything that an adapter folder holds to a pipeline: denoiser and text encoders; returns the method."""
    from spectra.families import family_of

    kind = load_adapter(family_of(pipe).denoiser(pipe), folder)
    load_text_encoders(pipe, folder)
    return kind
