"""Every number of a report that a gate may ask for, by name and arm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from reports.compare import error_against_base
from reports.evaluated import BASE, Evaluation
from reports.spectral import spectral_distance
from reports.statistics import Ratio
from spectra.analysis.statistics import Estimate

if TYPE_CHECKING:
    from reports.report import Report

COSTS = ("trainable_parameters", "seconds_train", "peak_memory_mib")


@dataclass(frozen=True)
class Quantity:
    """One number of one arm with its interval; the ends are infinite where there is no interval."""

    name: str
    arm: str
    value: float
    low: float
    high: float
    task: str = ""
    against: str = ""
    """What a ratio compares the arm with, where that is another arm."""

    @property
    def where(self) -> str:
        """The arm, and its task or evaluation where a report has several."""
        return f"{self.arm} ({self.task})" if self.task else self.arm

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; a number that does not exist is None."""
        kept = {k: getattr(self, k) for k in ("name", "arm", "value", "low", "high")}
        plain = {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in kept.items()}
        return plain | ({"against": self.against} if self.against else {})


def of(name: str, arm: str, found: Ratio | Estimate, against: str = "") -> Quantity:
    """A quantity of a ratio or an estimate."""
    low = found.low if np.isfinite(found.low) else -np.inf
    high = found.high if np.isfinite(found.high) else np.inf
    return Quantity(name, arm, found.value, low, high, against=against)


def exact(name: str, arm: str, value: float, against: str = "") -> Quantity:
    """A number that has no interval."""
    return Quantity(name, arm, value, value, value, against=against)


def of_training(report: Report) -> Iterator[Quantity]:
    """What runs give: errors, ratios to the reference, steps, spectra, cost."""
    for arm in report.arms:
        yield exact("error", arm.label, float(arm.errors().mean()))
        yield of("error_against_base", arm.label, error_against_base(arm))
        yield of("spectral_distance", arm.label, spectral_distance(arm))
        for cost in COSTS:
            yield exact(cost, arm.label, arm.mean_record(cost))
    if report.arms:
        yield exact("error", BASE, float(report.arms[0].errors(at=0).mean()))
        yield of("spectral_distance", BASE, spectral_distance(report.arms[0], "base"))
    for pair in report.pairs:
        if pair.other is report.reference:
            label, other = pair.arm.label, pair.other.label
            yield of("error_ratio", label, pair.error, other)
            never = not np.isfinite(pair.steps.value) and pair.pairs > 0
            yield exact("steps_ratio", label, np.inf, other) if never else of("steps_ratio", label, pair.steps, other)


def short_names(found: Evaluation) -> dict[str, str]:
    """Measures by shorter names: without their network, and `drift` and `spectral_distance` for the usual ones."""
    measures = {m.name: m.network for m in found.measures}
    short = {name: name.removesuffix(f"_{net}") for name, net in measures.items() if net}
    usual = {"drift_pixels": "drift"} if "drift" not in short.values() else {}
    return short | {k: v for k, v in (usual | {"band_distance": "spectral_distance"}).items() if k in measures}


def of_evaluation(found: Evaluation) -> Iterator[Quantity]:
    """What an evaluation gives: every measure, by its name and by a shorter one, and ratios of errors.

    `error_ratio` is over the first adapter, the one to beat, or the chosen one; that of runs is over their reference.
    """
    short = short_names(found)
    for m in found.measures:
        yield of(m.name, m.adapter, m.value)
        if m.name in short:
            yield of(short[m.name], m.adapter, m.value)
    for name, comparisons in (("error_ratio", found.among), ("error_against_base", found.to_base)):
        for c in comparisons:
            if c.name == "validation_error" and c.kind == "ratio" and c.b in (BASE, found.reference):
                for label in (c.a, *(copy for copy, first in found.copies.items() if first == c.a)):
                    yield of(name, label, c.difference, c.b)
    for copy, first in found.copies.items():
        if first == found.reference and found.measured("validation_error", copy) is not None:
            yield exact("error_ratio", copy, 1.0, first)


def quantities(report: Report) -> list[Quantity]:
    """All of them, in the order of the report; of several tasks, and of several evaluations, each says which."""
    if report.tasks:
        return [
            replace(q, task=", ".join(filter(None, (task.title, q.task))))
            for task in report.tasks for q in quantities(task)
        ]  # fmt: skip
    several = len(report.evaluations) > 1
    evaluated = [
        replace(q, task=found.title * several) for found in report.evaluations for q in of_evaluation(found)
    ]  # fmt: skip
    return [*of_training(report), *evaluated]
