"""Explained log-odds against closed forms and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from adapt.prior.information import (
    FOLDS,
    PSEUDO,
    RESOLUTION,
    content_gain,
    content_of,
    folds_of,
    level_gain,
    log_posterior,
    log_ratios,
    log_rings,
    part_probability,
)
from spectra.radial import radial_bin, radius

DRAW = np.random.default_rng(0)


def apart(runs: int, steps: int, gap: float, seed: int = 0) -> np.ndarray:
    """Features of one dimension, unit variance, whose mean moves by `gap` per step: (runs, steps, 1)."""
    return np.random.default_rng(seed).standard_normal((runs, steps, 1)) + gap * np.arange(steps)[:, None]


def test_a_unit_is_never_in_two_folds_and_folds_are_alike() -> None:
    unit = tuple(f"p{i // 3}" for i in range(75))
    folds = folds_of(unit)
    assert len({(name, fold) for name, fold in zip(unit, folds, strict=True)}) == 25
    assert np.bincount(folds).tolist() == [9, 9, 9, 9, 9, 6, 6, 6, 6, 6]
    assert len(np.bincount(folds)) == FOLDS


def test_log_ratios_are_isometric_and_blind_to_scale() -> None:
    energy = DRAW.gamma(2.0, size=(7, 4))
    x, other = log_ratios(energy), log_ratios(energy[::-1])
    centred = np.log(energy) - np.log(energy).mean(1, keepdims=True)
    np.testing.assert_allclose(x, log_ratios(13 * energy), atol=1e-12)
    np.testing.assert_allclose(((x - other) ** 2).sum(1), ((centred - centred[::-1]) ** 2).sum(1), rtol=1e-10)
    assert x.shape == (7, 3)


def test_two_levels_apart_hold_the_closed_form_information() -> None:
    """Mutual information of a fair bit and a unit normal whose mean it moves by g, by numerical integration."""
    gap = 2.0
    at = np.linspace(-8, 10, 20_001)
    p, q = norm.pdf(at), norm.pdf(at - gap)
    exact = np.trapezoid(0.5 * p * np.log(2 * p / (p + q)) + 0.5 * q * np.log(2 * q / (p + q)), at)
    x = apart(4000, 2, gap)
    found = level_gain(log_posterior(x, np.arange(4000) % 10), np.array([-1.0, 1.0]))
    assert found.mean() == pytest.approx(exact, abs=3 * found.std() / math.sqrt(4000) + 0.003)


def test_levels_that_features_do_not_tell_hold_nothing_and_clear_ones_everything() -> None:
    folds = np.arange(400) % 10
    nothing = level_gain(log_posterior(apart(400, 5, 0.0), folds), np.arange(5.0))
    everything = level_gain(log_posterior(apart(400, 5, 50.0), folds), np.arange(5.0))
    assert -0.03 < nothing.mean() < 0.005  # held out, so what is not there is not found
    np.testing.assert_allclose(everything, math.log(5), atol=1e-9)


def test_steps_of_one_noise_level_need_not_be_told_apart() -> None:
    x = np.repeat(apart(200, 3, 50.0), 2, axis=1) + 1e-3 * DRAW.standard_normal((200, 6, 1))
    found = level_gain(log_posterior(x, np.arange(200) % 10), np.repeat([1.0, 2.0, 3.0], 2))
    np.testing.assert_allclose(found, math.log(3), atol=1e-6)


def test_the_posterior_is_that_of_gaussians_fitted_without_the_unit() -> None:
    x, folds = DRAW.standard_normal((12, 3, 2)) * [1.0, 2.0], np.arange(12) % 4
    found = log_posterior(x, folds)
    train = x[folds != 1]
    own = np.stack([np.cov(train[:, s].T) for s in range(3)])
    shrunk = (8 * own + PSEUDO * own.mean(0)) / (8 + PSEUDO) + RESOLUTION**2 * np.eye(2)
    logs = np.array([multivariate_normal(train[:, s].mean(0), shrunk[s]).logpdf(x[1]) for s in range(3)]).T
    np.testing.assert_allclose(found[1], logs - np.logaddexp.reduce(logs, -1, keepdims=True), atol=1e-9)


def test_the_probability_of_a_part_sums_its_steps() -> None:
    posterior = log_posterior(apart(50, 6, 1.0), np.arange(50) % 10)
    part = np.array([0, 0, 0, 1, 1, 1])
    p = np.exp(posterior)
    by_hand = np.concatenate([p[:, :3, :3].sum(2), p[:, 3:, 3:].sum(2)], axis=1).mean(1)
    np.testing.assert_allclose(part_probability(posterior, part), by_hand)
    np.testing.assert_allclose(part_probability(posterior, np.zeros(6, np.int64)), 1)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_content_that_a_feature_tells_to_a_correlation_holds_its_gaussian_information(rho: float) -> None:
    n = 6000
    content = np.random.default_rng(1).standard_normal((n, 1))
    noise = np.random.default_rng(2).standard_normal((n, 2, 1))
    x = rho * content[:, None] + math.sqrt(1 - rho**2) * noise
    found = content_gain(x, content, np.arange(n) % 10)
    assert found.mean() == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.03)


def test_noise_features_do_not_find_content_in_few_runs() -> None:
    gains = [
        content_gain(np.random.default_rng(i).standard_normal((24, 5, 3)), np.random.default_rng(99 + i)
                     .standard_normal((24, 2)), np.arange(24) % 8).mean()
        for i in range(20)
    ]  # fmt: skip
    assert np.mean(gains) < 0


@pytest.mark.parametrize("runs", [4, 5, 6, 9])
def test_few_runs_claim_little_and_lose_little(runs: int) -> None:
    """Three features and a constant pass through three or four runs: such a fit must not be taken for a sure one."""
    drawn = [np.random.default_rng(i).standard_normal((runs, 4, 5)) for i in range(40)]
    gains = np.array([content_gain(x[:, :, :3], x[:, 0, 3:], np.arange(runs)) for x in drawn])
    assert -8 < np.median(gains) < 0.5
    assert gains.mean() > -10


def test_the_error_of_a_prediction_is_that_of_regression() -> None:
    """Against the textbook's prediction variance: s^2 (1 + 1 / n + leverage), and s^2 (1 + 1 / n) without features."""
    n, draw = 400, np.random.default_rng(3)
    x, noise = draw.standard_normal((n, 1, 2)), draw.standard_normal(n)
    content = (x[:, 0] @ [0.8, -0.3] + 0.5 * noise)[:, None]
    found = content_gain(x, content, np.arange(n) % 2)
    train, held = np.arange(n) % 2 != 0, np.arange(n) % 2 == 0
    X = np.column_stack([np.ones(n), x[:, 0]])
    slope, (rest,), *_ = np.linalg.lstsq(X[train], content[train, 0], rcond=None)
    lever = np.einsum("nd,de,ne->n", X[held], np.linalg.inv(X[train].T @ X[train]), X[held])
    own = norm(X[held] @ slope, np.sqrt(rest / (train.sum() - 3) * (1 + lever))).logpdf(content[held, 0])
    plain = content[train, 0]
    blind = norm(plain.mean(), plain.std(ddof=1) * np.sqrt(1 + 1 / train.sum())).logpdf(content[held, 0])
    np.testing.assert_allclose(found[held], own - blind, atol=0.05)


def test_differences_below_the_resolution_do_not_count() -> None:
    content = DRAW.standard_normal((200, 1))
    faint = 1e-4 * content[:, None] * np.ones((1, 2, 1))
    loud = 1.0 * content[:, None] * np.ones((1, 2, 1))
    folds = np.arange(200) % 10
    assert content_gain(faint, content, folds).mean() < 0.01
    assert content_gain(loud, content, folds).mean() > 3


def test_rings_add_up_the_spectrum_by_octaves() -> None:
    spectrum = DRAW.gamma(2.0, size=(3, 64)) * (np.bincount(radial_bin(64, 16, 16).ravel(), minlength=64) > 0)
    rings = np.exp(log_rings(spectrum, (16, 16)))
    np.testing.assert_allclose(rings.sum(1), spectrum.sum(1))
    top = (np.arange(64) + 0.5) / 64 * radius(16, 16).max()
    np.testing.assert_allclose(rings[:, -1], spectrum[:, top > top[-1] / 2].sum(1))
    np.testing.assert_allclose(rings[:, 0], spectrum[:, 0])


def test_the_content_is_how_finished_samples_differ_and_nothing_where_they_do_not() -> None:
    size = np.exp(DRAW.standard_normal(40))
    spectrum = np.ones((40, 64))
    spectrum[:, 40:] *= size[:, None]  # one way to differ: the top octave
    content = content_of(spectrum, (16, 16), np.arange(40) % 10)
    assert content.shape == (40, 1)
    assert abs(np.corrcoef(content[:, 0], np.log(spectrum[:, 33:].sum(1)))[0, 1]) > 0.99
    assert content.std() == pytest.approx(1.0)
    assert content_of(np.ones((40, 64)), (16, 16), np.arange(40) % 10).shape == (40, 0)
