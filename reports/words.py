"""Numbers in words: every sentence names what was measured, its interval and how many repeats stand behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reports.arms import Arm
from reports.base import Base
from reports.compare import Against, error_against_base, spectral_distance, to_heldout
from reports.statistics import Ratio

FEW_SEEDS = 5


@dataclass(frozen=True)
class Said:
    """A sentence of the report: what is claimed, and what the claim stands on."""

    claim: str
    support: str = ""

    @property
    def text(self) -> str:
        """The whole sentence."""
        return f"{self.claim} ({self.support})." if self.support else f"{self.claim}."


def count(n: int, noun: str) -> str:
    """`3 seeds`, `1 seed`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def percent(ratio: float) -> str:
    """A ratio as a change without sign: 0.953 is `4.7 %`; two digits that mean something."""
    change = abs(ratio - 1) * 100
    return f"{change:.0f} %" if change >= 19.95 else f"{change:.1f} %" if change >= 0.1 else f"{change:.2f} %"


def change(ratio: float, less: str = "lower", more: str = "higher") -> str:
    """`4.7 % lower`; a large ratio is given as a factor."""
    if not np.isfinite(ratio):
        return "beyond measure"
    if ratio > 3:
        return f"{ratio:.3g} times as high" if more == "higher" else f"{ratio:.3g} times as much"
    return f"{percent(ratio)} {less if ratio < 1 else more}"


def signed(ratio: float) -> str:
    """A ratio as a signed change for tables and axes: `−4.7 %`; from 3 on, a factor."""
    if not np.isfinite(ratio):
        return "–"
    if ratio > 3:
        return f"× {ratio:.2g}"
    sign = "−" if ratio < 1 else "+"
    return f"{sign}{percent(ratio)}"


def span(ratio: Ratio) -> str:
    """An interval for tables: `−6.4 % to −3.0 %`."""
    return f"{signed(ratio.low)} to {signed(ratio.high)}" if ratio.bounded else "no interval"


def repeats(ratio: Ratio, paired: bool = True) -> str:
    """Which repeats an interval is over, in words."""
    cells = "paired over " if paired else "over "
    if ratio.seeds == 1:
        samples = count(ratio.samples, "validation sample")
        return f"{cells}{samples} of one training seed, so it says nothing of other seeds"
    return f"{cells}{count(ratio.seeds, 'training seed')} and {count(ratio.samples, 'validation sample')}"


def interval(ratio: Ratio, less: str = "lower", more: str = "higher") -> str:
    """`95 % interval 3.0 % to 6.4 % lower`."""
    if not ratio.bounded:
        return "no interval"
    if (ratio.low < 1) == (ratio.high < 1) and ratio.high <= 3:
        near, far = sorted((ratio.low, ratio.high), key=lambda r: abs(r - 1))
        return f"95 % interval {percent(near)} to {percent(far)} {less if ratio.low < 1 else more}"
    return f"95 % interval {change(ratio.low, less, more)} to {change(ratio.high, less, more)}"


def about_error(pair: Against) -> Said:
    """The verdict on one pair of arms: final validation error."""
    ratio, arm, other = pair.error, pair.arm.label, pair.other.label
    support = f"{interval(ratio)}; {ratio.estimand}, {repeats(ratio)}"
    if not ratio.bounded:
        return Said(
            f"{arm} ends {change(ratio.value)} in validation error than {other}, one value without an interval", support
        )
    if not ratio.differs:
        claim = f"No difference was found between {arm} and {other}: final validation error {change(ratio.value)}"
        unseen = (
            f"; less than about {percent(np.exp(ratio.resolution))} could not be seen here" if ratio.resolution else ""
        )
        return Said(claim, f"{support}; the interval includes no difference{unseen}")
    verb = "helped" if ratio.value < 1 else "did worse"
    return Said(f"{arm} {verb}: its final validation error is {change(ratio.value)} than that of {other}", support)


def about_steps(pair: Against) -> Said:
    """How soon an arm reaches the other's final error."""
    ratio, arm, other = pair.steps, pair.arm.label, pair.other.label
    if not pair.pairs:
        return Said(f"{arm} and {other} share no training seed, so their steps to a common error are not compared")
    if not np.isfinite(ratio.value):
        missed = f"{pair.pairs - pair.reached} of {count(pair.pairs, 'training seed')}"
        return Said(f"{arm} does not reach the final error of {other} within its training in {missed}", ratio.estimand)
    claim = f"{arm} reaches the final error of {other} after {ratio.value:.2f} times the steps that {other} took"
    over = count(ratio.seeds, "training seed")
    if ratio.seeds == 1:
        over = f"{count(ratio.samples, 'validation sample')} of one training seed"
    if not ratio.bounded:
        return Said(claim, f"no interval: some resampled curves never reach it; over {over}; {ratio.estimand}")
    tail = "" if ratio.differs else "; the interval includes no difference"
    return Said(claim, f"95 % interval {ratio.low:.2f} to {ratio.high:.2f} over {over}; {ratio.estimand}{tail}")


def about_levels(pair: Against) -> Said:
    """At which noise levels the difference lies."""
    total, arm, other = len(pair.levels), pair.arm.label, pair.other.label
    lower = sum(r.differs and r.value < 1 for r in pair.levels)
    higher = sum(r.differs and r.value > 1 for r in pair.levels)
    return Said(
        f"The error of {arm} is lower than that of {other} at {lower} and higher at {higher} of {total} noise levels",
        f"each 95 % interval by itself; with all {total} taken together, by Bonferroni, a difference holds "
        f"at {pair.holding}",
    )


def about_base(arms: Sequence[Arm]) -> Said:
    """How far each arm came from the untrained model."""
    parts = [(arm, error_against_base(arm)) for arm in arms]
    told = [f"{arm.label} {signed(r.value)} (95 % interval {span(r)})" for arm, r in parts]
    first = parts[0][1]
    claim = f"Against the untrained base model, the final validation error changes by: {'; '.join(told)}"
    return Said(claim, f"{first.estimand}, {repeats(first)}")


def about_spectrum(arms: Sequence[Arm]) -> Said:
    """Where the base model's spectrum is furthest from the held-out pictures, and what each arm makes of it."""
    base = to_heldout(arms[0], "base")
    band = int(np.argmax([abs(np.log(r.value)) for r in base]))
    told = []
    for arm in arms:
        ratio = to_heldout(arm)[band]
        match = "" if ratio.differs else ", no difference from held-out pictures found"
        told.append(f"{arm.label} {signed(ratio.value)} ({span(ratio)}{match})")
    ratio = to_heldout(arms[0])[band]
    seeds = "" if ratio.seeds == 1 else f"{count(ratio.seeds, 'training seed')} and "
    return Said(
        f"Against held-out pictures, the base model's are furthest off in band {band}, "
        f"with {change(base[band].value, 'less', 'more')} energy; the trained ones there: {'; '.join(told)}",
        f"95 % intervals over {seeds}{count(ratio.samples, 'prompt')}; {ratio.estimand}",
    )


def about_distance(arms: Sequence[Arm]) -> Said:
    """One spectral distance per arm."""
    named = [("base model", spectral_distance(to_heldout(arms[0], "base")))]
    named += [(arm.label, spectral_distance(to_heldout(arm))) for arm in arms]
    told = ", ".join(f"{name} {distance:.2f}" for name, distance in named)
    return Said(
        f"Spectral distance to held-out pictures: {told}",
        "mean over bands of |log ratio of mean energies|; 0 is a match",
    )


def about_bands(base: Base) -> Said:
    """The order in which the base model decides its bands."""
    steps = [f"{band.step:g}" if np.isfinite(band.step) else "never" for band in base.decided]
    listed = ", ".join(steps[:-1]) + f" and {steps[-1]}"
    order = "from low to high frequency" if base.low_to_high else "not strictly from low to high frequency"
    return Said(
        f"The base model decides its bands {order}: at steps {listed} of {base.steps}",
        f"bands 0 to {len(steps) - 1}, lowest first; {base.estimand.split(';')[0]}, of x0 with the finished sample; "
        f"{count(base.prompts, 'prompt')}",
    )


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


def say(arms: Sequence[Arm], pairs: Sequence[Against], base: Base | None) -> list[Said]:
    """Everything the report says in words, the most important first."""
    main, few = pairs[:1], about_seeds(arms)
    twins = [pair for pair in pairs[1:] if pair.other is not main[0].other]
    others = [pair for pair in pairs[1:] if pair.other is main[0].other]
    said = [about_error(p) for p in main] + [about_steps(p) for p in main]
    said += [about_error(p) for p in twins] + [about_error(p) for p in others] + [about_steps(p) for p in others]
    said += [few] if few and pairs else []
    said += [about_base(arms), about_spectrum(arms), about_distance(arms)]
    said += [about_bands(base)] if base else []
    said += [about_levels(pair) for pair in pairs]
    return said + ([few] if few and not pairs else [])
