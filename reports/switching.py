"""What each expert does to each band, measured by switching it off (`adapt.fera.ablation` writes it into runs)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reports.arms import Arm
from reports.sections import Said, Table
from reports.statistics import CONFIDENCE, Array, crossed, p_value
from spectra.analysis.statistics import holm

EFFECT, ERROR = "expert_effect", "expert_error"


@dataclass(frozen=True)
class Switched:
    """One run's experts: what switching each off changes, means over held-out samples (level, expert, band)."""

    arm: Arm
    seed: int
    noise: Array
    effect: Array
    error: Array | None
    """How much the error grows without the expert; below 0 it shrinks."""
    p: Array | None
    """Of no change of the error, over samples; Holm's over all cells of the run."""


def effects_of(arm: Arm) -> list[Switched]:
    """Of every run of an arm that measured it."""
    found = []
    for run in arm.runs:
        if EFFECT not in run.metrics:
            continue
        effect, error = (
            run.metrics[name].transpose("sample", "level", "expert", "band").values.astype(np.float64)
            if name in run.metrics else None
            for name in (EFFECT, ERROR)
        )  # fmt: skip
        assert effect is not None
        mean, p = (None, None) if error is None else (error.mean(0), p_of_cells(error))
        noise = run.metrics.noise_level.values.astype(np.float64)
        found.append(Switched(arm, run.seed, noise, effect.mean(0), mean, p))
    return found


def p_of_cells(values: Array) -> Array:
    """Holm's p of a mean of 0 over samples, for values (sample, ...)."""
    flat = values.reshape(len(values), -1)
    p = [p_value(float(column.mean()), *crossed(column[None])) for column in flat.T]
    return holm(np.array(p)).reshape(values.shape[1:])


def shares(one: Switched) -> Array:
    """How the effect of each expert is spread over the bands, summed over noise levels (expert, band)."""
    total = one.effect.sum(axis=0)
    return np.asarray(total / np.maximum(total.sum(axis=-1, keepdims=True), 1e-300))


def apart(one: Switched) -> float:
    """How far experts differ in the bands that they change: mean total variation between pairs, 0 alike to 1 apart."""
    share = shares(one)
    pairs = [(i, j) for i in range(len(share)) for j in range(i)]
    return float(np.mean([np.abs(share[i] - share[j]).sum() / 2 for i, j in pairs])) if pairs else 0.0


def about_experts(found: Sequence[Switched]) -> Said:
    """How far apart experts are in the bands that they change, all arms in one sentence; the table has the rest."""
    by_arm: dict[str, list[float]] = {}
    for one in found:
        by_arm.setdefault(one.arm.label, []).append(apart(one))
    told = "; ".join(f"{label} {ranged(values)}" for label, values in by_arm.items())
    support = (
        "mean total variation between experts of what switching each off changes, summed over noise levels; the table "
        "says which expert changes which band"
    )
    if max(map(len, by_arm.values())) > 1:
        support = f"least and most of the training seeds; {support}"
    claim = f"How far apart experts are in the bands that they change, from 0 (alike) to 1 (no band in common): {told}"
    return Said(claim, support, "experts")


def ranged(values: Sequence[float]) -> str:
    """`0.92`, or `0.90 to 0.95` of several that differ."""
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"


def expert_table(found: Sequence[Switched]) -> Table:
    """Per run and expert: where it acts, and what the error is without it."""
    rows = []
    for one in found:
        share = shares(one)
        for e, row in enumerate(share):
            cells = [f"{part * 100:.0f} %" for part in row]
            rows.append((f"{one.arm.label}, seed {one.seed}, expert {e}", *cells, helping(one, e)))
    bands = max(one.effect.shape[2] for one in found)
    heads = ("expert", *(f"band {k}" for k in range(bands)), "helps / harms in cells")
    caption = "Where each expert acts: shares of what switching it off changes; cells of level and band where that"
    return Table(f"{caption} raises / lowers the error, after Holm’s correction", heads, tuple(rows))


def signs(one: Switched) -> Array | None:
    """Of each cell (level, expert, band): 1 where the expert helps after correction, −1 where it harms, 0 else.

    None where no error was measured.
    """
    if one.error is None or one.p is None:
        return None
    return np.where(one.p < 1 - CONFIDENCE, np.sign(one.error), 0.0)


def helping(one: Switched, expert: int) -> str:
    """In how many cells of level and band the error grows, and shrinks, without an expert, after correction."""
    sign = signs(one)
    if sign is None:
        return "–"
    return f"{int((sign[:, expert] > 0).sum())} / {int((sign[:, expert] < 0).sum())} of {sign[:, expert].size}"
