"""Two cubes side by side: band energies of paired runs, as log ratios with intervals.

Runs are paired by prompt, seed and draw: the same noise went into both, and most of what varies between samples
cancels.  The estimand has a name, because the mean of log ratios is not the log of a ratio of means:

    of="ratios"   the mean over prompts of log(a / b), runs of a prompt averaged first; interval: Student's t
    of="means"    log(mean a / mean b) over prompts; linearised, `a_i / mean a - b_i / mean b`, which is skewed where
                  energies are; interval: hierarchical studentised bootstrap.  It promises 95 % and covers 88 to 92
                  where energies of prompts differ by more than a factor of two or three: there, ask for ratios

Cubes hold float32, so two energies that are equal may be recorded as a few units in the last place apart, and on
another device consistently so.  A log ratio has this `resolution` (4.8e-7, an attribute of the results): intervals are
wider by it at both ends, and p values are against a difference that is no larger.  It is the rounding of energies once
they are known.  Predictions at either end of the sampler are small differences of large numbers, whose rounding can be
much larger, and what counts as a difference in practice is for the reader to say.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spectra.analysis.labels import described, prompts_of, settings_in_words, settings_of, summed
from spectra.analysis.statistics import (
    Array,
    Method,
    cluster_means,
    false_discovery,
    mean_interval,
    method_used,
    p_values,
    simultaneous,
    standard_error,
)
from spectra.errors import UserError
from spectra.schema import parsed

if TYPE_CHECKING:
    import xarray as xr

Of = Literal["ratios", "means"]
Values = NDArray[np.floating[Any]]
KEYS = ("prompt", "seed", "draw")
SHARED = ("bank", "grid")
LEVELS = ("timestep", "noise_level", "signal_level")
ROUNDING = 4  # units in the last place: the energies of two devices, which add up squares in another order


class _Logs(NamedTuple):
    """Contributions (run, ...) whose mean over prompts, plus `offset`, is the estimand, known to `resolution`."""

    parts: Array
    offset: Array
    resolution: float
    words: str


def log_energy_ratio(
    a: xr.DataArray,
    b: xr.DataArray,
    of: Of = "ratios",
    *,
    confidence: float = 0.95,
    method: Method = "auto",
    n: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    """Log ratio of band energies, a over b, with intervals: variables value, low, high over the dims besides `run`.

    `a` and `b` are energies (run, ..., band) of the same prompts and seeds, in any order; channels and frames are
    summed.  The estimands of `of` and their default methods are those of this module, as is `resolution`.

    Raises UserError where runs cannot be paired, or an energy is not above zero.
    """
    a, b = (x.transpose("run", ...) for x in (summed(a), _matched(summed(b), summed(a))))
    if not all((np.isfinite(x.values) & (x.values > 0)).all() for x in (a, b)):
        raise UserError("a log ratio needs energies above zero: leave out empty bands and steps without the signal")
    prompts, method = prompts_of(a), _default(method, of)
    logs, clusters = _logs(a.values, b.values, prompts, of), len(set(prompts))
    value, low, high = mean_interval(logs.parts, prompts, confidence, method, n, seed)
    ends = {"value": value, "low": low - logs.resolution, "high": high + logs.resolution}
    used = method_used(clusters, method, n, "paired ")
    attrs = described(f"{logs.words} over prompts", used, clusters, confidence, resolution=logs.resolution)
    return _labelled({name: logs.offset + part for name, part in ends.items()}, a, attrs)


def compare(
    cube: xr.Dataset,
    other: xr.Dataset,
    *,
    of: Of = "ratios",
    confidence: float = 0.95,
    method: Method = "auto",
    n: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    """Log ratio of the energies of `cube` (A) over those of `other` (B), (step, signal, band), over runs of both.

    value, low, high          the estimand that the attributes name, and its interval, each cell by itself; differences
                              below the attribute `resolution` cannot be told from rounding, and count as none
    low_all, high_all         intervals that hold for all cells together, with the same confidence (max t; with 8
                              prompts and hundreds of cells, where 95 % is asked for, 90 to 93 are covered)
    p_value, p_adjusted       against no difference (Student's t); adjusted for the number of cells (Benjamini-Hochberg)

    Attributes count the paired runs and those that only one cube has.  Cells are NaN where a run has no energy, as the
    predictions at the last step.  Signals that only one of the cubes has are left out.

    Raises UserError where the cubes were not recorded alike, or have no run in common.
    """
    _refuse_different(cube, other)
    a, b, counted = _paired(cube, other)
    prompts, method = prompts_of(a), _default(method, of)
    logs, clusters = _logs(a.values, b.values, prompts, of), len(set(prompts))
    results = _with_all(logs, prompts, confidence, method, n, seed)
    words, used = f"{logs.words} over prompts, A over B", method_used(clusters, method, n, "paired ")
    attrs = described(words, used, clusters, confidence, resolution=logs.resolution, **counted)
    return _labelled(results, a, attrs)


def _labelled(parts: dict[str, Array], energy: xr.DataArray, attrs: dict[str, Any]) -> xr.Dataset:
    """Arrays over the dims of `energy` (run, ...) besides `run`, with its labels."""
    import xarray as xr

    coords = {name: c for name, c in energy.coords.items() if "run" not in c.dims}
    return xr.Dataset({name: (energy.dims[1:], part) for name, part in parts.items()}, coords, attrs)


def _paired(cube: xr.Dataset, other: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray, dict[str, int]]:
    """Energies (run, step, signal, band) of the runs and signals that both have, in one order, and how many runs."""
    mine, theirs = _keys(cube, "this cube"), _keys(other, "the other cube")
    both = [key for key in mine if key in theirs]
    if not both:
        raise UserError("these cubes have no run in common: record both with the same prompts and seeds")
    names = [str(s) for s in cube.signal.values if s in other.signal.values]
    a, b = (_energies(c, names, [k[key] for key in both]) for c, k in ((cube, mine), (other, theirs)))
    left = {"unpaired_here": len(mine) - len(both), "unpaired_there": len(theirs) - len(both)}
    return a, b, {"paired": len(both), **left}


def _logs(a: Values, b: Values, prompts: list[str], of: Of) -> _Logs:
    """Energies (run, ...) of both sides as recorded -> what is averaged; NaN where any run has none."""
    resolution = ROUNDING * max(float(np.finfo(x.dtype).eps) for x in (a, b))
    p, q = a.astype(np.float64), b.astype(np.float64)
    there = (np.isfinite(p) & np.isfinite(q) & (p > 0) & (q > 0)).all(0)
    p, q = np.where(there, p, np.nan), np.where(there, q, np.nan)
    if of == "ratios":
        return _Logs(np.log(p) - np.log(q), np.zeros(p.shape[1:]), resolution, "mean log ratio of energies")
    ma, mb = (cluster_means(x, prompts).mean(0) for x in (p, q))
    return _Logs(p / ma - q / mb, np.log(ma / mb), resolution, "log ratio of mean energies")


def _default(method: Method, of: Of) -> Method:
    """The method whose coverage is tested for the estimand."""
    if method != "auto":
        return method
    return "t" if of == "ratios" else "bootstrap"


def _with_all(
    logs: _Logs, prompts: list[str], confidence: float, method: Method, n: int, seed: int
) -> dict[str, Array]:
    """Intervals of each cell and of all together, and p values, each (...)."""
    value, low, high = mean_interval(logs.parts, prompts, confidence, method, n, seed)
    means = cluster_means(logs.parts, prompts)
    p = p_values(means + logs.offset, logs.resolution)
    reach = np.full_like(value, np.inf)
    if len(means) > 1:
        flat = means.reshape(len(means), -1)
        cells = flat[:, np.isfinite(flat).all(0)]
        reach = simultaneous(cells, confidence, n, seed) * standard_error(means)
    reach, low, high = reach + logs.resolution, low - logs.resolution, high + logs.resolution
    found = {"value": value, "low": low, "high": high, "low_all": value - reach, "high_all": value + reach}
    shifted = {name: logs.offset + part for name, part in found.items()}
    return shifted | {"p_value": p, "p_adjusted": false_discovery(p)}


def _energies(cube: xr.Dataset, signals: list[str], runs: list[int]) -> xr.DataArray:
    """Energies (run, step, signal, band) of some runs, in this order, channels and frames summed."""
    places = [[str(s) for s in cube.signal.values].index(name) for name in signals]
    energy = summed(cube.energy.isel(run=runs, signal=places))
    return energy.transpose("run", "step", "signal", "band")


def _keys(cube: xr.Dataset, which: str) -> dict[tuple[Any, ...], int]:
    """The place of each run by prompt, seed and draw."""
    names = [name for name in KEYS if name in cube.coords]
    keys = list(zip(*(cube[name].values.tolist() for name in names), strict=True))
    place = {key: i for i, key in enumerate(keys)}
    if len(place) < len(keys):
        _refuse_repeated(cube, which, names, keys)
    if any(seed < 0 for seed in cube.seed.values):
        raise UserError(f"{which} has runs whose seed is not known, which cannot be paired: give generators with seeds")
    return place


def _refuse_repeated(cube: xr.Dataset, which: str, names: list[str], keys: list[tuple[Any, ...]]) -> None:
    """UserError that says why the first repeated key is there more than once: other settings, or recorded again."""
    key = next(key for key, times in Counter(keys).items() if times > 1)
    rows = [i for i, other in enumerate(keys) if other == key]
    found, again = settings_of(cube.isel(run=rows)), dict(zip(names, key, strict=True))
    if len(found) == len(rows):
        words = "; ".join(settings_in_words(found))
        raise UserError(f"{which} has several runs of {again}, of the settings {words}: select those of one first")
    raise UserError(
        f"{which} has the run {again} more than once under one setting: it was recorded again, so leave out all but "
        "one of them, or record into a new cube"
    )


def _refuse_different(cube: xr.Dataset, other: xr.Dataset) -> None:
    """UserError with each difference that makes energies incomparable."""
    found = [
        f"{name} is {cube.attrs.get(name)} here and {other.attrs.get(name)} there"
        for name in SHARED
        if parsed(cube.attrs.get(name)) != parsed(other.attrs.get(name))
    ]
    sizes = [(dim, cube.sizes.get(dim, 0), other.sizes.get(dim, 0)) for dim in ("step", "channel", "frame")]
    found += [f"{dim}s are {here} here and {there} there" for dim, here, there in sizes if here != there]
    if cube.sizes["step"] == other.sizes["step"]:
        found += [_level_difference(cube, other, name) for name in LEVELS if name in cube and name in other]
    found = [text for text in found if text]
    if not set(map(str, cube.signal.values)) & set(map(str, other.signal.values)):
        found.append("they have no signal in common")
    if found:
        raise UserError(f"these cubes cannot be compared: {'; '.join(_schedulers(cube, other) + found)}")


def _schedulers(cube: xr.Dataset, other: xr.Dataset) -> list[str]:
    """Which schedulers made them, if not the same: the likely reason of all other differences."""
    here, there = (parsed(one.attrs.get("scheduler")) for one in (cube, other))
    if not (isinstance(here, dict) and isinstance(there, dict)) or here.get("class") == there.get("class"):
        return []
    return [f"the scheduler is {here.get('class')} here and {there.get('class')} there"]


def _level_difference(cube: xr.Dataset, other: xr.Dataset, name: str) -> str:
    here, there = (c[name].values.astype(np.float64) for c in (cube, other))
    differs = ~np.isclose(here, there, rtol=1e-5, atol=1e-8, equal_nan=True)
    if not differs.any():
        return ""
    i = int(np.argmax(differs))
    return f"{name} differs from entry {i} on ({here[i]:.6g} here, {there[i]:.6g} there)"


def _matched(b: xr.DataArray, a: xr.DataArray) -> xr.DataArray:
    """`b` with its runs in the order of `a`, by prompt, seed and draw as far as both have them."""
    names = [name for name in KEYS if name in a.coords and name in b.coords]
    if not names and a.sizes["run"] == b.sizes["run"]:
        return b
    ka, kb = (list(zip(*(x[name].values.tolist() for name in names), strict=True)) for x in (a, b))
    if len(set(ka)) < len(ka) or sorted(ka) != sorted(kb):
        raise UserError("these runs cannot be paired: both cubes need each prompt and seed once, and the same ones")
    place = {key: i for i, key in enumerate(kb)}
    return b.isel(run=[place[key] for key in ka])
