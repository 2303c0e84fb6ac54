"""What a prior consists of beside its router: plain records that JSON holds, checked when they are read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

Array = NDArray[np.float64]
Floats = tuple[float, ...]

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True, config=STRICT)
class Number:
    """An estimate with its 95 % interval over prompts (pictures, of data); both ends None where there is none."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, config=STRICT)
class BankScore:
    """How much a bank's log shares tell, in nats: about the noise level, about the content given it, and in all."""

    scales: Floats
    level: Number
    content: Number
    total: Number


@dataclass(frozen=True, config=STRICT)
class BankChoice:
    """Why these bands.

    They stand against a default, in words `against`: octaves, or the recorded bands where the spectrum does not tell
    the energies of octaves.  `reason` is "better" where choosing beats the default beyond doubt, "kept" where it does
    not and the default stays, "asked" where scales were given, "few" where there were too few runs to score and the
    default stays.  `gain` is what choosing wins over the default, judged on units that had no say in the choice.
    `best` holds the best candidate of each number of bands; `candidates` were scored, and `set_aside` counts those
    whose energies the spectrum does not tell well enough.  `inexact` is the largest half width of the radial spectrum's
    bounds on the mean energy of a band, over that energy, 0 where energies are the recorded ones; `check` is the
    error of the same estimate where both are known, in the cube's own bank: of log shares, RMS of the worst band, nats.
    """

    reason: str
    against: str
    chosen: BankScore | None
    default: BankScore | None
    gain: Number | None
    best: tuple[BankScore, ...]
    candidates: int
    set_aside: int
    inexact: float
    check: float
    unit: str


@dataclass(frozen=True, config=STRICT)
class Advice:
    """Number of experts: how sure the features are of the part of the trajectory that a latent is from.

    `sure[M - 1]` is the mean posterior probability of a latent's own part among M equal ones, held out by unit: 1 / M
    where the features tell nothing; it ends where a part would hold no step.  `advised` is the largest M at which it is
    above one half beyond doubt, and so at every smaller M: a latent's own expert then counts more than all others
    together.  None without scores.
    """

    sure: tuple[Number, ...]
    advised: int | None


@dataclass(frozen=True, config=STRICT)
class Density:
    """How training noise levels are to be spread, and why.

    `emergence` (sources, bands) are the log SNRs at which half of a band's energy can be told from the noise, of the
    generation and of the data.  `floor` is the least density, relative to the uniform one over the training range.
    `timestep` and `log_snr` tabulate that range at evenly spread quantiles, clean to noisy; `table` is "schedule" where
    they follow the recorded scheduler and "levels" where they are interpolated between the probed noise levels.
    `visited` is the share of the recorded steps, `uniform` and `given` those of uniform training and of this density,
    that fall where the middle half of emergence happens, between the two log SNRs `middle` (clean, noisy).
    """

    emergence: tuple[Floats, ...]
    floor: float
    table: str
    timestep: Floats
    log_snr: Floats
    middle: tuple[float, float]
    visited: float
    uniform: float
    given: float


def digits(value: float) -> float:
    """Seven significant digits: what float32 holds, and short in a file."""
    return float(f"{value:.7g}")


def plain(values: Array) -> Floats:
    """A row of numbers as JSON holds it."""
    return tuple(digits(value) for value in values)


def rows(values: Array) -> tuple[Floats, ...]:
    """A matrix as JSON holds it."""
    return tuple(plain(row) for row in values)


def number(strata: list[Array]) -> Number:
    """Mean of the strata's means, each of values (units,), with Student's 95 % interval over units.

    Strata (generation and data) count equally however many units they have.  Each needs two units for an interval; the
    degrees of freedom are Welch's and Satterthwaite's.
    """
    from scipy.special import stdtrit

    value = float(np.mean([values.mean() for values in strata]))
    if min(len(values) for values in strata) < 2:
        return Number(digits(value), None, None)
    parts = np.array([values.var(ddof=1) / len(values) for values in strata]) / len(strata) ** 2
    if parts.sum() == 0:
        return Number(digits(value), digits(value), digits(value))
    freedom = parts.sum() ** 2 / (parts**2 / (np.array([len(values) for values in strata]) - 1)).sum()
    half = float(stdtrit(freedom, 0.975) * np.sqrt(parts.sum()))
    return Number(digits(value), digits(value - half), digits(value + half))
