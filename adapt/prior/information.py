"""How much band energies tell about the noise level and about the content, in nats, on samples that were held out.

Both are gains of log-odds, hence lower bounds of mutual information (Barber & Agakov, 2003), and they add up by its
chain rule, I(level, content; x) = I(level; x) + I(content; x | level):

    level     log p(level | x) / p(level), p by quadratic discriminant analysis: a Gaussian per step, its covariance
              drawn towards the mean of all steps' as by `PSEUDO` further runs (Friedman, 1989)
    content   log p(c | x) / p(c) at the true step, p by linear regression with Gaussian errors, where c are the main
              ways in which the radial spectra of finished samples differ: a target that no choice of bands enters

Features x are log ratios of band energies in an orthonormal basis: what log shares hold, without their redundancy.
Everything is fitted without the unit (prompt, picture) that it is judged on, so more bands do not win by being more.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spectra.radial import radial_modes, radii

Array = NDArray[np.float64]
Folds = NDArray[np.int64]

RESOLUTION = 0.01  # nats: smaller differences of log energies are below what a router tells apart, and do not count
PSEUDO = 10  # runs that the mean covariance counts as, beside a step's own
FOLDS = 10
MOST_WAYS = 3  # in which finished samples differ
MAIN = 0.9  # of the variance of log ring energies that those ways hold, if fewer suffice
EMPTY = 1e-8  # of the total energy: less counts as so much


def folds_of(unit: tuple[str, ...]) -> Folds:
    """The fold of each run, (runs,): units are dealt out in order of appearance, one unit never to two folds."""
    order = {name: i for i, name in enumerate(dict.fromkeys(unit))}
    return np.array([order[name] for name in unit]) % min(len(order), FOLDS)


def log_ratios(energy: Array) -> Array:
    """Isometric log ratios of energies (..., K), (..., K - 1): free of the latent's overall scale."""
    K = energy.shape[-1]
    logs = np.log(np.maximum(energy, EMPTY * energy.sum(-1, keepdims=True)))
    basis = np.tril(np.ones((K - 1, K))) - np.diag(np.arange(1.0, K), 1)[: K - 1]
    found: Array = logs @ (basis / np.linalg.norm(basis, axis=1, keepdims=True)).T
    return found


def log_posterior(x: Array, folds: Folds) -> Array:
    """log p(step | x) of each held-out x (runs, steps, d) under equal prior odds, (runs, true step, step)."""
    found = np.empty((*x.shape[:2], x.shape[1]))
    for fold in np.unique(folds):
        held = folds == fold
        mean, covariance = _moments(x[~held])
        inverse, size = np.linalg.inv(covariance), np.linalg.slogdet(covariance)[1]
        away = x[held][:, :, None] - mean
        found[held] = -0.5 * (np.einsum("ntsd,sde,ntse->nts", away, inverse, away, optimize=True) + size)
    found -= np.logaddexp.reduce(found, axis=-1, keepdims=True)
    return found


def level_gain(posterior: Array, log_snr: Array) -> Array:
    """Explained log-odds of the noise level, mean over steps, (runs,); steps of one noise level are one."""
    own, share = _own_part(posterior, np.unique(log_snr, return_inverse=True)[1])
    gain: Array = (own - np.log(share)).mean(1)
    return gain


def part_probability(posterior: Array, part: NDArray[np.int64]) -> Array:
    """Posterior probability of the part (steps,) of the trajectory that a latent is from, mean over steps, (runs,)."""
    probability: Array = np.exp(_own_part(posterior, part)[0]).mean(1)
    return probability


def _own_part(posterior: Array, part: NDArray[np.int64]) -> tuple[Array, Array]:
    """Log posterior of each latent's own part (runs, steps), and that part's share of the steps (steps,)."""
    same = part[:, None] == part
    return np.logaddexp.reduce(np.where(same, posterior, -np.inf), axis=-1), same.mean(1)


def content_gain(x: Array, content: Array, folds: Folds) -> Array:
    """Explained log-odds of the content (runs, ways) by x (runs, steps, d) at known steps, mean over steps, (runs,)."""
    gain = np.empty(len(x))
    for fold in np.unique(folds):
        held = folds == fold
        gain[held] = _regression_gain(x[~held], content[~held], x[held], content[held])
    return gain


def content_of(finished: Array, grid: tuple[int, int], folds: Folds) -> Array:
    """The main ways in which log ring energies of finished samples (runs, R) differ: (runs, ways), unit variance."""
    logs = log_rings(finished, grid)
    centred = logs - logs.mean(0)
    U, s, _ = np.linalg.svd(centred, full_matrices=False)
    if s[0] <= RESOLUTION * np.sqrt(len(logs)):
        return np.zeros((len(logs), 0))
    ways = min(int(np.searchsorted((s**2).cumsum() / (s**2).sum(), MAIN)) + 1, MOST_WAYS, len(set(folds.tolist())) - 1)
    return np.asarray(U[:, :ways] * np.sqrt(len(logs)))


def log_rings(spectrum: Array, grid: tuple[int, int]) -> Array:
    """Log energies of octave-wide rings of radial frequency, the mean apart: (..., R) -> (..., rings)."""
    bins = spectrum.shape[-1]
    octave = np.floor(np.log2(radii(bins, *grid) / radii(bins, *grid)[-1]) - 1e-9).astype(int)
    octave[0] = octave.min() - 1  # the bin that holds the mean of the latent
    there = radial_modes(bins, *grid) > 0
    rings = [spectrum[..., there & (octave == o)].sum(-1) for o in np.unique(octave[there])]
    energy = np.stack(rings, -1)
    found: Array = np.log(np.maximum(energy, EMPTY * energy.sum(-1, keepdims=True)))
    return found


def _moments(x: Array) -> tuple[Array, Array]:
    """Mean (steps, d) and regularised covariance (steps, d, d) over runs of x (runs, steps, d)."""
    mean, runs = x.mean(0), len(x)
    away = x - mean
    own = np.einsum("nsd,nse->sde", away, away) / max(runs - 1, 1)
    shrunk = ((runs - 1) * own + PSEUDO * own.mean(0)) / (runs - 1 + PSEUDO)
    return mean, shrunk + RESOLUTION**2 * np.eye(x.shape[-1])


def _regression_gain(x: Array, c: Array, x_held: Array, c_held: Array) -> Array:
    """Mean over steps of the sum over ways of log N(c; prediction, error) - log N(c; mean, variance), (held runs,).

    Both variances are those of a prediction: that of the residuals, to which one further run adds the plain variance,
    times 1 + what the estimates themselves are unsure of.  So few runs, which a line passes through, claim little.
    """
    runs, d = len(x), x.shape[-1]
    at, origin = x.mean(0), c.mean(0)
    away, target, found = x - at, c - origin, x_held - at
    inner = np.einsum("nsd,nse->sde", away, away) + runs * RESOLUTION**2 * np.eye(d)
    slope = np.linalg.solve(inner, np.einsum("nsd,nw->sdw", away, target))
    plain = (target**2).sum(0) / max(runs - 1, 1) + RESOLUTION**2
    residual = ((target[:, None] - np.einsum("nsd,sdw->nsw", away, slope)) ** 2).sum(0)
    unsure = 1 + 1 / runs + np.einsum("nsd,sde,nse->ns", found, np.linalg.inv(inner), found)
    error = (residual + plain) / (max(runs - 1 - d, 0) + 1) * unsure[:, :, None] + RESOLUTION**2
    spread = plain * (1 + 1 / runs)
    miss = c_held[:, None] - origin - np.einsum("nsd,sdw->nsw", found, slope)
    blind = (c_held - origin)[:, None]
    gain: Array = (0.5 * (np.log(spread / error) + blind**2 / spread - miss**2 / error)).sum(-1).mean(1)
    return gain
