"""What two arms were given: where it differs, a difference of the results is not one of the methods alone."""

from __future__ import annotations

from reports.arms import Arm

UNEQUAL = 0.02
"""Trainable parameters may differ by this fraction and still count as equal."""


def thousands(number: float) -> str:
    """`228 400`: groups of three digits with a space between."""
    return f"{number:,.0f}".replace(",", " ")


def unequal_parameters(counts: list[float]) -> bool:
    """True where trainable parameters differ by more than counts as equal."""
    return max(counts) > (1 + UNEQUAL) * min(counts)


def told_apart(key: str, arm: Arm, other: Arm) -> bool:
    """True where the labels of both arms already say a setting."""
    return all(f"{key} " in one.label.partition("(")[2] for one in (arm, other))


def unequal(arm: Arm, other: Arm) -> str:
    """In what the budgets of two arms differ: `after 5 steps against 30`; empty where they are alike."""
    said = []
    steps = [one.runs[0].record["steps"] for one in (arm, other)]
    if steps[0] != steps[1] and not told_apart("steps", arm, other):
        said.append(f"after {steps[0]} steps against {steps[1]}")
    counts = [one.mean_record("trainable_parameters") for one in (arm, other)]
    if unequal_parameters(counts):
        said.append(f"with {thousands(counts[0])} trainable parameters against {thousands(counts[1])}")
    for key, words in (("batch", "at batch size"), ("lr", "at learning rate")):
        values = [one.config.get(key) for one in (arm, other)]
        if values[0] != values[1] and not told_apart(key, arm, other):
            said.append(f"{words} {values[0]} against {values[1]}")
    return ", ".join(said)
