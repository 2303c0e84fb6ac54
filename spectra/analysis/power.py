"""What a paired study could have seen: power of Student's t over clusters, by the noncentral t distribution.

With `n` clusters whose differences have the standard deviation `sd`, the t of a true mean difference `d` is noncentral
with `n - 1` degrees of freedom and noncentrality `d sqrt(n) / sd`; a two-sided test at `confidence` finds it where |t|
exceeds Student's quantile.  Source: Cohen, Statistical Power Analysis for the Behavioral Sciences (1988), chapter 2.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import ArrayLike

from spectra.analysis.statistics import t_quantile
from spectra.errors import UserError

MOST = 1_000_000  # clusters; a study that needs more will not be made


def chance(difference: float, sd: float, n: int, confidence: float = 0.95) -> float:
    """The probability that `n` clusters show a true mean `difference`, with either sign."""
    _refuse(sd, n, confidence)
    if n < 2:
        return 0.0
    if sd == 0:
        return 1.0 if difference else 1 - confidence
    return _chance(abs(difference) / sd * math.sqrt(n), n, confidence)


def detectable(sd: float, n: int, confidence: float = 0.95, power: float = 0.8) -> float:
    """The smallest true mean difference that `n` clusters show with probability `power`; inf for a single cluster."""
    _refuse(sd, n, confidence, power)
    if n < 2:
        return math.inf
    return _shift(n, confidence, power) * sd / math.sqrt(n)


def needed(difference: float, sd: float, confidence: float = 0.95, power: float = 0.8) -> int:
    """The fewest clusters that show a true mean `difference` with probability `power`.

    Raises UserError for a difference of zero, which no study shows, and where more than a million are needed.
    """
    low, high = 1, 2
    if difference == 0:
        raise UserError("no number of prompts shows a difference of zero: ask for one that would matter to you")
    while chance(difference, sd, high, confidence) < power:
        low, high = high, 2 * high
        if high > MOST:
            raise UserError(f"more than {MOST} prompts would be needed to show a difference of {difference:.3g}")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if chance(difference, sd, middle, confidence) >= power else (middle, high)
    _refuse(sd, high, confidence, power)
    return high


def power(differences: ArrayLike, n: int | None = None, confidence: float = 0.95, power: float = 0.8) -> float:
    """The smallest true mean difference that `n` such clusters show, from paired differences (clusters,) of a study.

    `n` is the number of clusters given, unless another study is planned.  Raises UserError for fewer than two values,
    whose spread is unknown, and for values that are not finite.
    """
    values = np.asarray(differences, np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise UserError(f"power needs a row of at least two finite differences, not an array of shape {values.shape}")
    return detectable(float(values.std(ddof=1)), len(values) if n is None else n, confidence, power)


@cache
def _shift(n: int, confidence: float, power: float) -> float:
    """The noncentrality that `n` clusters show with probability `power`; 0 where chance alone does."""
    from scipy.optimize import brentq

    if _chance(0.0, n, confidence) >= power:
        return 0.0
    far = 2 * t_quantile(n, confidence) + 5
    while _chance(far, n, confidence) < power:
        far *= 2
    return float(brentq(lambda x: _chance(x, n, confidence) - power, 0.0, far, xtol=1e-10))


def _chance(shift: float, n: int, confidence: float) -> float:
    """P(|T| > t) for T noncentral by `shift`; the far tail by reflection, where scipy's is sure to be a number."""
    from scipy.stats import nct

    t = t_quantile(n, confidence)
    return float(nct.sf(t, n - 1, shift) + nct.sf(t, n - 1, -shift))


def _refuse(sd: float, n: int, confidence: float, power: float = 0.5) -> None:
    """UserError for what is no study."""
    if not (math.isfinite(sd) and sd >= 0 and n >= 1 and 0 < confidence < 1 and 0 < power < 1):
        raise UserError(
            f"power needs a spread >= 0, at least one cluster, and confidence and power between 0 and 1, not "
            f"{sd:g}, {n}, {confidence:g} and {power:g}"
        )
