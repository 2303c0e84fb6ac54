"""What the report says in numbers: every comparison with its interval and its estimand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from reports.arms import Arm, paired
from reports.spectral import distance_between, energy_ratio, shared_energies
from reports.spectral import to_heldout as to_heldout
from reports.statistics import (
    CONFIDENCE,
    Array,
    Ratio,
    corrected,
    geometric_mean,
    ratio_of_means,
    steps_to,
)
from spectra.analysis.statistics import Estimate

RESAMPLES = 2000
UNUSED = 0.2
"""Part of an even share below which an expert is hardly used, as `adapt.fera.health` has it."""
FEW_SAMPLES = 5
"""Validation samples below which a bootstrap over them says nothing: with one, every draw is the same."""


@dataclass(frozen=True)
class Against:
    """One arm against another; ratios below 1 favour `arm`."""

    arm: Arm
    other: Arm
    error: Ratio
    levels: tuple[Ratio, ...]
    steps: Ratio
    reached: int
    pairs: int
    energy: tuple[Ratio, ...]
    distance: Estimate
    """Spectral distance to the held-out pictures, `arm` minus `other`."""

    @cached_property
    def identical(self) -> bool:
        """True where both arms end with the same errors and the same pictures, to the last bit, seed by seed."""
        a, b = self.arm, self.other
        same = a.seeds == b.seeds and np.array_equal(a.errors(), b.errors())
        return same and all(
            np.array_equal(x.evaluation.image.sel(source="adapter"), y.evaluation.image.sel(source="adapter"))
            for x, y in zip(a.runs, b.runs, strict=True)
        )

    @property
    def holding(self) -> int:
        """At how many noise levels the difference holds when all levels of all pairs are taken together (Holm)."""
        return sum(ratio.holds for ratio in self.levels)


@dataclass(frozen=True)
class Gates:
    """What the gates of one run do, as shares of their sum: level x expert, and three summaries of it."""

    arm: Arm
    seed: int
    share: Array
    over_levels: float
    over_samples: float
    effective: float

    @property
    def unused(self) -> tuple[int, ...]:
        """Experts whose gate stays below `UNUSED` at every noise level, 1 being an even share."""
        return tuple(int(e) for e in np.flatnonzero((self.share * self.share.shape[1] < UNUSED).all(axis=0)))


def final_error(a: Arm, b: Arm) -> Ratio:
    """Mean validation error of `a` over that of `b`, at the end of training."""
    first, second = paired(a, b)
    return ratio_of_means(
        first.mean(axis=1), second.mean(axis=1),
        "ratio of mean validation errors at the end of training, over all noise levels",
    )  # fmt: skip


def error_against_base(arm: Arm) -> Ratio:
    """Mean validation error of an arm over that of the untrained model on the same grid."""
    after, before = arm.errors().mean(axis=1), arm.errors(at=0).mean(axis=1)
    return ratio_of_means(
        after, before, "ratio of mean validation errors, trained over untrained, over all noise levels"
    )


def errors_against_base(arms: Sequence[Arm]) -> list[list[Ratio]]:
    """The same ratio at each noise level alone, arm by arm, all of them as one family."""
    estimand = "ratio of mean validation errors at one noise level, trained over untrained"
    tables = [(arm.errors(), arm.errors(at=0)) for arm in arms]
    each = [
        ratio_of_means(after[:, level], before[:, level], estimand)
        for after, before in tables for level in range(after.shape[1])
    ]  # fmt: skip
    adjusted = iter(corrected(each))
    return [[next(adjusted) for _ in range(after.shape[1])] for after, _ in tables]


def error_per_level(a: Arm, b: Arm, confidence: float = CONFIDENCE) -> tuple[Ratio, ...]:
    """The same ratio at each noise level alone."""
    first, second = paired(a, b)
    estimand = "ratio of mean validation errors at one noise level, end of training"
    return tuple(
        ratio_of_means(first[:, level], second[:, level], estimand, confidence) for level in range(first.shape[1])
    )


def error_over_training(a: Arm, b: Arm) -> tuple[Array, list[Ratio]]:
    """Training steps that both arms were evaluated at, and the ratio of their mean errors there."""
    common = sorted(set(a.seeds) & set(b.seeds))
    (steps, first), (others, second) = a.curves(), b.curves()
    if common:
        first, second = first[[a.seeds.index(s) for s in common]], second[[b.seeds.index(s) for s in common]]
    else:
        first, second = first.mean(axis=0, keepdims=True), second.mean(axis=0, keepdims=True)
    shared = [step for step in steps if step in others]
    estimand = "ratio of mean validation errors after so many steps, over all noise levels"
    at = [(int(np.flatnonzero(steps == step)[0]), int(np.flatnonzero(others == step)[0])) for step in shared]
    return np.array(shared), [ratio_of_means(first[:, i], second[:, j], estimand) for i, j in at]


def speed(steps: Array, curve: Array, other_steps: Array, other: Array) -> float:
    """Steps of `curve` to reach the final error of `other`, over the steps that `other` took itself."""
    own = steps_to(other_steps, other, float(other[-1]))
    return steps_to(steps, curve, float(other[-1])) / own if own > 0 else float("nan")


def steps_to_target(a: Arm, b: Arm) -> tuple[Ratio, int, int]:
    """Steps of `a` to reach `b`'s final error over `b`'s steps; how many pairs of seeds reach it, of how many.

    Several seeds: geometric mean and Student's t over seeds, if all reach it. One seed: percentile
    bootstrap over validation samples. No interval where a curve never reaches the target.
    """
    common = sorted(set(a.seeds) & set(b.seeds))
    (steps, first), (others, second) = a.curves(), b.curves()
    samples = first.shape[2]
    pairs = [(first[a.seeds.index(s)], second[b.seeds.index(s)]) for s in common]
    ratios = np.array([speed(steps, x.mean(axis=1), others, y.mean(axis=1)) for x, y in pairs])
    reached = int(np.isfinite(ratios).sum())
    estimand = "ratio of training steps to the other arm's final mean validation error, linear between evaluations"
    none = Ratio(float("nan"), float("nan"), float("nan"), len(common), samples, estimand)
    if not pairs or reached < len(pairs) or not (ratios > 0).all():
        return none, reached, len(pairs)
    if len(pairs) > 1:
        return geometric_mean(ratios, samples, f"geometric mean over seeds of the {estimand}"), reached, len(pairs)
    if samples < FEW_SAMPLES:
        return replace(none, value=float(ratios[0])), reached, 1
    low, high, p = bootstrapped(steps, pairs[0][0], others, pairs[0][1])
    return Ratio(float(ratios[0]), low, high, 1, samples, estimand, CONFIDENCE, p), reached, 1


def bootstrapped(steps: Array, x: Array, others: Array, y: Array) -> tuple[float, float, float]:
    """Ends of the percentile interval of `speed` over samples, and its p; nan where some draws have no upper end."""
    samples = x.shape[1]
    draws = np.random.default_rng(0).integers(samples, size=(RESAMPLES, samples))
    drawn = np.array([speed(steps, x[:, d].mean(axis=1), others, y[:, d].mean(axis=1)) for d in draws])
    # No interpolation: a curve that never reaches the target counts as infinitely many steps.
    drawn = np.where(np.isfinite(drawn), drawn, np.inf)
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    low, high = np.quantile(drawn, tails, method="inverted_cdf")
    if not np.isfinite(high):
        return float("nan"), float("nan"), float("nan")
    beyond = min((drawn <= 1).sum(), (drawn >= 1).sum())
    return float(low), float(high), float(min(1.0, 2 * (beyond + 1) / (RESAMPLES + 1)))


def against(arm: Arm, other: Arm) -> Against:
    """Everything that is compared between two arms, each comparison by itself."""
    steps, reached, pairs = steps_to_target(arm, other)
    made, theirs = shared_energies(arm, other)[0], shared_energies(other, arm)[0]
    energy = energy_ratio(made, theirs, "pictures of one arm over those of the other")
    found = final_error(arm, other), error_per_level(arm, other), steps, reached, pairs, energy
    return Against(arm, other, *found, distance_between(arm, other))


def together(pairs: Sequence[Against]) -> list[Against]:
    """The same comparisons with p corrected over what is shown together: errors, steps, levels, bands of all pairs."""
    errors, steps = corrected([p.error for p in pairs]), corrected([p.steps for p in pairs])
    levels = iter(corrected([r for p in pairs for r in p.levels]))
    energy = iter(corrected([r for p in pairs for r in p.energy]))
    return [
        replace(
            p, error=errors[i], steps=steps[i],
            levels=tuple(next(levels) for _ in p.levels), energy=tuple(next(energy) for _ in p.energy),
        )
        for i, p in enumerate(pairs)
    ]  # fmt: skip


def unlike(pairs: Sequence[Against]) -> list[Against]:
    """The pairs of arms that are not identical: between identical ones nothing was measured."""
    return [pair for pair in pairs if not pair.identical]


def gates_of(arm: Arm) -> list[Gates]:
    """The gates at the end of training of every run of a FeRA arm; empty for other methods."""
    found = []
    for run in arm.runs:
        if "gates" not in run.metrics:
            continue
        gates = run.metrics.gates[-1].values.astype(np.float64)
        share = gates / np.maximum(gates.sum(axis=-1, keepdims=True), 1e-12)
        mean = share.mean(axis=1)
        overall = mean.mean(axis=0)
        entropy = -(overall * np.log(np.maximum(overall, 1e-12))).sum()
        between, within = float((mean.max(axis=0) - mean.min(axis=0)).mean()), float(share.std(axis=1).mean())
        found.append(Gates(arm, run.seed, mean, between, within, float(np.exp(entropy))))
    return found


def comparisons(arms: Sequence[Arm], reference: Arm | None, twins: bool = True) -> list[Against]:
    """Every arm against the reference, then (`twins`) FeRA with prior against FeRA without, most wanted first."""
    if reference is None:
        return []
    order = sorted((arm for arm in arms if arm is not reference), key=lambda arm: (not arm.prior, arm.label))
    found = [against(arm, reference) for arm in order]
    with_prior = [arm for arm in arms if arm.prior and twins]
    for arm in with_prior:
        bare = [
            b for b in arms if not b.prior and b.method == arm.method and b.config == arm.config and b is not reference
        ]
        found += [against(arm, twin) for twin in bare]
    return together(found)
