"""What a cube says, with intervals: shares of energy, when bands are decided, how fast power falls with frequency.

The labelled layer: functions here name dimensions and say in attributes what they estimate, how, and from how many
prompts.  The arithmetic is in `kernels` and `statistics`, comparisons of two cubes are in `comparison`, the cost of few
steps in `discretisation`; `spectra.accessor` gives all of them as methods of a cube.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from spectra.analysis.comparison import Of, compare, log_energy_ratio
from spectra.analysis.discretisation import discretisation
from spectra.analysis.kernels import Array, between, crossing, first_lasting, log_snr
from spectra.analysis.labels import (
    band_coordinates,
    coherence,
    described,
    guided,
    mean_over_prompts,
    noises_of,
    prompts_of,
    relative,
    select,
    select_runs,
    settings_in_words,
    settings_of,
    shares,
    summed,
)
from spectra.analysis.spectrum import reband, slope
from spectra.analysis.statistics import (
    Estimate,
    Interval,
    Method,
    cluster_means,
    interval,
    mean_interval,
    method_used,
    paired_difference,
    resampled_means,
    within,
)
from spectra.errors import UserError

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "DECIDED", "HALF", "Estimate", "Interval", "Method", "Of", "cluster_means", "coherence", "compare",
    "discretisation", "emergence", "first_lasting", "interval", "log_energy_ratio", "mean_over_prompts", "method_used",
    "noises_of", "paired_difference", "prompts_of", "reband", "relative", "resampled_means", "select", "select_runs",
    "settings_in_words", "settings_of", "shares", "slope",
]  # fmt: skip

By = Literal["coherence", "energy"]

DECIDED = 0.8  # coherence from which on a band counts as decided
HALF = 0.5  # of the final energy, where it is energy that decides
NOTHING = 1e-6  # of the final energy: less counts as so much, so that its log is finite
MEANS: dict[By, str] = {
    "coherence": "mean coherence",
    "energy": "geometric mean of the energy of x0 over that of the finished sample",
}


def emergence(
    cube: xr.Dataset,
    threshold: float | None = None,
    *,
    by: By = "coherence",
    confidence: float = 0.95,
    method: Method = "auto",
    n: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    """When each band of x0 is decided: the first step from which on the mean stays at or above `threshold`.

    by="coherence"   the cosine with the finished sample, averaged over prompts, reaches 0.8
    by="energy"      the energy of x0 over that of the finished sample, as geometric mean over prompts, reaches a half;
                     only without guidance, which makes early energies overshoot

    Variables over `band`: `step`, `low`, `high` and the `noise_level` at `step`; `call`, `call_low`, `call_high`, the
    same in calls of the scheduler, of which some solvers make several a step (places along the cube's `step`);
    `crossing_noise_level` and `crossing_log_snr`, where the mean crosses between two calls, each with `_low` and
    `_high`.  A band that is never decided has step and call inf and levels NaN.  Intervals are those of the mean at
    each call, read where they cross (Fieller's way), over prompts, or over runs where there is one prompt (one noise
    recorded twice counts once); a single run has none, that is 0 to inf.

    Runs of several settings (adapter, guidance) are pooled; the attribute `settings` counts them, and `select_runs`
    takes those of one.

    Raises UserError where the cube has no complete runs, no x0, or guidance where energy is asked for.
    """
    import xarray as xr

    values, level = _decision(cube, by, threshold)
    several = len(set(prompts_of(cube))) > 1
    labels = prompts_of(cube) if several else noises_of(cube)
    curves = mean_interval(values, labels, confidence, method, n, seed)
    if by == "coherence":
        curves = within(curves, -1 - level, 1 - level)
    found = _steps(cube, curves) | _levels(cube, curves)
    over, size = "prompts" if several else "runs of one prompt", len(set(labels))
    estimand = f"first step from which on the {MEANS[by]} over {over} is at least {level:g}"
    said = f"{method_used(size, method, n)} over {over} at each step, read where it crosses"
    pooled = len(settings_of(cube))
    attrs = described(estimand, said, size, confidence, threshold=level, by=by, settings=pooled)
    return xr.Dataset({name: ("band", value) for name, value in found.items()}, band_coordinates(cube), attrs)


def _decision(cube: xr.Dataset, by: By, threshold: float | None) -> tuple[Array, float]:
    """What has to reach 0 for a band to be decided, (run, step - 1, band), and the threshold that was taken off."""
    if by == "coherence":
        level = DECIDED if threshold is None else threshold
        values = cube.coherence.transpose("run", "step", "band").values.astype(np.float64)[:, :-1] - level
    elif by == "energy":
        level = HALF if threshold is None else threshold
        values = _energy_decision(cube, level)
    else:
        raise UserError(f'a band is decided by="coherence" or by="energy", not by={by!r}')
    if len(values) == 0 or not np.isfinite(values).all():
        raise UserError(f"this cube has no {by} of x0 to read: record complete runs with the signal x0")
    return values, level


def _energy_decision(cube: xr.Dataset, level: float) -> Array:
    """Log of x0's energy over `level` times that of the finished sample.

    Logs, because energies of prompts differ by factors, and intervals of their means would cover 88 %.
    """
    if guided(cube):
        raise UserError(
            "with guidance the early energy of x0 overshoots, so it does not say when a band is decided: "
            'use by="coherence", or record runs without guidance'
        )
    x0, latent = (summed(select(cube, name).energy).transpose("run", "step", "band") for name in ("x0", "latent"))
    early, final = x0.values.astype(np.float64)[:, :-1], latent.isel(step=[-1]).values.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = early / final
    return np.asarray(np.log(np.maximum(ratio, NOTHING)) - np.log(level))


def _steps(cube: xr.Dataset, curves: Interval) -> dict[str, Array]:
    """`step`, `low`, `high` in sampling steps, the same in calls, and the noise level at the first."""
    calls = [first_lasting(curve >= 0) for curve in (curves.value, curves.high, curves.low)]
    names = np.append(cube.step.values[:-1].astype(np.float64), np.inf)
    levels = np.append(cube.noise_level.values[:-1].astype(np.float64), np.nan)
    places = [np.minimum(call, len(names) - 1).astype(int) for call in calls]
    results = dict(zip(("step", "low", "high"), (names[place] for place in places), strict=True))
    results |= dict(zip(("call", "call_low", "call_high"), calls, strict=True))
    return results | {"noise_level": levels[places[0]]}


def _levels(cube: xr.Dataset, curves: Interval) -> dict[str, Array]:
    """Noise levels and log SNR where the curves cross 0, smallest first; what is not decided yet has the last level."""
    noise = cube.noise_level.values.astype(np.float64)
    signal = cube.signal_level.values.astype(np.float64) if "signal_level" in cube.coords else 1 - noise
    place, early, late = (crossing(curve) for curve in (curves.value, curves.high, curves.low))
    early, late = (np.where(np.isfinite(end), end, len(noise) - 1.0) for end in (early, late))
    results: dict[str, Array] = {}
    for name, at in (("noise_level", partial(between, noise)), ("log_snr", partial(_log_snr_at, signal, noise))):
        results[f"crossing_{name}"] = at(place)
        results[f"crossing_{name}_low"] = np.minimum(at(early), at(late))
        results[f"crossing_{name}_high"] = np.maximum(at(early), at(late))
    return results


def _log_snr_at(signal: Array, noise: Array, place: Array) -> Array:
    return log_snr(between(signal, place), between(noise, place))
