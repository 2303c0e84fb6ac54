"""Which bands: the filter bank whose log shares hold most information about noise level and content.

Candidates have 2 to 4 bands with scales on a grid of half octaves, neighbours at least an octave
apart, from half a pixel to 40 % of the side; the default octaves and the recorded bank are among them.  Each is scored
by `information`: explained log-odds of the noise level plus those of the content, held out by prompt.  The best one is
taken where choosing beats the default octaves beyond doubt; else the octaves stay.  "Choosing beats" is judged without
the winner's curse: for each prompt the candidate is chosen by the other prompts.  (Prompts then share most of their
say, so the interval is a little short: of equal candidates, where nothing can be lost, one choice in 13 seems to win.)

How exact: energies of candidates come from the radial spectrum, within bounds that hold whatever the latents are and
that are wide, since within a bin nothing is known.  Where they are within 50 %, the shares of fields whose power falls
as 1 / f^2 are off by 6 % at most (`tests/adapt/prior/test_bands.py`); what is less exact is set aside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np

from adapt.prior.information import content_gain, content_of, folds_of, level_gain, log_posterior, log_ratios
from adapt.prior.parts import Array, BankChoice, BankScore, Number, digits, number
from adapt.trajectory import FEWEST, SMALLEST_SHARE, Trajectory, log_shares
from spectra.analysis.statistics import cluster_means
from spectra.bands import DEFAULT_BANDS, FilterBank
from spectra.errors import UserError

STEP = 2**0.5  # between scales of the grid
APART = 1.99  # between scales of one candidate: an octave, and room for rounding
FINEST, COARSEST = 0.5, 0.4  # pixels; of the shorter side
MOST_BANDS = 4
MOST_RUNS = 512  # of a cube that candidates are scored on
INEXACT = 0.5  # relative half width of the bounds on a band's mean energy beyond which a bank is set aside


class Gains(NamedTuple):
    """Explained log-odds of each unit of one trajectory, (units,)."""

    level: Array
    content: Array


def choose(
    paths: Sequence[Trajectory], bands: int | None = None, scales: Sequence[float] | None = None
) -> tuple[FilterBank, BankChoice]:
    """The filter bank for these trajectories, and why.

    `bands` asks for so many octaves, as it does in `FeraConfig`, and `scales` for a bank; nothing is chosen then.
    Raises UserError where the two contradict each other, or the radial spectrum does not tell the energies of what was
    asked for.
    """
    asked = _asked(bands, scales, paths[0].grid)
    paths = [path.thinned(MOST_RUNS) for path in paths]
    tried = _tried(paths, asked)
    told = [bank for bank in tried if max(inexact(path, bank) for path in paths) <= INEXACT]
    reference = next((bank for bank in told if tried[bank]), None)
    if reference is None or (asked is not None and asked not in told):
        raise UserError(_cannot_tell(asked or next(iter(tried)), paths))
    few = min(path.runs for path in paths) < FEWEST
    scores = {} if few else {bank: [gains(path, bank) for path in paths] for bank in told}
    won = None if few or asked is not None else advantage(told.index(reference), _totals(scores, len(paths)))
    better = won is not None and won.low is not None and won.low > 0
    bank = asked or (max(told, key=lambda bank: _total(scores[bank])) if better else reference)
    reason = "asked" if asked is not None else "few" if few else "better" if better else "kept"
    return bank, BankChoice(
        reason=reason, against=tried[reference], gain=won, best=_best(scores), candidates=len(told),
        chosen=score(bank, scores[bank]) if scores else None,
        default=score(reference, scores[reference]) if scores else None,
        set_aside=len(tried) - len(told), inexact=digits(max(inexact(path, bank) for path in paths)),
        check=digits(max(check(path) for path in paths)),
        unit=" and ".join(dict.fromkeys(f"{path.kind}s" for path in paths)),
    )  # fmt: skip


def _tried(paths: Sequence[Trajectory], asked: FilterBank | None) -> dict[FilterBank, str]:
    """The banks to compare; those that may stand against the others, in order of preference, have a name."""
    grid = paths[0].grid
    found = {FilterBank.octaves(DEFAULT_BANDS, grid): "the default octaves"}
    for own in (path.bank for path in paths if path.bank.bands > 1):
        found.setdefault(own, "the recorded bands")
    more = candidates(grid) if asked is None else [asked]
    return found | {bank: "" for bank in more if bank not in found}


def candidates(grid: tuple[int, int]) -> Iterator[FilterBank]:
    """Banks of 2 to 4 bands on the half-octave grid of scales through the default octaves."""
    side = min((n for n in grid if n > 1), default=1)
    powers = FilterBank.octaves(DEFAULT_BANDS, grid).scales[0] * STEP ** np.arange(-40.0, 41.0)
    allowed = [round(float(s), 6) for s in powers if FINEST * 0.999 <= s <= max(COARSEST * side, 2 * FINEST) * 1.001]
    for count in range(1, MOST_BANDS):
        for scales in combinations(allowed, count):
            if all(b / a >= APART for a, b in pairwise(scales)):
                yield FilterBank(scales)


def gains(path: Trajectory, bank: FilterBank) -> Gains:
    """Explained log-odds of noise level and content by the log shares of `bank`, for each unit of a trajectory."""
    x, folds = log_ratios(path.energy(bank)), folds_of(path.unit)
    level = level_gain(log_posterior(x, folds), path.log_snr)
    content = content_gain(x, content_of(path.finished, path.grid, folds), folds)
    return Gains(cluster_means(level, path.unit), cluster_means(content, path.unit))


def advantage(reference: int, totals: Sequence[Array]) -> Number:
    """What choosing the best candidate gains over candidate `reference`, honestly: `totals` are (candidates, units).

    Each unit is scored by the candidate that all others, of all strata, find best.
    """
    means, won = [total.mean(1) for total in totals], []
    for i, total in enumerate(totals):
        count = total.shape[1]
        others = (count * means[i][:, None] - total) / (count - 1)
        rest = sum(mean for j, mean in enumerate(means) if j != i)
        best = (others + np.reshape(rest, (-1, 1))).argmax(0)
        won.append(total[best, np.arange(count)] - total[reference])
    return number(won)


def inexact(path: Trajectory, bank: FilterBank) -> float:
    """Largest half width of the bounds on a band's energy, mean over runs, relative to it; 0 for recorded energies."""
    if bank == path.bank:
        return 0.0
    value, low, high = (part.mean(0) for part in path.rebanded(bank))
    return float(((high - low) / 2 / np.maximum(value, SMALLEST_SHARE * value.sum(-1, keepdims=True))).max())


def check(path: Trajectory) -> float:
    """Error of log shares from the spectrum where energies are recorded too: RMS of the worst band, in nats."""
    error = log_shares(path.recorded) - log_shares(path.rebanded(path.bank).value)
    return float(np.sqrt((error**2).mean((0, 1))).max())


def score(bank: FilterBank, found: Sequence[Gains]) -> BankScore:
    """The score of a bank with its intervals, from the gains of each trajectory."""
    level, content = ([one[i] for one in found] for i in (0, 1))
    return BankScore(bank.scales, number(level), number(content), number([one.level + one.content for one in found]))


def _best(scores: dict[FilterBank, list[Gains]]) -> tuple[BankScore, ...]:
    """Scores of the best candidate of each number of bands, fewest first."""
    best = {bank.bands: bank for bank in sorted(scores, key=lambda bank: _total(scores[bank]))}
    return tuple(score(best[count], scores[best[count]]) for count in sorted(best))


def _totals(scores: dict[FilterBank, list[Gains]], paths: int) -> list[Array]:
    """Explained log-odds in all, (candidates, units) per trajectory."""
    return [np.array([found[i].level + found[i].content for found in scores.values()]) for i in range(paths)]


def _total(found: Sequence[Gains]) -> float:
    return float(np.mean([(one.level + one.content).mean() for one in found]))


def _asked(bands: int | None, scales: Sequence[float] | None, grid: tuple[int, int]) -> FilterBank | None:
    """The bank that was asked for; UserError for one that cannot be had on this grid."""
    if scales is None and bands is None:
        return None
    if not isinstance(bands, int | None):
        raise UserError(f"the number of bands is a whole one, got {bands!r}")
    bank = FilterBank(scales) if scales is not None else FilterBank.octaves(bands or 0, grid)
    if bands not in (None, bank.bands):
        raise UserError(f"{len(bank.scales)} scales make {bank.bands} bands, not {bands}: give one of the two")
    if bank.bands < 2:
        raise UserError(f"a prior needs at least 2 bands to tell latents apart, got {bank.bands}")
    if min(bank.white_noise(*grid).mean) <= 1e-9 * grid[0] * grid[1]:
        words = ", ".join(f"{scale:g}" for scale in bank.scales)
        raise UserError(f"a band of scales {words} is empty on {grid[0]} x {grid[1]} latents: ask for {FINEST} or more")
    return bank


def _cannot_tell(bank: FilterBank, paths: Sequence[Trajectory]) -> str:
    wide = max(inexact(path, bank) for path in paths)
    words = ", ".join(f"{scale:g}" for scale in bank.scales)
    return (
        f"the recorded spectrum tells energies of bands with scales {words} to {wide:.0%} only: probe again with more "
        "radial bins, or with this bank"
    )
