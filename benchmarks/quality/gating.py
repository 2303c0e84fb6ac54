"""What the gates of the final runs do: how many experts are in use, and how much they part by noise level."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from benchmarks.quality import words
from benchmarks.quality.design import FULL
from benchmarks.quality.numbers import Array, Cell, arms_of, cells, rows_of


@dataclass(frozen=True)
class Use:
    """Means over training seeds."""

    experts: int
    effective: float
    """exp of the entropy of the experts' mean shares: as many experts, equally used, would give it."""
    least: float
    """Mean share of the expert that is used least."""
    parting: float
    """Largest less smallest share over noise levels, mean over experts: 0 means that routing ignores the noise."""


def use(gates: Array) -> Use:
    """From gates (seeds, level, expert), means over samples."""
    share = gates / gates.sum(-1, keepdims=True)
    mean = share.mean(1)
    entropy = -(mean * np.log(np.maximum(mean, 1e-12))).sum(-1)
    parting = (share.max(1) - share.min(1)).mean()
    return Use(gates.shape[-1], float(np.exp(entropy).mean()), float(mean.min(-1).mean()), float(parting))


def of_arm(numbers: xr.Dataset, cell: Cell, arm: str, moment: int) -> Use | None:
    """The use of an arm's experts at the start (moment 0) or the end (1) of training; None for arms without gates."""
    rows = rows_of(numbers, cell, arm)
    gates = numbers.gate.values[rows, moment].astype(np.float64)
    gates = gates[..., np.isfinite(gates).all((0, 1))] if len(rows) else gates
    return use(gates) if gates.size else None


def table(numbers: xr.Dataset) -> str:
    """Every planned FeRA arm in every cell, before and after training."""
    rows = []
    for arm in arms_of(numbers):
        for cell in cells(numbers):
            before, after = (of_arm(numbers, cell, arm, moment) for moment in (0, 1))
            if arm not in FULL.arms or before is None or after is None or after.parting == before.parting == 0:
                continue
            pairs = ((before.effective, after.effective), (before.least, after.least), (before.parting, after.parting))
            rows.append([words.named(arm), words.cell_name(cell), *(f"{a:.2f} → {b:.2f}" for a, b in pairs)])
    heads = ["arm", "cell", "experts in use", "share of the least used", "parting by noise level"]
    return words.table(heads, rows)
