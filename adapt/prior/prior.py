"""What a probed cube teaches an adapter: bands, scaling of the features, the router's start, and where to train.

The denoiser's input at each step of a recorded generation is the recorded latent up to a factor, and shares do not see
factors; so the log shares of the cube's latents are exactly what a router will read.  A cube of data
(`spectra probe --data`) holds what the denoiser is given in training.  A prior is learned from either or from both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic.dataclasses import dataclass

from adapt.prior.bands import choose
from adapt.prior.density import density, finite
from adapt.prior.experts import advise
from adapt.prior.parts import STRICT, Advice, BankChoice, Density, Floats, Number, digits, plain, rows
from adapt.prior.start import Array, fit, soft_prototypes
from adapt.trajectory import Trajectory, read_trajectory
from spectra.bands import FilterBank
from spectra.errors import UserError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from adapt.fera import FeraConfig

FEATURES = ("shares", "snr", "log_snr")
LEAST_STD = 1e-2  # of a feature: one that hardly varies is not blown up
FITTED = ("num_experts", "tau", "router_hidden", "features")


@dataclass(frozen=True, config=STRICT)
class Statistics:
    """Mean and deviation of one feature over all steps and runs."""

    mean: Floats
    std: Floats


@dataclass(frozen=True, config=STRICT)
class Prior:
    """A prior for FeRA.  Tuples are per band, per step (denoiser calls, noisy first) or per expert.

    `router` holds the fitted weights w1 b1 w2 b2 for the standardised `features`; `statistics` has every feature's mean
    and deviation, those that the router does not read too.  `gate_error` and `gate_error_max` are the mean and the
    largest absolute difference between fitted and intended gates (as probabilities) over all recorded latents.
    `noise_level`, `log_snr`, `timestep`, `shares` (steps x bands) and `gates` (steps x experts, as probabilities),
    means over the runs of the first cube, explain the prior.  `timestep_log_snr` is the inverse cumulative function of
    the training noise levels: log SNR at evenly spread probabilities, from clean to noisy.
    """

    scales: Floats
    grid: tuple[int, int]
    features: tuple[str, ...]
    statistics: dict[str, Statistics]
    experts: int
    overlap: float
    tau: float
    hidden: int
    seed: int
    router: dict[str, Any]
    gate_error: float
    gate_error_max: float
    noise_level: Floats
    log_snr: Floats
    timestep: Floats
    shares: tuple[Floats, ...]
    gates: tuple[Floats, ...]
    timestep_log_snr: Floats
    density: Density
    bank: BankChoice
    advice: Advice
    provenance: dict[str, Any]

    @classmethod
    def from_cube(
        cls,
        cube: xr.Dataset | str | Path,
        experts: int = 3,
        *,
        bands: int | None = None,
        scales: Sequence[float] | None = None,
        overlap: float = 1.0,
        tau: float = 0.7,
        hidden: int = 64,
        seed: int = 0,
        features: Sequence[str] = ("shares",),
        data: xr.Dataset | str | Path | None = None,
    ) -> Prior:
        """Learn a prior from a cube of `spectra probe`, or from the path of one.

        `cube` may be of generation or of data; `data` is a cube of data beside one of generation, of the same model,
        and both count equally.  Bands are chosen (`adapt.prior.bands`), but for `bands`, so many octaves, or `scales`,
        a bank of one's own.  `overlap` is the width of an expert's region in units of the distance between experts;
        `tau`, `hidden` and `features` describe the router.  Deterministic for equal input and `seed`.

        Raises UserError where a cube lacks a part, cubes do not go together, or the request makes no sense.
        """
        features = (features,) if isinstance(features, str) else tuple(features)
        check_request(experts, overlap, tau, hidden, features)
        paths = _together(read_trajectory(cube), None if data is None else read_trajectory(data))
        bank, choice = choose(paths, bands, scales)
        statistics = {name: _statistics([path.feature(name, bank) for path in paths]) for name in FEATURES}
        places = positions(paths)
        read = [_standardised(path, bank, features, statistics) for path in paths]
        intended = [soft_prototypes(u, experts, overlap) for u in places]
        fitted = fit(read, intended, tau, hidden, seed)
        error = np.concatenate([np.abs(g - p).ravel() for g, p in zip(fitted.gates, intended, strict=True)])
        first, energy = paths[0], paths[0].energy(bank)
        inverse, levels = density(paths, bank)
        return cls(
            scales=bank.scales, grid=first.grid, features=features, statistics=statistics,
            experts=experts, overlap=float(overlap), tau=float(tau), hidden=hidden, seed=seed, router=fitted.router,
            gate_error=digits(error.mean()), gate_error_max=digits(error.max()),
            noise_level=plain(first.noise_level), log_snr=plain(finite(first.log_snr)), timestep=plain(first.timestep),
            shares=rows((energy / energy.sum(2, keepdims=True)).mean(0)), gates=rows(fitted.gates[0].mean(0)),
            timestep_log_snr=inverse, density=levels, bank=choice, advice=advise(paths, places, bank),
            provenance=_provenance(paths),
        )  # fmt: skip

    @property
    def bands(self) -> int:
        """Number of bands."""
        return len(self.scales) + 1

    @property
    def feature_mean(self) -> Floats:
        """Means of the features that the router reads, in their order."""
        return tuple(value for name in self.features for value in self.statistics[name].mean)

    @property
    def feature_std(self) -> Floats:
        """Deviations of the features that the router reads, in their order."""
        return tuple(value for name in self.features for value in self.statistics[name].std)

    @property
    def score(self) -> Number | None:
        """Information in the bands' log shares about noise level and content, in nats; None with too few runs."""
        return None if self.bank.chosen is None else self.bank.chosen.total

    @property
    def experts_advised(self) -> int | None:
        """Number of experts that the cube speaks for; None where it has too few runs to say."""
        return self.advice.advised

    def save(self, path: str | Path) -> Path:
        """Write the prior as JSON, whole or not at all; equal priors give equal bytes."""
        from adapt.prior.files import save

        return save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Prior:
        """Read a prior; UserError where the file is missing, torn, of another format or inconsistent."""
        from adapt.prior.files import load

        return load(path)

    def check_model(self, model_hash: str) -> None:
        """Raise UserError where the prior was learned from another model than the one with this hash."""
        learned = self.provenance.get("model_hash")
        if learned != model_hash:
            name = self.provenance.get("model") or "a model"
            raise UserError(
                f"this prior was learned from {name} (hash {str(learned)[:12]}), but the model to adapt has hash "
                f"{model_hash[:12]}: probe that model and make a prior from its cube"
            )

    def fera_config(self, **overrides: Any) -> FeraConfig:
        """A FeraConfig with everything that the prior knows; any other field can be given.

        What was measured (bands, grid, scaling) cannot be changed.  What the router's start was fitted for
        (`num_experts`, `tau`, `router_hidden`, `features`) can, if the start is given up: by `router_start=None`, which
        draws it at random, or by `gates="uniform"`, which has none.  Scaling follows `features`, all of which are
        known; "snr" and "log_snr" need the `noise_schedule` of the model as well.

        Raises UserError for a field that would contradict the prior.
        """
        from adapt.prior.configuration import fera_config

        return fera_config(self, overrides)

    def explain(self) -> list[str]:
        """What the prior says, in plain sentences."""
        from adapt.prior.words import sentences

        return sentences(self)

    def figure(self) -> Figure:
        """What the prior says, on a page: bands, first gates, training noise levels, and how the bands were chosen."""
        from adapt.prior.figure import page

        return page(self)


def check_request(experts: int, overlap: float, tau: float, hidden: int, features: tuple[str, ...]) -> None:
    """Raise UserError for numbers and features that no router has."""
    if not all(isinstance(count, int) and count >= 1 for count in (experts, hidden)):
        raise UserError(f"a prior needs at least 1 expert and 1 hidden unit, got {experts!r} and {hidden!r}")
    for name, value in (("overlap", overlap), ("tau", tau)):
        if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
            raise UserError(f"the {name} of a prior is a number above 0, got {value!r}")
    if not features or len(set(features)) != len(features) or not set(features) <= set(FEATURES):
        raise UserError(f"features of a prior are some of {', '.join(FEATURES)}, once each, got {features}")


def _together(first: Trajectory, data: Trajectory | None) -> list[Trajectory]:
    """The trajectories to learn from; UserError where they are not of one model and one size of latents."""
    if data is None:
        return [first]
    if data.source != "data" or first.source == "data":
        kinds = f"{first.source} and {data.source}"
        raise UserError(
            f"a prior of two cubes takes one of generation first and one of `spectra probe --data` as data, not {kinds}"
        )
    if first.provenance["model_hash"] != data.provenance["model_hash"]:
        names = " and ".join(path.provenance["model"] or "an unnamed model" for path in (first, data))
        raise UserError(f"the two cubes are of different models ({names}): probe the data with the model of the other")
    if (first.grid, first.fields) != (data.grid, data.fields):
        raise UserError(
            f"the two cubes hold latents of different sizes ({first.fields} fields of {first.grid} and {data.fields} "
            f"of {data.grid}): probe both at one size"
        )
    return [first, data]


def positions(paths: Sequence[Trajectory]) -> list[Array]:
    """Position of each trajectory's steps along the first one, from noise 0 to data 1, by log SNR."""
    first = paths[0]
    level, at = np.unique(finite(first.log_snr), return_index=True)
    return [first.position, *(np.interp(finite(path.log_snr), level, first.position[at]) for path in paths[1:])]


def _statistics(values: Sequence[Array]) -> Statistics:
    """Mean and deviation over all runs and steps, (runs, steps, width) each; cubes count equally."""
    mean = np.mean([value.mean((0, 1)) for value in values], axis=0)
    variance = np.mean([((value - mean) ** 2).mean((0, 1)) for value in values], axis=0)
    return Statistics(plain(mean), plain(np.maximum(np.sqrt(variance), LEAST_STD)))


def _standardised(
    path: Trajectory, bank: FilterBank, names: tuple[str, ...], statistics: dict[str, Statistics]
) -> Array:
    """What the router reads, (runs, steps, width)."""
    columns = [(path.feature(name, bank) - statistics[name].mean) / statistics[name].std for name in names]
    return np.concatenate(columns, axis=2)


def _provenance(paths: Sequence[Trajectory]) -> dict[str, Any]:
    """Where the prior comes from: the first cube, and the data beside it."""
    one, *more = paths
    found = {**one.provenance, "source": one.source, "units": len(set(one.unit)), "unit": one.kind}
    for path in more:
        found["data"] = {
            "runs": path.runs,
            "units": len(set(path.unit)),
            "unit": path.kind,
            "cube": path.provenance["cube"],
        }
    return found
