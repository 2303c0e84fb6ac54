"""The one model that all others are compared with, where a person chose it or where adapters are many: in words."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from reports.arms import Arm
from reports.evaluated import ALL_PAIRS, BASE, Evaluation, matched
from reports.evidence import chosen
from reports.words import count, listed
from spectra.errors import UserError

if TYPE_CHECKING:
    from reports.report import Report


AS_USUAL = "what is compared there is as without --against"


def asked_for(against: str | None) -> str:
    """The name to compare with, empty where none was given; UserError for an empty one, which was meant to be one."""
    if against is not None and not against.strip():
        raise UserError(
            "--against is empty, perhaps from a variable that is not set: name an adapter, an arm of runs or base, or "
            "leave --against out for the usual comparisons."
        )
    return against or ""


def one_reference(found: Evaluation) -> list[str]:
    """With whom all adapters are compared where not each is compared with each, and what would test the rest."""
    if not found.untested:
        return []
    if not found.against:
        return [
            f"Each of the {len(found.distinct) - 1} further adapters of {found.title} is compared with the first, "
            f"{found.reference}, alone: all pairs would leave each comparison little power. {untested(found)}."
        ]
    fewer = ", fewer than of all pairs," * bool(found.among)
    return [
        f"All adapters of {found.title} are compared with {chosen(found)}: p is "
        f"corrected over these {count(len(found.among or found.to_base), 'comparison')}{fewer} and not for a choice "
        f"made after a look at the numbers. {untested(found)}."
    ]


def untested(found: Evaluation) -> str:
    """How many pairs are not tested, and the command that tests them, or those of one adapter where they are many."""
    other = next(label for label in found.distinct if label != found.reference)
    many = len(found.distinct) > ALL_PAIRS
    command = shlex.join(["adapt", "report", str(found.path), *["--against", other] * many])
    compares = f"compares all with {other}, and so on by name" if many else "compares each with each"
    pairs = f"{count(found.untested, 'pair')} of other adapters {'is' if found.untested == 1 else 'are'}"
    return f"{pairs} not tested: `{command}` {compares}"


def of_arms(against: str, arms: Sequence[Arm]) -> str:
    """The label of the arm that was chosen; empty where none was."""
    return matched(against, [arm.label for arm in arms])


def chosen_arm(against: str, arms: Sequence[Arm]) -> list[str]:
    """Says that arms are compared with one that was chosen, where there are others to choose."""
    label = of_arms(against, arms)
    if len(arms) < 3 or not label:
        return []
    return [f"All arms are compared with {label} alone, which was chosen: p is not corrected for that choice."]


def lacking(against: str, arms: Sequence[Arm], found: Sequence[Evaluation]) -> list[str]:
    """What of a task has nothing of the name that was chosen, and so is compared as usual."""
    runs = ["The runs"] if len(arms) > 1 and not of_arms(against, arms) else []
    places = [*runs, *(one.title for one in found if not one.against)] if against else []
    have = "have" if runs or len(places) > 1 else "has"
    said = f"{listed(places)} {have} nothing called {against}: {AS_USUAL}."
    return [said] if places else []


def check_name(against: str, reports: Sequence[Report]) -> None:
    """UserError when nothing of a report has the name that was chosen to compare with."""
    if not against or any(report.against for report in reports):
        return
    named = [arm.label for report in reports for arm in report.arms]
    named += [label for report in reports for one in report.evaluations for label in one.labels]
    why = f"nothing here is called {against!r}, so nothing can be compared with it"
    if matched(against, [BASE]):  # every evaluation has it
        why = "only evaluations can be compared with the base model by --against, and here are runs alone"
    raise UserError(f"{why}; give --against one of {', '.join(dict.fromkeys(named))}.")
