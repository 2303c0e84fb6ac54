"""Which noise levels to train at: half as always, half where the data's bands emerge.

Of a band with energy S in the clean latents and N in unit noise, the state a x0 + b eps shows the best linear guess the
share R = a^2 S / (a^2 S + b^2 N) of the clean band's energy (Wiener's filter; exact for Gaussian fields).  Along the
log SNR it rises as a logistic function, R(l) = 1 / (1 + exp(m - l)), around the level m = log(N / S) at which the band
emerges.  With q in (0, 1) the quantile of a training noise level (0 = clean) and l(q) its log SNR, training noise
levels get the cumulative function

    F(q) = FLOOR q + (1 - FLOOR) sum_b [R_b(l(0)) - R_b(l(q))] / sum_b [R_b(l(0)) - R_b(l(1))],

so no level gets less than FLOOR of what uniform training gives it.  The prior keeps log SNR at 64 values of F^-1, from
clean to noisy.  A cube of generation gives S of its finished samples, one of data that of the data; with both, the
sums are averaged.  Recorded coherence is not used: a deterministic sampler decides everything by its first noise (that
of a Gaussian field is near one from the first step on), so it does not say which levels carry the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from adapt.prior.parts import Array, Density, Floats, digits, plain, rows
from adapt.trajectory import Trajectory
from spectra.bands import FilterBank
from spectra.errors import UserError

FLOOR = 0.5
POINTS = 64  # of the inverse cumulative function
FINE = 4096  # points at which F itself is tabulated
LEVELS = 1000  # quantiles at which the training range is read
KEPT = 65  # of them that the prior keeps, to draw
LIMIT = 20.0  # log SNR of pure noise and of clean data, which are infinite
MIDDLE = (0.25, 0.75)  # of emergence, from clean to noisy


class Range(NamedTuple):
    """The training noise levels at the middles of equal parts of the range, clean to noisy.

    `timestep` and `log_snr` (n,), the latter falling; `table` says where they are from.
    """

    timestep: Array
    log_snr: Array
    table: str

    def at(self, values: Array, quantile: Array) -> Array:
        """Values of the table at quantiles, straight between its rows."""
        found: Array = np.interp(quantile, (np.arange(len(values)) + 0.5) / len(values), values)
        return found


def density(paths: Sequence[Trajectory], bank: FilterBank) -> tuple[Floats, Density]:
    """The inverse cumulative function (log SNR, clean to noisy) and its reasons; `paths[0]` gives the schedule."""
    levels, at = training_range(paths[0]), [emergence(path, bank) for path in paths]
    fine, every = np.linspace(0, 1, FINE + 1), np.linspace(0, 1, KEPT)
    risen = emerged(at, levels.at(levels.log_snr, fine))
    F = FLOOR * fine + (1 - FLOOR) * risen
    inverse = levels.at(levels.log_snr, np.interp(np.linspace(0, 1, POINTS), F, fine))
    middle = np.interp(MIDDLE, risen, fine)
    high, low = levels.at(levels.log_snr, middle)
    return plain(inverse), Density(
        emergence=rows(np.array(at)), floor=FLOOR, table=levels.table,
        timestep=plain(levels.at(levels.timestep, every)), log_snr=plain(levels.at(levels.log_snr, every)),
        middle=(digits(high), digits(low)),
        visited=digits(((paths[0].log_snr <= high) & (paths[0].log_snr >= low)).mean()),
        uniform=digits(middle[1] - middle[0]), given=digits(float(np.diff(np.interp(middle, fine, F))[0])),
    )  # fmt: skip


def emergence(path: Trajectory, bank: FilterBank) -> Array:
    """Log SNR at which each band emerges, log(N / S) with S the mean over units of its clean energy, (bands,)."""
    from spectra.analysis.statistics import cluster_means

    clean = cluster_means(path.clean_energy(bank), path.unit).mean(0)
    noise = path.fields * bank.white_noise(*path.grid).mean
    return finite(np.log(np.maximum(noise, 1e-300)) - np.log(np.maximum(clean, 1e-300)))


def emerged(levels: Sequence[Array], log_snr: Array) -> Array:
    """Share of all emergence that happens at cleaner levels than `log_snr` (n,), which falls: (n,) from 0 to 1.

    `levels` are log SNRs (bands,) at which bands emerge, of one or more sources that count equally.
    """
    told = np.mean([(1 / (1 + np.exp(at - log_snr[:, None]))).sum(1) for at in levels], axis=0)
    if not told[0] > told[-1]:
        raise UserError("no band emerges within the training noise levels of this model: its cube is damaged")
    found: Array = (told[0] - told) / (told[0] - told[-1])
    return found


def training_range(path: Trajectory) -> Range:
    """The noise levels that a model under the recorded scheduler is trained with.

    A cube of data does not hold the scheduler but levels spread over its timesteps: between them log SNR is straight in
    the logarithm of the timestep, and beyond the cleanest one it goes on as between the last two.
    """
    known = _from_scheduler(path)
    if known is not None:
        return known
    timestep, first = np.unique(path.timestep, return_index=True)
    log_snr = finite(path.log_snr[first])
    if len(timestep) < 2 or timestep[0] <= 0 or (np.diff(log_snr) > 0).any():
        raise UserError(
            "this cube's timesteps do not rise with the noise, and it does not say a scheduler that this toolkit can "
            "train with: a prior needs one of the two to spread the training noise levels"
        )
    t = (np.arange(LEVELS) + 0.5) / LEVELS * timestep[-1]
    return Range(t, finite(_extended(np.log(t), np.log(timestep), log_snr)), "levels")


def relative(timestep_log_snr: Floats, found: Density) -> tuple[Array, Array]:
    """For drawing: timesteps (KEPT - 1,) in the middle of equal parts of the training range, and the density in each.

    Densities are relative to uniform training, so their mean is 1.
    """
    part, probability = (np.linspace(0, 1, len(values)) for values in (found.log_snr, timestep_log_snr))
    F = np.interp(part, np.interp(-np.array(timestep_log_snr), -np.array(found.log_snr), part), probability)
    timestep = np.array(found.timestep)
    return (timestep[1:] + timestep[:-1]) / 2, np.diff(F) * (len(F) - 1)


def finite(log_snr: Array) -> Array:
    """Log SNR with noise alone, and no noise, at the ends of what is told apart."""
    return np.clip(log_snr, -LIMIT, LIMIT)


def _from_scheduler(path: Trajectory) -> Range | None:
    """The training range of the recorded scheduler's objective; None where the cube holds none that can be trained.

    A shift that depends on the picture's size is taken at the smallest size; the floor is relative to that.
    """
    import diffusers
    import torch

    from adapt.objectives import objective_of

    kind = getattr(diffusers, str(path.scheduler.get("class")), None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        return None
    config = {name: value for name, value in path.scheduler.items() if name != "class"}
    try:
        objective = objective_of(kind.from_config(config))  # type: ignore[attr-defined]
    except (TypeError, ValueError, NotImplementedError):  # no settings of this class, or none that can be trained with
        return None
    timestep = objective.timestep((torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS)
    log_snr = objective.log_snr(objective.noise_level(timestep))
    return Range(timestep.double().numpy(), finite(log_snr.double().numpy()), "schedule")


def _extended(x: Array, known: Array, values: Array) -> Array:
    """Linear interpolation that goes on below the first known point as between the first two."""
    slope = (values[1] - values[0]) / (known[1] - known[0])
    return np.where(x < known[0], values[0] + slope * (x - known[0]), np.interp(x, known, values))
