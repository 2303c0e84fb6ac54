"""Band energies of generated pictures against held-out ones, and one distance for all bands, with intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reports.arms import Arm
from reports.statistics import Array, Ratio, corrected, distance_parts, mean_distance, ratio_of_means, spread
from spectra.analysis.statistics import Estimate


def energy_ratio(a: Array, b: Array, what: str) -> tuple[Ratio, ...]:
    """Per band, mean energy of `a` over that of `b`; both (seeds, prompt, band)."""
    estimand = f"ratio of mean band energies, {what}"
    return tuple(ratio_of_means(a[..., k], b[..., k], estimand) for k in range(a.shape[-1]))


def beside_heldout(arm: Arm, source: str) -> tuple[Array, Array]:
    """Energies (seeds, prompt, band) of an arm's pictures and of the held-out ones; the base has one seed only."""
    seeds = slice(1 if source == "base" else None)
    return arm.energies(source)[seeds], arm.energies("reference")[seeds]


def to_heldout(arm: Arm, source: str = "adapter") -> tuple[Ratio, ...]:
    """Per band, energy of an arm's pictures over that of the held-out pictures; 1 is a perfect match."""
    return energy_ratio(*beside_heldout(arm, source), "generated over held-out pictures of the same captions")


def spectral_distance(arm: Arm, source: str = "adapter") -> Estimate:
    """Mean over bands of `|log ratio of mean energies|`, generated over held-out; 0 is a perfect match."""
    estimand = "mean over bands of |log ratio of mean energies|, generated over held-out"
    return mean_distance(*beside_heldout(arm, source), estimand)


def against_heldout(arms: Sequence[Arm]) -> list[tuple[Ratio, ...]]:
    """`to_heldout` of the base and of every arm as one family of comparisons, as a figure or table shows them."""
    found = [to_heldout(arms[0], "base"), *(to_heldout(arm) for arm in arms)]
    adjusted = iter(corrected([ratio for ratios in found for ratio in ratios]))
    return [tuple(next(adjusted) for _ in ratios) for ratios in found]


def distance_between(a: Arm, b: Arm) -> Estimate:
    """Spectral distance of `a` minus that of `b`, paired over common seeds and prompts; below 0 favours `a`."""
    (made, real), (theirs, other) = (shared_energies(one, two) for one, two in ((a, b), (b, a)))
    (mine, first), (yours, second) = distance_parts(made, real), distance_parts(theirs, other)
    half, value = spread(first - second), float(np.abs(mine).mean() - np.abs(yours).mean())
    low, high = (value - half, value + half) if np.isfinite(half) else (float("-inf"), float("inf"))
    estimand = "difference of spectral distances to held-out pictures"
    return Estimate(value, low, high, made.shape[1], "paired, linearised, Student t, crossed", estimand)


def shared_energies(a: Arm, b: Arm) -> tuple[Array, Array]:
    """Generated and held-out energies (seeds, prompt, band) of `a`: the seeds that `b` has too, else their mean."""
    common = sorted(set(a.seeds) & set(b.seeds))
    places = [a.seeds.index(seed) for seed in common]
    made, real = a.energies(), a.energies("reference")
    if common:
        return made[places], real[places]
    return made.mean(axis=0, keepdims=True), real.mean(axis=0, keepdims=True)
