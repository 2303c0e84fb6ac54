"""Adapters in pairs, on the same prompts and seeds, with everything that was looked at counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from reports.metrics.measured import Measured, measured
from reports.metrics.quantity import Paired, Quantity, half_of, paired, resolution
from reports.metrics.results import Comparison
from reports.metrics.wording import said
from spectra.analysis.statistics import Array, false_discovery, holm
from spectra.errors import UserError

if TYPE_CHECKING:
    import xarray as xr

Correction = Literal["holm", "benjamini-hochberg", "none"]

ADJUSTED: dict[str, Callable[[Array], Array]] = {
    "holm": holm,
    "benjamini-hochberg": false_discovery,
    "none": lambda p: p,
}


class _Cell(NamedTuple):
    quantity: Quantity
    a: str
    b: str
    found: Paired


def compare(
    evaluation: xr.Dataset | Measured,
    pairs: Sequence[tuple[str, str]] | None = None,
    confidence: float = 0.95,
    correction: Correction = "holm",
    names: Sequence[str] | None = None,
) -> list[Comparison]:
    """Adapters in pairs (a, b), each measure of both: `a - b`, or `a / b` where the numbers are above zero.

    `pairs`         labels; by default all pairs, later adapters against earlier ones (so against the base, if first)
    `names`         measures; by default all.  The fewer comparisons, the less their correction takes away
    `correction`    "holm": with `confidence`, no difference among all that are returned is claimed wrongly;
                    "benjamini-hochberg": of those claimed, a share of 1 - confidence is wrong; "none": each by itself

    Raises UserError where it is no evaluation, and for adapters, measures and corrections that are not there.
    """
    found = evaluation if isinstance(evaluation, Measured) else measured(evaluation)
    if correction not in ADJUSTED:
        raise UserError(f"the correction is one of {', '.join(ADJUSTED)}, not {correction!r}")
    quantities = _chosen(found, names)
    cells = [
        _Cell(one, a, b, paired(one, a, b, confidence))
        for a, b in _pairs(found, pairs) for one in quantities
        if {a, b} <= set(one.adapters) - one.skip
    ]  # fmt: skip
    alone = np.array([cell.found.p for cell in cells])
    family = max(int(np.isfinite(alone).sum()), 1)
    corrected = ADJUSTED[correction](alone)
    return [_comparison(cell, p, family, correction, confidence) for cell, p in zip(cells, corrected, strict=True)]


def _chosen(found: Measured, names: Sequence[str] | None) -> list[Quantity]:
    """The quantities of these names, in the order of the evaluation."""
    there = [one.name for one in found.quantities]
    unknown = sorted(set(names or []) - set(there))
    if unknown:
        raise UserError(f"no measure {unknown[0]!r} in this evaluation: it has {', '.join(there)}")
    return [one for one in found.quantities if names is None or one.name in names]


def _pairs(found: Measured, pairs: Sequence[tuple[str, str]] | None) -> list[tuple[str, str]]:
    """Pairs of labels that are there."""
    labels = list(dict.fromkeys(name for one in found.quantities for name in one.adapters))
    if pairs is None:
        return [(later, earlier) for earlier, later in combinations(labels, 2)]
    for name in (name for pair in pairs for name in pair):
        if name not in labels:
            raise UserError(f"no adapter {name!r} in this evaluation: it has {', '.join(labels)}")
    return [(a, b) for a, b in pairs]


def _comparison(cell: _Cell, p: float, family: int, correction: Correction, confidence: float) -> Comparison:
    """The record of one cell.  Power is at the level that Holm asks of the smallest p, the strictest of all."""
    one, found = cell.quantity, cell.found
    level = 1 - (1 - confidence) / family if correction == "holm" else confidence
    record = Comparison(
        one.name, cell.a, cell.b, found.difference, one.kind, found.p, float(p), bool(p < 1 - confidence),
        resolution(one, found, level), "", one.better, one.network, one.title, one.unit, half_of(one),
    )  # fmt: skip
    return said(record, one.unit, family, correction)
