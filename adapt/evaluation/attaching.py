"""Adapters on a pipeline for a while, and the base's own bits afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peft.tuners.tuners_utils import BaseTunerLayer

from adapt.evaluation.adapters import Adapter
from adapt.evaluation.merged import denoiser_name
from adapt.methods import full, remove_adapters
from adapt.methods.text_encoders import clip_encoders
from spectra.errors import UserError

if TYPE_CHECKING:
    from adapt.export import ScheduledLoras


@dataclass(frozen=True)
class Attached:
    """What an adapter that is on a pipeline asks of those who use it."""

    reads_otherwise: bool
    """It changes how prompts are read."""
    player: ScheduledLoras | None
    """Sets its weights before each step, by the noise level; None where they are the same at all."""


@contextmanager
def attached(pipe: Any, adapter: Adapter) -> Iterator[Attached]:
    """Inside, the pipeline has the adapter and is ready to generate; afterwards it is the base again, bit by bit.

    Raises:
        UserError: the adapter does not fit; the pipeline is then as it was.
    """
    names = (denoiser_name(pipe), *clip_encoders(pipe))
    before = {name: getattr(pipe, name) for name in names}
    try:
        player = _put_on(pipe, adapter)
        for name in names:
            getattr(pipe, name).eval()
        yield Attached(any(_differs(getattr(pipe, name), before[name]) for name in names[1:]), player)
    finally:
        _restore(pipe, before)


def check_fit(pipe: Any, adapter: Adapter) -> None:
    """UserError unless the adapter can be put on the pipeline; that is the base afterwards."""
    with attached(pipe, adapter):
        pass


def _put_on(pipe: Any, adapter: Adapter) -> ScheduledLoras | None:
    from spectra.models import one_line

    said = f"the adapter {adapter.path} ({adapter.kind}) does not fit this {type(pipe).__name__}"
    try:
        return adapter.put_on(pipe)
    except UserError as error:
        raise UserError(f"{said}: {error}") from error
    except Exception as error:  # PEFT and diffusers object to weights that do not fit in many ways
        raise UserError(f"{said}: {one_line(error)}") from error


def _differs(encoder: Any, before: Any) -> bool:
    """True for a text encoder that an adapter changes."""
    return (
        encoder is not before
        or full.learns(encoder)
        or any(isinstance(module, BaseTunerLayer) for module in encoder.modules())
    )


def _restore(pipe: Any, before: Mapping[str, Any]) -> None:
    """The networks that were there, without anything on them."""
    for name, network in before.items():
        setattr(pipe, name, network)
    remove_adapters(pipe)
