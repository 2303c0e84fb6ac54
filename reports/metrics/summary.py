"""Every measure of every adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports.metrics.measured import Measured, measured
from reports.metrics.quantity import Quantity
from reports.metrics.results import Measure

if TYPE_CHECKING:
    import xarray as xr


def summarise(evaluation: xr.Dataset | Measured, confidence: float = 0.95) -> list[Measure]:
    """All that an evaluation lets one measure, adapter by adapter within each measure; what is missing is left out.

    `evaluation` has the variables of `adapt.open_evaluation`; intervals are over prompts (held-out pictures for the
    validation error).  Raises UserError where it is no evaluation.
    """
    found = evaluation if isinstance(evaluation, Measured) else measured(evaluation)
    return [
        _measure(one, adapter, confidence) for one in found.quantities for adapter in one.adapters
        if adapter not in one.skip
    ]  # fmt: skip


def reasons(evaluation: xr.Dataset | Measured) -> list[str]:
    """Why measures are not there, a sentence each."""
    return list((evaluation if isinstance(evaluation, Measured) else measured(evaluation)).reasons)


def _measure(one: Quantity, adapter: str, confidence: float) -> Measure:
    own = one.notes[one.adapters.index(adapter)] if one.notes else ""
    note = "; ".join(text for text in (one.note, own) if text)
    value = one.estimate(adapter, confidence)
    return Measure(one.name, adapter, value, one.better, one.network, one.pinned, one.title, note)
