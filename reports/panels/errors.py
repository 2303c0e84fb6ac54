"""Validation error at the end of training and on the way there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from reports.compare import error_over_training
from reports.figures import MUTED, arm_colour, as_percent, dash, marker, panel, plain
from reports.panels.forests import rows_of
from reports.panels.marks import limits_of, mark, no_difference
from reports.panels.panel import fitting, made
from reports.sections import Panel
from reports.statistics import Array
from reports.words import digits_of, signed

TICKS = ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))
"""Steps within a decade that read easily, from few to many."""
MOST_MARKERS = 12
"""How many evaluations of a curve have a marker at most."""

if TYPE_CHECKING:
    from reports.arms import Arm
    from reports.compare import Against


def verdict(pairs: Sequence[Against], prefix: str = "") -> Panel:
    """One glance: final error of every pair of arms, with intervals."""
    rows = [(f"{p.arm.label} against {p.other.label}", p.arm.style, mark(p.error)) for p in pairs]
    numbers = [signed(p.error.value, digits_of(p.error)) for p in pairs]
    axis = "change of final validation error (left is better)"
    told = "; ".join(f"{label}: {number}" for (label, *_), number in zip(rows, numbers, strict=True))
    figure = rows_of(rows, numbers, axis, none=1.0, percent=True)
    text = f"Points with 95 % intervals: {told}."
    return made(f"{prefix}glance", "Final validation error, ratio of means", text, figure)


def log_ticks(axes: Axes, most: int = 6) -> None:
    """A logarithmic vertical axis with at most so many plain numbers on it, however short or long it is."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    found = [choice for choice in (within(decades, steps, low, high) for steps in TICKS) if len(choice) <= most]
    axes.set_yticks(max(found, key=len, default=within(decades, TICKS[0], low, high)[:: -(-len(decades) // most)]))
    axes.yaxis.set_major_formatter(plain)
    axes.minorticks_off()


def within(decades: Array, steps: Sequence[float], low: float, high: float) -> Array:
    """The multiples of powers of ten that an axis shows."""
    ticks = np.outer(decades, steps).ravel()
    return np.asarray(ticks[(ticks >= low * 0.999) & (ticks <= high * 1.001)])


def learning(arms: Sequence[Arm], reference: Arm | None, prefix: str = "") -> Panel:
    """Validation error over training, mean and seeds, on a logarithmic scale."""

    def draw(axes: Axes) -> None:
        for arm in arms:
            (steps, curves), i = arm.curves(), arm.style
            per_seed = curves.mean(axis=2)
            if len(per_seed) > 1:
                axes.plot(steps, per_seed.T, color=arm_colour(i), linewidth=0.7, alpha=0.45)
            axes.plot(
                steps, per_seed.mean(axis=0), color=arm_colour(i), linestyle=dash(i), marker=marker(i), markersize=4.5,
                markevery=-(-len(steps) // MOST_MARKERS),
            )  # fmt: skip
        axes.set_yscale("log")
        if reference is not None:
            final_error_line(axes, reference)
        log_ticks(axes)
        axes.set_xlabel("training steps")
        axes.set_ylabel("validation error")

    told = "; ".join(f"{a.label} from {a.errors(at=0).mean():.3g} to {a.errors().mean():.3g}" for a in arms)
    text = f"Thick lines are means, thin lines single seeds: {told}."
    return made(f"{prefix}learning-curves", "Validation error over training", text, panel(draw))


def final_error_line(axes: Axes, reference: Arm) -> None:
    """The reference's final error, named below the line at its left end, where curves are still far above."""
    final = float(reference.errors().mean())
    label, size = fitting(f"final error of {reference.label}")
    axes.axhline(final, color=MUTED, linewidth=0.9, linestyle=(0, (2, 2)))
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, final / (high / low) ** 0.09), high)
    axes.annotate(
        label, (0.01, final), xycoords=("axes fraction", "data"), xytext=(0, -4), textcoords="offset points",
        va="top", color=MUTED, fontsize=size,
    )  # fmt: skip


def learning_ratio(pairs: Sequence[Against], prefix: str = "") -> Panel:
    """Ratio of mean errors over training against the reference, with intervals."""
    found = [(p.arm.style, p, *error_over_training(p.arm, p.other)) for p in pairs]

    def draw(axes: Axes) -> None:
        for i, _, steps, ratios in found:
            mean, low, high = (np.array([getattr(r, k) for r in ratios]) for k in ("value", "low", "high"))
            axes.plot(steps, mean, color=arm_colour(i), linestyle=dash(i), marker=marker(i), markersize=4)
            axes.fill_between(steps, low, high, color=arm_colour(i), alpha=0.15, linewidth=0)
        no_difference(axes, horizontal=True)
        axes.set_ylim(*limits_of([r for *_, ratios in found for r in ratios]))
        axes.yaxis.set_major_formatter(as_percent)
        axes.set_xlabel("training steps")
        axes.set_ylabel("change of error")

    told = "; ".join(f"{p.arm.label} ends at {signed(ratios[-1].value)}" for _, p, _, ratios in found)
    title = f"Against {pairs[0].other.label} after the same number of steps"
    return made(f"{prefix}learning-ratio", title, f"Shaded 95 % intervals. {told}.", panel(draw))
