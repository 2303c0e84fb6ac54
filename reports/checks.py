"""Gates for CI: `METRIC[.low|.high][@ARM] OP NUMBER`, such as "drift>0.1" or "error_ratio.high@DoRA>=1".

A gate that is true of any arm is a failure; the base model counts only where it is named. Without an interval `.low` is
minus infinity and `.high` infinity, so that a gate on an end fails where nothing bounds it.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from reports.evaluated import BASE
from reports.quantities import Quantity
from spectra.errors import UserError

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le,
}  # fmt: skip
RATIO, OVER_BASE = "error_ratio", "error_against_base"
GRAMMAR = re.compile(
    r"\s*(?P<name>[A-Za-z][\w-]*)(?:\.(?P<end>low|high))?\s*(?:@(?P<arm>.+?))?\s*(?P<op>>=|<=|>|<)\s*"
    r"(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*",
    re.DOTALL,
)
"""The number ends the expression, so an operator within the name of an arm does no harm."""


@dataclass(frozen=True)
class Gate:
    """A condition that no arm may meet."""

    expression: str
    name: str
    end: str
    arm: str
    sign: str
    threshold: float

    def value(self, q: Quantity) -> float:
        """The number that the gate looks at."""
        return float(getattr(q, self.end or "value"))

    def met(self, q: Quantity) -> bool:
        """True where the gate is true of a quantity, or where there is no number to hold against it."""
        value = self.value(q)
        return bool(np.isnan(value) or OPERATORS[self.sign](value, self.threshold))


@dataclass(frozen=True)
class Failure:
    """A gate that is true of an arm."""

    expression: str
    metric: str
    arm: str
    value: float | None
    words: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def parsed(expression: str) -> Gate:
    """A gate from its expression; UserError says what one looks like."""
    found = GRAMMAR.fullmatch(expression)
    if found is None:
        raise UserError(
            f"{expression!r} is no gate: write METRIC[.low|.high][@ARM], one of > >= < <=, and a number, "
            f"such as 'drift>0.1' or 'error_ratio.high@DoRA>=1'."
        )
    parts = found.groupdict(default="")
    return Gate(expression, parts["name"], parts["end"], parts["arm"].strip(), parts["op"], float(parts["number"]))


def unknown(gate: Gate, names: Sequence[str], to_base: bool) -> UserError:
    """What is said where a report has no such metric; `to_base` where all are compared with the base model alone."""
    why = f"there is no metric {gate.name!r} in this report"
    if to_base and gate.name == RATIO and OVER_BASE in names:
        why = f"with --against base no two adapters are compared: this report has {OVER_BASE!r} and no {RATIO!r}"
    return UserError(f"gate {gate.expression!r}: {why}; it has {', '.join(names)}.")


def looked_at(gate: Gate, known: Sequence[Quantity], to_base: bool = False) -> list[Quantity]:
    """The quantities of a gate; UserError where the metric or the arm is not known, with those that are."""
    named = [q for q in known if q.name == gate.name]
    if not named:
        raise unknown(gate, sorted({q.name for q in known}), to_base)
    chosen = [q for q in named if q.arm == gate.arm] if gate.arm else [q for q in named if q.arm != BASE]
    if not chosen:
        arms = ", ".join(dict.fromkeys(q.arm for q in named))
        raise UserError(
            f"gate {gate.expression!r}: {gate.arm or 'no adapter'!r} has no {gate.name}; these have: {arms}."
        )
    return chosen


def failure(gate: Gate, q: Quantity) -> Failure:
    """The failure of a gate on one quantity, in words."""
    value = gate.value(q)
    what = f"the {'lower' if gate.end == 'low' else 'upper'} end of {gate.name}" if gate.end else gate.name
    if not np.isfinite(value):
        missing = "is not a number" if np.isnan(value) else "has no bound"
        return Failure(gate.expression, gate.name, q.where, None, f"{what} of {q.where} {missing}")
    beside = f" against {q.against}" if q.against else ""
    words = f"{what} of {q.where}{beside} is {value:.4g}, which is {gate.sign} {gate.threshold:g}"
    return Failure(gate.expression, gate.name, q.where, value, words)


def check(expression: str, known: Sequence[Quantity], to_base: bool = False) -> list[Failure]:
    """The failures of one gate, none where it is true of no arm; `to_base` where all are compared with the base."""
    gate = parsed(expression)
    return [failure(gate, q) for q in looked_at(gate, known, to_base) if gate.met(q)]
