"""Intervals cover what they promise: 95 +- 1.5 % of simulated studies, for the default of every function.

A study has n prompts with a few seeds each. Thousands of studies are made at once, one per cell of the arrays that the
kernels work on, and counted is how many intervals contain the truth, which a much larger study gives. Two kinds of
data: numbers with known tails and variances, and runs of the Gaussian oracle, whose band energies are quadratic forms.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pytest

from spectra.analysis import HALF
from spectra.analysis.comparison import Of, _default, _logs
from spectra.analysis.kernels import Array, crossing, exponents, final_power, slope_weights
from spectra.analysis.statistics import Interval, Method, mean_interval, simultaneous, standard_error, within
from spectra.bands import FilterBank
from spectra.gaussian import GaussianField, flow_levels
from spectra.radial import radial_bin, radial_modes, radius

GRID, BINS, PROMPTS = (16, 16), 16, (8, 16, 32)
BANK = FilterBank.octaves(4, GRID)
PROMISED, MARGIN = 0.95, 0.015
slow = pytest.mark.slow


def labels(prompts: int, seeds: int) -> list[str]:
    return [str(p) for p in range(prompts) for _ in range(seeds)]


def share(found: Interval, truth: float | Array) -> float:
    """Share of studies whose interval contains the truth."""
    return float(((found.low <= truth) & (truth <= found.high)).mean())


def covered(values: Array, cluster: list[str], truth: float | Array, method: Method = "auto") -> float:
    return share(mean_interval(values, cluster, PROMISED, method, n=1000), truth)


def holds(share: float, studies: int) -> bool:
    """Within the margin; with few studies, within three standard errors."""
    return abs(share - PROMISED) <= max(MARGIN, 3 * (PROMISED * (1 - PROMISED) / studies) ** 0.5)


# Numbers with known tails


def noise(kind: str, rng: np.random.Generator, *shape: int) -> Array:
    """Mean 0 and variance 1."""
    if kind == "normal":
        return rng.standard_normal(shape)
    if kind == "t5":
        return rng.standard_t(5, shape) / np.sqrt(5 / 3)
    return rng.laplace(size=shape) / np.sqrt(2)


def study(kind: str, n: int, seeds: int, ratio: float, studies: int) -> Array:
    """Values (n * seeds, studies) with mean 0; `ratio` is the variance between prompts over that within."""
    rng = np.random.default_rng(0)
    between = np.sqrt(ratio) * noise(kind, rng, n, 1, studies)
    return (between + noise(kind, rng, n, seeds, studies)).reshape(n * seeds, studies)


def test_quickly_the_default_covers_and_the_percentile_bootstrap_does_not() -> None:
    values = study("normal", 8, 2, 1.0, 2000)
    assert holds(covered(values, labels(8, 2), 0.0), 2000)
    assert covered(values, labels(8, 2), 0.0, "percentile") < 0.92


def test_quickly_runs_of_a_prompt_are_not_independent() -> None:
    values = study("normal", 8, 3, 1.0, 2000)
    assert covered(values, labels(24, 1), 0.0) < 0.85
    assert holds(covered(values, labels(8, 3), 0.0, "bootstrap"), 2000)


@slow
@pytest.mark.parametrize("n", PROMPTS)
@pytest.mark.parametrize("kind", ["normal", "t5", "laplace"])
def test_the_default_covers_means_of_symmetric_numbers(kind: str, n: int) -> None:
    for seeds, ratio in ((1, 0.0), (2, 0.1), (3, 1.0), (3, 10.0)):
        found = covered(study(kind, n, seeds, ratio, 6000), labels(n, seeds), 0.0)
        assert holds(found, 6000), (seeds, ratio, found)


def log_normal(n: int, spread: float, effect: float, studies: int) -> tuple[Array, Array, list[str]]:
    """Log-normal energies of two cubes, (runs, studies), for prompts with 1 to 4 seeds; log ratios have mean 0.1.

    Their logs vary by `spread` between prompts and half of it within, their log ratios by 0.7 `effect` in both ways.
    """
    prompt = np.array([p for p in range(n) for _ in range(1 + p % 4)])
    rng = np.random.default_rng(1)
    level, tilt = rng.standard_normal((2, n, studies))
    log_b = spread * (level[prompt] + 0.5 * rng.standard_normal((len(prompt), studies)))
    log_a = log_b + 0.1 + 0.7 * effect * (tilt[prompt] + rng.standard_normal(log_b.shape))
    return np.exp(log_a), np.exp(log_b), [str(p) for p in prompt]


@slow
@pytest.mark.parametrize("n", PROMPTS)
def test_the_default_covers_log_ratios_of_log_normal_energies(n: int) -> None:
    """Their logs are normal, however wide energies spread."""
    a, b, cluster = log_normal(n, 1.5, 0.5, 6000)
    logs = _logs(a, b, cluster, "ratios")
    found = covered(logs.parts, cluster, 0.1, _default("auto", "ratios"))
    assert holds(found, 6000), found


@slow
@pytest.mark.parametrize("n", PROMPTS)
def test_the_default_covers_the_log_ratio_of_log_normal_means(n: int) -> None:
    """Where prompts differ by a factor of 1.5 or so; of ratios that vary as well the mean is larger than e^0.1."""
    a, b, cluster = log_normal(n, 0.4, 0.1, 4000)
    logs = _logs(a, b, cluster, "means")
    found = covered(logs.parts, cluster, 0.1 + 0.07**2 - logs.offset, _default("auto", "means"))
    assert holds(found, 4000), found


# When bands are decided


def curves(n: int, seeds: int, studies: int, seed: int, jitter: float) -> Array:
    """Coherence less 0.8, (n * seeds, 20 steps, studies): it rises at a step that varies by prompt and by seed."""
    rng, step = np.random.default_rng(seed), np.arange(20.0)[:, None]
    middle = 10 + jitter * (rng.standard_normal((n, 1, 1, studies)) + 0.6 * rng.standard_normal((n, seeds, 1, studies)))
    width = 1.5 * np.exp(0.2 * rng.standard_normal((n, 1, 1, studies)))
    return (1 / (1 + np.exp((middle - step) / width)) - 0.8).reshape(n * seeds, 20, studies)


@slow
@pytest.mark.parametrize("n", PROMPTS)
@pytest.mark.parametrize("jitter", [0.5, 1.0, 1.5])
def test_the_interval_of_emergence_covers_where_the_mean_crosses(n: int, jitter: float) -> None:
    mean = np.mean([curves(400, 2, 20, seed, jitter).mean((0, 2)) for seed in range(60)], 0)
    truth = crossing(mean[:, None])[0]
    found = within(mean_interval(curves(n, 2, 4000, n, jitter), labels(n, 2), PROMISED), -1.8, 0.2)
    steps = Interval(crossing(found.value), crossing(found.high), crossing(found.low))
    assert holds(share(steps, truth), 4000), share(steps, truth)


def energies_by_level(n: int, seeds: int, studies: int, seed: int) -> tuple[Array, Array]:
    """Band 2 of a perfect denoiser's x0 at 12 noise levels, (runs, levels, studies), and of the data, (runs, studies).

    Prompts have their own mean picture, as `oracle` has, and their own power.
    """
    rng, levels = np.random.default_rng(seed), np.linspace(0.75, 0.4, 12)
    early, final = np.empty((n * seeds, 12, studies)), np.empty((n * seeds, studies))
    for i in range(studies):
        S = POWER * np.exp(0.5 * rng.standard_normal((n, 1, 1)))
        mean = rng.standard_normal((n, 1, POWER.size)) * np.sqrt(S) * 0.5
        centred, z = rng.standard_normal((2, n, seeds, POWER.size))
        final[:, i] = ((mean + np.sqrt(S) * centred) ** 2 @ TO_BANDS[:, 2]).ravel()
        for j, s in enumerate(levels):
            x = (1 - s) * np.sqrt(S) * centred + s * z
            x0 = mean + (1 - s) * S / ((1 - s) ** 2 * S + s * s) * x
            early[:, j, i] = (x0**2 @ TO_BANDS[:, 2]).ravel()
    return early, final


@slow
@pytest.mark.parametrize("n", PROMPTS)
def test_the_interval_of_emergence_by_energy_covers(n: int) -> None:
    early, final = energies_by_level(6000, 2, 1, seed=5)
    truth = crossing(np.log(early / final[:, None] / HALF).mean(0))[0]
    assert 1 < truth < 10
    early, final = energies_by_level(n, 2, 1500, seed=6)
    found = mean_interval(np.log(early / final[:, None] / HALF), labels(n, 2), PROMISED)
    steps = Interval(crossing(found.value), crossing(found.high), crossing(found.low))
    assert holds(share(steps, truth), 1500), share(steps, truth)


# Many cells at once


@slow
@pytest.mark.parametrize("n", PROMPTS)
def test_intervals_of_all_cells_hold_together_nearly_as_often(n: int) -> None:
    """120 cells, neighbours correlated by 0.9.  The covariance of few prompts is known badly: 90 % and more, not 95."""
    rng, cells, hits, studies = np.random.default_rng(2), np.arange(120), 0, 400
    root = np.linalg.cholesky(0.9 ** np.abs(cells[:, None] - cells))
    for i in range(studies):
        means = rng.standard_normal((n, 120)) @ root.T
        t = np.abs(means.mean(0)) / standard_error(means)
        hits += bool(t.max() <= simultaneous(means, PROMISED, 500, i))
    assert 0.90 <= hits / studies <= 0.98, hits / studies


# Runs of the Gaussian oracle


class Runs(NamedTuple):
    """Finished samples of many studies, by paired noise: energies (runs, studies, K), spectra (runs, studies, bins)."""

    base: Array
    tuned: Array
    spectrum: Array


STEPS = 20
LEVELS = flow_levels(np.linspace(1, 0, STEPS + 1))
POWER = GaussianField.power_law((1, *GRID), 2.0).variance.ravel() / 2
UPPER = (radius(*GRID) > 0.15).ravel()
TO_BANDS = (BANK.transfer(*GRID) ** 2).reshape(BANK.bands, -1).T
TO_BINS = (radial_bin(BINS, *GRID).ravel()[:, None] == np.arange(BINS)).astype(np.float64)
TABLE = np.linspace(-12, 12, 4000)
GAIN = np.log(final_power(np.exp(TABLE), lambda field: field.path(LEVELS))) / 2


def gain(log_power: Array) -> Array:
    """What Euler's steps make of unit noise, for data of this power (checked against the sampler in test_gaussian)."""
    return np.exp(np.interp(log_power, TABLE, GAIN))


def one_study(rng: np.random.Generator, n: int, seeds: int) -> tuple[Array, Array, Array]:
    mean = rng.standard_normal((n, 1, POWER.size)) * np.sqrt(POWER)
    strength = 0.05 * (1 + 0.5 * rng.standard_normal((n, 1, 1))) * UPPER
    Z = rng.standard_normal((n, seeds, POWER.size))
    base = ((mean + gain(np.log(POWER)) * Z) ** 2).reshape(n * seeds, -1)
    tuned = ((mean * np.exp(strength) + gain(np.log(POWER) + 2 * strength) * Z) ** 2).reshape(n * seeds, -1)
    return base @ TO_BANDS, tuned @ TO_BANDS, base @ TO_BINS


def oracle(n: int, seeds: int, studies: int, seed: int = 0) -> Runs:
    """n prompts with their own mean picture, `seeds` samples each, from 20 Euler steps of a perfect denoiser.

    Tuning strengthens frequencies above 0.15 cycles per pixel, by 10 % on average and differently in each prompt.
    """
    rng = np.random.default_rng(seed)
    return Runs(*(np.stack(part, 1) for part in zip(*(one_study(rng, n, seeds) for _ in range(studies)), strict=True)))


@lru_cache(maxsize=1)
def everything() -> Runs:
    """So many prompts that their means are the truth."""
    return oracle(20000, 2, 1, seed=99)


@slow
@pytest.mark.parametrize("n", PROMPTS)
@pytest.mark.parametrize("of", ["ratios", "means"])
def test_comparisons_of_oracle_cubes_cover(n: int, of: Of) -> None:
    """Bands 1 to 3.  Band 0 hardly changes, by 1e-6, and its few leaked parts are all tail: there 84 % are covered."""
    whole, runs, cluster = everything(), oracle(n, 2, 3000), labels(n, 2)
    for band in (1, 2, 3):
        a, b = whole.tuned[:, 0, band], whole.base[:, 0, band]
        truth = np.log(a / b).mean() if of == "ratios" else np.log(a.mean() / b.mean())
        logs = _logs(runs.tuned[..., band], runs.base[..., band], cluster, of)
        found = covered(logs.parts, cluster, truth - logs.offset, _default("auto", of))
        assert holds(found, 3000), (band, found)


@slow
@pytest.mark.parametrize("n", PROMPTS)
def test_shares_and_slopes_of_oracle_cubes_cover(n: int) -> None:
    whole, runs, cluster = everything(), oracle(n, 2, 3000), labels(n, 2)
    part, truth = (r.base / r.base.sum(-1, keepdims=True) for r in (runs, whole))
    shares = within(mean_interval(part, cluster, PROMISED), 0.0, 1.0)
    for band in range(BANK.bands):
        found = share(Interval(*(x[:, band] for x in shares)), truth[..., band].mean())
        assert holds(found, 3000), (band, found)
    modes = np.maximum(radial_modes(BINS, *GRID), 1)
    alpha, true = (exponents(r.spectrum / modes, slope_weights(BINS, GRID, 0.09, 0.5)) for r in (runs, whole))
    assert holds(covered(alpha, cluster, true.mean()), 3000)


def test_pairing_narrows_every_interval() -> None:
    """The effect differs between prompts, which no pairing removes; where it hardly does, intervals shrink to 1/30."""
    runs, cluster = oracle(8, 2, 50), labels(8, 2)
    paired = mean_interval(np.log(runs.tuned / runs.base), cluster, PROMISED)
    alone = np.sqrt(2) * (lambda x: x.high - x.low)(mean_interval(np.log(runs.base), cluster, PROMISED))
    ratio = np.median(alone / (paired.high - paired.low), axis=0)
    assert (ratio > 1.5).all()
    assert ratio[1] > 30
