"""What a cube says, with intervals: shares of energy, when bands are decided, and paired comparisons.

Runs of one prompt are not independent of each other, so every interval is over prompts: runs are averaged within their
prompt first, and prompts are the sample.  Comparisons are paired, run by run, on the same prompt and noise.  Every
result names what it estimates and how.  The kernels work on plain arrays with clusters along the first axis.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectra.errors import UserError

if TYPE_CHECKING:
    import xarray as xr

Array = NDArray[np.float64]
Method = Literal["auto", "t", "bootstrap"]
Of = Literal["ratios", "means"]

SMALL = 40  # clusters; with fewer the percentile bootstrap covers too little (85 % of 95 with 8), Student's t does not
DECIDED = 0.8  # coherence from which on a band counts as decided


@dataclass(frozen=True)
class Estimate:
    """A number with its interval: what it estimates, how, and from how many independent clusters.

    The interval is unbounded where there is a single cluster.
    """

    value: float
    low: float
    high: float
    n: int
    method: str
    estimand: str
    confidence: float = 0.95

    def includes(self, x: float) -> bool:
        """True where x is inside the interval, so that the data do not speak against it."""
        return self.low <= x <= self.high

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON; an unbounded end is None."""
        return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in asdict(self).items()}


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    cluster: Sequence[Hashable] | None = None,
    n: int = 2000,
    seed: int = 0,
    *,
    confidence: float = 0.95,
    method: Method = "auto",
    what: str = "difference",
) -> Estimate:
    """The mean of a - b for values (members,) paired one to one, with an interval over clusters (or over members).

    Differences are averaged within clusters first, and clusters count equally.  The spread of these means contains
    what varies between members as well, so whole clusters are the unit both of Student's t ("auto" with fewer than 40
    clusters) and of the percentile bootstrap (n draws); drawing members again would count their noise twice.

    Raises UserError where the values cannot be paired or are not finite.
    """
    left, right = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if left.ndim != 1 or left.shape != right.shape or len(left) == 0 or not np.isfinite(left - right).all():
        raise UserError(f"paired values are two equal rows of finite numbers, not {left.shape} and {right.shape}")
    labels = list(range(len(left))) if cluster is None else list(cluster)
    if len(labels) != len(left):
        raise UserError(f"{len(left)} pairs need {len(left)} cluster labels, not {len(labels)}")
    means = cluster_means(left - right, labels)
    value, low, high = interval(means, confidence, method, n, seed)
    estimand = f"mean {what} over {'pairs' if cluster is None else 'clusters of pairs'}"
    used = method_used(len(means), method, n)
    return Estimate(float(value), float(low), float(high), len(means), used, estimand, confidence)


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
    summed.  of="ratios" estimates the mean log ratio of single runs, of="means" the log ratio of mean energies; they
    differ where the ratio varies between runs.  The latter's interval is linearised, `a_i / mean a - b_i / mean b`.

    Raises UserError where runs cannot be paired.
    """
    import xarray as xr

    a, b = _summed(a), _matched(_summed(b), _summed(a))
    p, q = (x.transpose("run", ...).values.astype(np.float64) for x in (a, b))
    if not (np.isfinite(p) & np.isfinite(q) & (p > 0) & (q > 0)).all():
        raise UserError("a log ratio needs energies above zero: leave out empty bands and steps without the signal")
    prompts = prompts_of(a)
    if of == "ratios":
        estimand, offset, d = "mean log ratio of energies", 0.0, np.log(p / q)
    else:
        ma, mb = (cluster_means(x, prompts).mean(0) for x in (p, q))
        estimand, offset, d = "log ratio of mean energies", np.log(ma / mb), p / ma - q / mb
    means = cluster_means(d, prompts)
    results = zip(("value", "low", "high"), interval(means, confidence, method, n, seed), strict=True)
    dims = [dim for dim in a.transpose("run", ...).dims if dim != "run"]
    data = {name: (dims, offset + result) for name, result in results}
    attrs = {"estimand": f"{estimand} over prompts", "n": len(means), "confidence": confidence}
    coords = {name: c for name, c in a.coords.items() if "run" not in c.dims}
    return xr.Dataset(data, coords, attrs | {"method": method_used(len(means), method, n)})


def shares(cube: xr.Dataset, signal: str = "latent") -> xr.DataArray:
    """Share of each band in the energy of a signal, (run, step, band): channels and frames summed, bands sum to 1.

    Raises UserError where the cube has no such signal.
    """
    energy = _summed(select(cube, signal).energy)
    total = energy.sum("band", skipna=False)
    share: xr.DataArray = (energy / total.where(total > 0, 1)).rename("share").transpose("run", "step", "band")
    return share.assign_attrs(long_name=f"share of the energy of {signal}", units="1")


def emergence(
    cube: xr.Dataset, threshold: float = DECIDED, *, confidence: float = 0.95, n: int = 2000, seed: int = 0
) -> xr.Dataset:
    """When each band is decided: the first step from which on mean coherence stays at or above `threshold`.

    Variables over `band`: `step`, `low` and `high`, the percentile interval of a bootstrap over prompts (over runs
    where there is one prompt; with few of either it is too narrow), and `noise_level` at `step`.  A band that is never
    decided has step inf and noise level NaN; a single run has no interval, that is 0 to inf.

    Raises UserError where the cube has no complete runs or no coherence.
    """
    import xarray as xr

    coherence = cube.coherence.transpose("run", "step", "band").values.astype(np.float64)[:, :-1]
    if cube.sizes["run"] == 0 or not np.isfinite(coherence).all():
        raise UserError("this cube has no coherence to read: record complete runs with the signal x0")
    prompts = prompts_of(cube)
    means = cluster_means(coherence, prompts)
    over = "prompts" if len(means) > 1 else "runs of one prompt"
    first = first_lasting(means.mean(0) >= threshold)
    sample = means if len(means) > 1 else coherence
    low, high = _quantiles(first_lasting(resampled_means(sample, n, seed) >= threshold), confidence)
    if len(sample) == 1:
        low, high = np.zeros_like(first), np.full_like(first, np.inf)
    levels = np.append(cube.noise_level.values[:-1].astype(np.float64), np.nan)
    level = levels[np.minimum(first, len(levels) - 1).astype(int)]
    values = {"step": first, "low": low, "high": high, "noise_level": level}
    method = f"percentile bootstrap over {over}, {n} draws"
    attrs = {"threshold": threshold, "n": len(sample), "confidence": confidence, "method": method}
    estimand = f"first step from which on the mean coherence over {over} is at least {threshold:g}"
    coords = {name: c for name, c in cube.coords.items() if c.dims == ("band",)}
    return xr.Dataset({k: ("band", v) for k, v in values.items()}, coords, attrs | {"estimand": estimand})


def select(cube: xr.Dataset, signal: str) -> xr.Dataset:
    """The cube of one signal; UserError where it was not recorded."""
    names = [str(name) for name in cube.signal.values]
    if signal not in names:
        raise UserError(f"this cube has no signal {signal!r}: it recorded {', '.join(names)}")
    return cube.isel(signal=names.index(signal))


def prompts_of(data: xr.Dataset | xr.DataArray) -> list[str]:
    """The prompt of each run; without prompts each run is its own."""
    named = data.prompt.values if "prompt" in data.coords else np.arange(data.sizes["run"])
    return [str(name) for name in named]


# Kernels


def cluster_means(values: Array, cluster: Sequence[Hashable]) -> Array:
    """Means within clusters, (members, ...) -> (clusters, ...), in the order in which clusters first appear."""
    places = {label: i for i, label in enumerate(dict.fromkeys(cluster))}
    member = np.array([places[label] for label in cluster])[None] == np.arange(len(places))[:, None]
    mean: Array = np.tensordot(member / member.sum(1, keepdims=True), values, axes=1)
    return mean


def resampled_means(means: Array, n: int, seed: int) -> Array:
    """Means of n bootstrap samples of whole clusters, (clusters, ...) -> (n, ...): counts times values."""
    size = len(means)
    counts = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), size=n)
    return np.asarray(np.tensordot(counts / size, means, axes=1))


def interval(means: Array, confidence: float, method: Method, n: int, seed: int) -> tuple[Array, Array, Array]:
    """Mean over clusters and its interval, (clusters, ...) -> three arrays (...)."""
    from scipy.special import stdtrit

    size, value = len(means), np.asarray(means.mean(0))
    if size == 1:
        return value, np.full_like(value, -np.inf), np.full_like(value, np.inf)
    if _uses_t(size, method):
        half = stdtrit(size - 1, (1 + confidence) / 2) * means.std(0, ddof=1) / np.sqrt(size)
        return value, value - half, value + half
    spread = (resampled_means(means, n, seed) - value) * np.sqrt(size / (size - 1))  # draws spread by 1/n, not 1/(n-1)
    low, high = np.quantile(spread, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return value, value + low, value + high


def method_used(size: int, method: Method, n: int) -> str:
    """The words for what `interval` does with `size` clusters."""
    if size == 1:
        return "none: a single cluster says nothing about others"
    return "paired Student t" if _uses_t(size, method) else f"paired percentile bootstrap, {n} draws"


def first_lasting(reached: NDArray[np.bool_]) -> Array:
    """First step from which on `reached` (..., step, band) stays true, (..., band); inf where the end is false."""
    after = np.logical_and.accumulate(reached[..., ::-1, :], axis=-2)[..., ::-1, :]
    return np.where(after[..., -1, :], after.argmax(-2).astype(np.float64), np.inf)


def _uses_t(size: int, method: Method) -> bool:
    return method == "t" or (method == "auto" and size < SMALL)


def _quantiles(draws: Array, confidence: float) -> tuple[Array, Array]:
    """The ends of the percentile interval of steps, outwards to whole steps; inf stays inf."""
    low = np.quantile(draws, (1 - confidence) / 2, axis=0, method="lower")
    high = np.quantile(draws, (1 + confidence) / 2, axis=0, method="higher")
    return low, high


def _summed(energy: xr.DataArray) -> xr.DataArray:
    """Energies over all channels and frames; NaN stays NaN."""
    return energy.sum([dim for dim in ("channel", "frame") if dim in energy.dims], skipna=False)


def _matched(b: xr.DataArray, a: xr.DataArray) -> xr.DataArray:
    """`b` with its runs in the order of `a`, by prompt, seed and draw as far as both have them."""
    names = [name for name in ("prompt", "seed", "draw") if name in a.coords and name in b.coords]
    if not names and a.sizes["run"] == b.sizes["run"]:
        return b
    ka, kb = (list(zip(*(x[name].values.tolist() for name in names), strict=True)) for x in (a, b))
    if len(set(ka)) < len(ka) or sorted(ka) != sorted(kb):
        raise UserError("these runs cannot be paired: both cubes need each prompt and seed once, and the same ones")
    return b.isel(run=[kb.index(key) for key in ka])
