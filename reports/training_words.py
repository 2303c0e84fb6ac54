"""What training runs say in words: which arm ends lower, how soon, where, and what its pictures are like."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reports.arms import Arm
from reports.base import Base
from reports.budget import unequal
from reports.compare import FEW_SAMPLES, Against, Gates, error_against_base, errors_against_base
from reports.metrics.results import MOST_RATIO
from reports.metrics.wording import NONE
from reports.sections import Said
from reports.spectral import against_heldout, spectral_distance
from reports.statistics import CONFIDENCE, Ratio
from reports.words import (
    FEW_SEEDS,
    HARM,
    at_levels,
    brief,
    cells,
    change,
    count,
    digits_of,
    higher_at,
    interval,
    listed,
    percent,
    repeats,
    signed,
    span,
    with_ends,
)  # fmt: skip


def about_error(pair: Against) -> Said:
    """The verdict on one pair of arms: final validation error, and whether both were given the same."""
    ratio, arm, other = pair.error, pair.arm.label, pair.other.label
    if pair.identical:
        return Said(f"{arm} and {other} are identical: every final error and every picture is the same", "", "same")
    changed, budget = change(ratio.value, digits=digits_of(ratio)), unequal(pair.arm, pair.other)
    support = f"{interval(ratio)}; {ratio.estimand}, {repeats(ratio)}"
    short = f"{interval(ratio)}; ratio of mean errors, {cells(ratio)}"
    after = f", {budget}" if budget else ""
    if not ratio.bounded:
        claim = f"{arm}{after}{',' * bool(after)} ends {changed} in validation error than {other}"
        return Said(f"{claim}, one value without an interval", support, "error", short)
    if not ratio.holds:
        claim = f"No difference was found between {arm} and {other}{after}: final validation error {changed}"
        why = f"{chance(ratio)}{would_show(ratio)}"
        return Said(claim, f"{support}; {why}", "error", f"{short}; {why}")
    verb = "helped" if ratio.value < 1 else "did worse"
    here = " in this run" * (len(pair.arm.runs) == 1)
    claim = f"{arm} {verb}{here}{after}: its final validation error is {changed} than that of {other}"
    return Said(claim, support, "error", short)


def would_show(ratio: Ratio) -> str:
    """What difference these repeats would have shown; empty where that is not known."""
    if not (np.isfinite(ratio.resolution) and ratio.resolution > 0):
        return ""
    if ratio.resolution > np.log(MOST_RATIO):
        return f"; {NONE}: too few repeats ({cells(ratio)})"
    return f"; with {cells(ratio)} you could see differences above {percent(float(np.exp(ratio.resolution)))}"


def chance(ratio: Ratio) -> str:
    """Why a ratio counts as no difference."""
    if not ratio.differs:
        return "the interval includes no difference"
    return f"by itself the interval excludes no difference, among all comparisons it may be chance: {p_of(ratio)}"


def p_of(ratio: Ratio) -> str:
    """The corrected p of a ratio in words."""
    return f"p = {ratio.p_corrected:.2g} by Holm’s correction"


def about_steps(pair: Against) -> Said:
    """How soon an arm reaches the other's final error."""
    ratio, arm, other = pair.steps, pair.arm.label, pair.other.label
    budget = unequal(pair.arm, pair.other)
    given = f"{arm}, {budget}," if budget else arm
    if not pair.pairs:
        return Said(f"{arm} and {other} share no training seed, so their steps to a common error are not compared")
    if not np.isfinite(ratio.value):
        claim = f"{given} does not reach the final error of {other} within its training"
        if pair.pairs == 1:
            return Said(claim, f"one training seed; {ratio.estimand}")
        missed = f"{pair.pairs - pair.reached} of {count(pair.pairs, 'training seed')}"
        return Said(f"{claim} in {missed}", ratio.estimand)
    claim = f"{given} reaches the final error of {other} after {ratio.value:.2f} times the steps that {other} took"
    over = count(ratio.seeds, "training seed")
    if ratio.seeds == 1:
        over = f"{count(ratio.samples, 'validation sample')} of one training seed"
    if not ratio.bounded:
        few = "too few validation samples" if ratio.samples < FEW_SAMPLES else "some resampled curves never reach it"
        return Said(claim, f"no interval: {few}; over {over}; {ratio.estimand}")
    tail = "" if ratio.holds else f"; {chance(ratio)}"
    found = f"95 % interval {ratio.low:.2f} to {ratio.high:.2f} over {over}"
    return Said(claim, f"{found}; {ratio.estimand}{tail}", "steps", f"{found}; ratio of steps{tail}")


def about_levels(pair: Against) -> Said:
    """At which noise levels the difference lies, of what holds after correction."""
    total, arm, other = len(pair.levels), pair.arm.label, pair.other.label
    alone = sum(r.differs for r in pair.levels)
    noise = pair.arm.runs[0].metrics.noise_level.values
    found = at_levels([float(level) for level in noise], pair.levels)
    claim = f"Against {other}, the error of {arm} is {' and '.join(found)}"
    if not found:
        claim = f"No difference was found between the errors of {arm} and {other} at any of {total} noise levels"
    each = f"{pair.levels[0].estimand}, {repeats(pair.levels[0])}"
    single = f"by 95 % intervals alone, {alone} of {total}"
    counted = f"counted after Holm’s correction over all levels of all comparisons; {single}"
    short = f"ratios of mean errors, {cells(pair.levels[0])}; after correction; {single}"
    return Said(claim, f"{each}; {counted}", "levels", short)


def about_base(arms: Sequence[Arm]) -> Said:
    """How far each arm came from the untrained model."""
    parts = [(arm, error_against_base(arm)) for arm in arms]
    first, digits = parts[0][1], digits_of(*(r for _, r in parts))
    told = [f"{arm.label} {signed(r.value, digits)} ({span(r, digits)})" for arm, r in parts]
    claim = f"Against the untrained base model, the final validation error changes by: {'; '.join(told)}"
    return Said(claim, f"95 % intervals in brackets; {first.estimand}, {repeats(first)}")


def about_harm(arms: Sequence[Arm]) -> list[Said]:
    """Noise levels at which training made the error higher, whatever it did over all levels."""
    noise = arms[0].runs[0].metrics.noise_level.values
    each = errors_against_base(arms)
    harmed = [(arm.label, harm) for arm, row in zip(arms, each, strict=True) if (harm := higher_at(noise, row))]
    if not harmed:
        return []
    claim = f"{HARM} untrained base model: {'; '.join(f'{label} at {harm}' for label, harm in harmed)}"
    return [Said(claim, f"after Holm’s correction over all levels of all arms; {repeats(each[0][0])}", "harm")]


def about_spectrum(arms: Sequence[Arm]) -> Said:
    """Where the base model's spectrum is furthest from the held-out pictures, and what each arm makes of it."""
    base, *trained = against_heldout(arms)
    band = int(np.argmax([abs(np.log(r.value)) for r in base]))
    there = [ratios[band] for ratios in trained]
    told, digits = [], digits_of(*there, base[band].value)
    for arm, ratio in zip(arms, there, strict=True):
        match = "" if ratio.holds else ", no difference from held-out pictures found"
        told.append(f"{arm.label} {signed(ratio.value, digits)} ({span(ratio, digits)}{match})")
    ratio = there[0]
    seeds = "" if ratio.seeds == 1 else f"{count(ratio.seeds, 'training seed')} and "
    return Said(
        f"Against held-out pictures, the base model's are furthest off in band {band}, "
        f"with {change(base[band].value, 'less', 'more', digits)} energy; the trained ones there: {'; '.join(told)}",
        f"95 % intervals over {seeds}{count(ratio.samples, 'prompt')}; {ratio.estimand}",
    )


def about_distance(arms: Sequence[Arm]) -> Said:
    """One spectral distance per arm."""
    named = [("base model", spectral_distance(arms[0], "base"))]
    named += [(arm.label, spectral_distance(arm)) for arm in arms]
    told = ", ".join(f"{name} {with_ends(distance)}" for name, distance in named)
    return Said(
        f"Spectral distance to held-out pictures: {told}",
        f"mean over bands of |log ratio of mean energies|; 0 is a match; {CONFIDENCE:.0%} intervals".replace("%", " %"),
    )


def about_bands(base: Base) -> Said:
    """The order in which the base model decides its bands."""
    steps = [f"{band.step:g}" if np.isfinite(band.step) else "never" for band in base.decided]
    order = "from low to high frequency" if base.low_to_high else "not strictly from low to high frequency"
    tied = listed([f"bands {listed([str(band) for band in bands])}" for bands in base.tied])
    where = f"at steps {listed(steps)} of {base.steps}"
    return Said(
        f"The base model decides {tied} at the same step, which is no order: {where}"
        if tied
        else f"The base model decides its bands {order}: {where}",
        f"bands 0 to {len(steps) - 1}, lowest first; {base.estimand.split(';')[0]}, of x0 with the finished sample; "
        f"{count(base.prompts, 'prompt')}",
    )


def say_unused(gates: Gates) -> str:
    """The experts of a run that are hardly used, of those that it has; empty where all are."""
    if not gates.unused:
        return ""
    which = "expert" if len(gates.unused) == 1 else "experts"
    of = f"{which} {listed([str(e) for e in gates.unused])} (of 0 to {gates.share.shape[1] - 1})"
    return f"{of} of {gates.arm.label}, seed {gates.seed}"


def about_seeds(arms: Sequence[Arm]) -> Said | None:
    """Says plainly when the training seeds are too few; None when they are not."""
    fewest = min(len(arm.runs) for arm in arms)
    if fewest >= FEW_SEEDS:
        return None
    if fewest == 1:
        claim = "At least one arm has a single training seed: another seed may order the arms differently"
        return Said(claim, "its intervals are over validation samples alone")
    claim = f"There are only {fewest} training seeds per arm: small differences cannot be told from chance"
    return Said(claim, "intervals are wide for that reason; five seeds or more are advisable")


def unsure(pair: Against) -> bool:
    """True where a ratio of steps has a value but no interval."""
    return bool(np.isfinite(pair.steps.value)) and not pair.steps.bounded


def say(arms: Sequence[Arm], pairs: Sequence[Against], base: Base | None) -> list[Said]:
    """Everything the report says in words, the most important first; ratios without an interval come last.

    Of arms that are identical nothing is said but that.
    """
    main, few = pairs[:1], about_seeds(arms)
    twins = [pair for pair in pairs[1:] if pair.other is not main[0].other]
    others = [pair for pair in pairs[1:] if pair.other is main[0].other]
    timed = [p for p in [*main, *others] if not p.identical]
    said = [about_error(p) for p in main] + [about_steps(p) for p in timed if p in main and not unsure(p)]
    said += [about_error(p) for p in [*twins, *others]]
    said += [about_steps(p) for p in timed if p not in main and not unsure(p)]
    said += [few] if few and pairs else []
    said += [about_base(arms), *about_harm(arms), about_spectrum(arms), about_distance(arms)]
    said += [about_bands(base)] if base else []
    said += [about_levels(p) for p in pairs if not p.identical] + [about_steps(p) for p in timed if unsure(p)]
    return brief(said + ([few] if few and not pairs else []))
