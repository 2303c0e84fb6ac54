from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import spectra
from spectra.bands import coherence, radial_spectrum
from spectra.recording.meter import Meter, Plan, States, keeps_coherence
from spectra.signals import Level, Schedule, clean_and_noise
from spectra.temporal import temporal_energies

BANK = spectra.FilterBank((0.8, 1.6))
SIGNALS = ("latent", "x0", "eps", "prediction", "cond", "uncond", "guidance")
LEVELS = [Level(9.0, 0.6, 0.8), Level(5.0, 0.8, 0.6), Level(1.0, 0.0, 1.0)]


def schedule(kind: str = "epsilon") -> Schedule:
    return Schedule("vp", lambda timestep, index: LEVELS[0], Level(0.0, 1.0, 0.0), kind)


def states(*shape: int) -> States:
    generator = torch.Generator().manual_seed(0)
    x, out, cond, uncond = torch.randn(4, 3, *shape, generator=generator)
    return States(x, out, LEVELS, cond, uncond)


def part(whole: States, start: int, stop: int) -> States:
    return States(*(one[start:stop] for one in whole))  # type: ignore[misc]


@pytest.mark.parametrize("shape", [(2, 3, 8, 6), (2, 3, 4, 8, 6)])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_coefficients_give_the_numbers_that_the_fields_give(kind: str, shape: tuple[int, ...]) -> None:
    meter, given, final = Meter(Plan(BANK, 5, SIGNALS), schedule(kind), True), states(*shape), torch.randn(shape)
    meter.measure(given)
    measured = meter.finish(final)
    for i, level in enumerate(LEVELS):
        clean, noise = clean_and_noise(given.x[i], given.out[i], level, schedule(kind))
        assert given.cond is not None
        assert given.uncond is not None
        fields = (
            given.x[i],
            clean,
            noise,
            given.out[i],
            given.cond[i],
            given.uncond[i],
            given.cond[i] - given.uncond[i],
        )
        for j, field in enumerate(fields):
            expected = BANK.energies(field).transpose(1, 2) if len(shape) == 5 else BANK.energies(field)
            np.testing.assert_allclose(measured.energy[:, i, j], expected, rtol=1e-3, atol=1e-5)
            spectrum = radial_spectrum(field, 5).flatten(1, -2).sum(1)
            np.testing.assert_allclose(measured.spectrum[:, i, j], spectrum, rtol=1e-3, atol=1e-5)
        cosine = coherence(clean.flatten(1, -3), final.flatten(1, -3), BANK)
        np.testing.assert_allclose(measured.coherence[:, i], cosine, atol=1e-4)
    expected = BANK.energies(final).transpose(1, 2) if len(shape) == 5 else BANK.energies(final)
    np.testing.assert_allclose(measured.energy[:, 3, 0], expected, rtol=1e-4)
    assert measured.agreement is not None
    for last in (measured.energy[:, 3, 1:], measured.coherence[:, 3], measured.agreement[:, 3]):
        assert np.isnan(last).all()


def test_one_call_at_a_time_gives_the_same_as_all_at_once() -> None:
    whole, pieces = (Meter(Plan(BANK, 5, SIGNALS), schedule(), True) for _ in range(2))
    given, final = states(2, 3, 8, 6), torch.ones(2, 3, 8, 6)
    whole.measure(given)
    for start, stop in ((0, 1), (1, 3)):
        pieces.measure(part(given, start, stop))
    for one, two in zip(whole.finish(final)[:4], pieces.finish(final)[:4], strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5)


def test_calls_without_a_split_are_nan_beside_others() -> None:
    meter, given = Meter(Plan(BANK, 5, SIGNALS), schedule(), False), states(1, 2, 8, 8)
    meter.measure(part(given, 0, 2)._replace(cond=None, uncond=None))
    meter.measure(part(given, 2, 3))
    measured = meter.finish(torch.ones(1, 2, 8, 8))
    assert np.isnan(measured.energy[:, :2, 4:]).all()
    assert np.isfinite(measured.energy[:, 2, 4:]).all()
    assert measured.agreement is not None
    assert np.isnan(measured.agreement[:, :2]).all()


def test_a_level_that_does_not_determine_a_clean_sample_leaves_the_others_alone() -> None:
    meter = Meter(Plan(BANK, 5, ("latent", "x0", "eps")), schedule(), True)
    meter.measure(states(1, 2, 8, 8))
    measured = meter.finish(torch.ones(1, 2, 8, 8))
    assert np.isnan(measured.energy[:, 2, 1]).all()  # no signal in the state: x0 is not determined
    assert np.isfinite(measured.energy[:, 2, [0, 2]]).all()
    assert np.isnan(measured.coherence[:, 2]).all()


def test_predictions_that_are_not_finite_do_not_reach_the_latents() -> None:
    meter, given = Meter(Plan(BANK, 5, ("latent", "x0")), schedule(), True), states(1, 2, 8, 8)
    given.out[1] = math.nan
    meter.measure(given)
    measured = meter.finish(torch.ones(1, 2, 8, 8))
    assert np.isfinite(measured.energy[:, :, 0]).all()
    assert np.isnan(measured.energy[:, 1, 1]).all()


@pytest.mark.parametrize("skip", [0, 1])
def test_temporal_bands_are_those_of_each_signal(skip: int) -> None:
    time = spectra.FilterBank((1.0,))
    plan = Plan(BANK, 5, SIGNALS, temporal=time, skip=skip)
    meter, given, final = Meter(plan, schedule("v_prediction"), True), states(2, 3, 5, 8, 6), torch.randn(2, 3, 5, 8, 6)
    meter.measure(part(given, 0, 2))
    meter.measure(part(given, 2, 3))
    temporal = meter.finish(final).temporal
    assert temporal is not None
    assert temporal.shape == (2, 4, len(SIGNALS), 2, 3)
    clean, _ = clean_and_noise(given.x[1], given.out[1], LEVELS[1], schedule("v_prediction"))
    assert given.cond is not None
    assert given.uncond is not None
    for signal, field in (("latent", given.x[1]), ("x0", clean), ("guidance", given.cond[1] - given.uncond[1])):
        expected = temporal_energies(field, time, BANK, skip=skip)
        np.testing.assert_allclose(temporal[:, 1, SIGNALS.index(signal)], expected, rtol=1e-4)
    np.testing.assert_allclose(temporal[:, 3, 0], temporal_energies(final, time, BANK, skip=skip), rtol=1e-4)
    assert np.isnan(temporal[:, 3, 1:]).all()


def test_memory_decides_over_coherence() -> None:
    assert keeps_coherence((8, 4, 16, 16), 30, ("latent", "x0"), 4 * 4 * 16 * 16 * 30)
    assert not keeps_coherence((8, 4, 16, 16), 30, ("latent", "x0"), 4 * 4 * 16 * 16 * 30 - 1)
    assert not keeps_coherence((8, 4, 16, 16), 30, ("latent",))
