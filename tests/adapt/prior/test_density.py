"""The training noise levels of a prior: closed forms, the floor, and what the sampler makes of them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from adapt.objectives import objective_of
from adapt.prior import Prior
from adapt.prior.density import FLOOR, LIMIT, density, emerged, emergence, relative, training_range
from adapt.sampling import density as sampled
from adapt.sampling import from_prior
from adapt.trajectory import Trajectory, read_trajectory
from spectra.bands import FilterBank
from spectra.errors import UserError
from spectra.gaussian import GaussianField
from tests.adapt.prior.worlds import BANK, CHANNELS, FLOW, GRID, cube, cube_of, data_cube, gaussian, straight, usual

SCHEDULER = FlowMatchEulerDiscreteScheduler(shift=1.0)


@pytest.fixture(scope="module")
def path() -> Trajectory:
    return read_trajectory(cube_of(*gaussian(64, 6)))


def diffusion(levels: int) -> tuple[Trajectory, DDIMScheduler]:
    """A trajectory at evenly spread levels of a denoiser's training, which does not say its scheduler."""
    scheduler = DDIMScheduler()
    t = np.linspace(1000, 0, levels + 1)[:-1].round().astype(int) - 1
    a2 = scheduler.alphas_cumprod.double().numpy()[t]
    base = read_trajectory(cube_of(*gaussian(4, levels)))
    return replace(
        base, timestep=t.astype(float), log_snr=np.log(a2 / (1 - a2)), noise_level=np.sqrt(1 - a2), scheduler={}
    ), scheduler


def test_a_band_emerges_where_its_signal_is_as_strong_as_the_noise(path: Trajectory) -> None:
    expected = GaussianField.power_law((CHANNELS, *GRID), 2.0).expected(BANK, "latent", 1.0, 0.0).sum(0)
    noise = CHANNELS * (BANK.transfer(*GRID) ** 2).sum((1, 2))
    np.testing.assert_allclose(emergence(path, BANK), np.log(noise / expected), atol=0.25)  # one standard error is 0.06
    assert (np.diff(emergence(path, BANK)) > 0).all()  # power falls with frequency, so bands emerge from low to high


def test_emergence_is_the_energy_that_wieners_filter_tells() -> None:
    """In a band of constant power S / N = r, E||best guess||^2 / E||band||^2 is R; summed over bands and normalised."""
    at, level = np.array([-2.0, 0.5]), np.linspace(10, -10, 201)
    a2 = 1 / (1 + np.exp(-level))
    told = sum(a2 * np.exp(-m) / (a2 * np.exp(-m) + 1 - a2) for m in at)
    np.testing.assert_allclose(emerged([at], level), (told[0] - told) / (told[0] - told[-1]), atol=1e-12)
    both = emerged([at, at + 3], level)
    apart = 0.5 * (emerged([at], level) + emerged([at + 3], level))
    np.testing.assert_allclose(both, apart, atol=2e-3)


def test_the_density_is_the_floor_and_the_rate_at_which_bands_emerge(path: Trajectory) -> None:
    values, found = density([path], BANK)
    q = (np.arange(50) + 0.5) / 50
    level = 2 * np.log((1 - q) / q)  # a flow without a shift
    rate = sum(1 / (4 * np.cosh((level - m) / 2) ** 2) for m in found.emergence[0]) * 2 / (q * (1 - q))
    expected = FLOOR + (1 - FLOOR) * rate / rate.mean()
    sampler = from_prior(_prior_with(values), objective_of(SCHEDULER))
    measured = sampled(sampler, torch.linspace(0, 1, 51, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(measured[2:-2], expected[2:-2], rtol=0.06)
    assert measured.mean() == pytest.approx(1.0, abs=1e-3)


def _prior_with(values: tuple[float, ...]) -> Prior:
    return replace(usual(), timestep_log_snr=values)


def test_no_level_is_starved(path: Trajectory) -> None:
    steep = read_trajectory(cube_of(*_faint()))
    for one in (path, steep):
        values, found = density([one], BANK)
        sampler = from_prior(_prior_with(values), objective_of(SCHEDULER))
        assert sampled(sampler, torch.linspace(0, 1, 21, dtype=torch.float64)).min() > FLOOR - 0.01
        assert found.floor == FLOOR


def _faint() -> tuple[np.ndarray, np.ndarray]:
    """Latents so faint that all bands emerge close to the clean end."""
    field = GaussianField.power_law((CHANNELS, *GRID), 2.0)
    return straight(0.02 * field.sample(8, 0), np.random.default_rng(1).standard_normal((8, CHANNELS, *GRID)), 6)


def test_the_values_fall_from_clean_to_noisy_over_the_whole_training_range(path: Trajectory) -> None:
    values, found = density([path], BANK)
    assert len(values) == 64
    assert (np.diff(values) < 0).all()
    assert (values[0], values[-1]) == (found.log_snr[0], found.log_snr[-1])
    assert max(abs(values[0]), abs(values[-1])) <= LIMIT


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_range_is_that_of_the_recorded_scheduler(path: Trajectory, shift: float) -> None:
    levels = training_range(replace(path, scheduler={**FLOW, "shift": shift}))
    q = (np.arange(1000) + 0.5) / 1000
    sigma = shift * q / (1 + (shift - 1) * q)
    np.testing.assert_allclose(levels.timestep, 1000 * sigma, rtol=1e-6)
    np.testing.assert_allclose(levels.log_snr, 2 * np.log((1 - sigma) / sigma), rtol=1e-5, atol=1e-5)
    assert levels.table == "schedule"


def test_without_a_scheduler_the_range_is_read_between_the_probed_levels() -> None:
    probed, scheduler = diffusion(20)
    guessed = training_range(probed)
    known = training_range(replace(probed, scheduler={**dict(scheduler.config), "class": "DDIMScheduler"}))
    assert (guessed.table, known.table) == ("levels", "schedule")
    wrong = np.abs(guessed.log_snr - np.interp(guessed.timestep, known.timestep, known.log_snr))
    assert wrong[50:].max() < 0.05
    assert wrong[5:50].max() < 0.8  # below the cleanest level that was probed


@pytest.mark.parametrize("scheduler", [
    {}, {"class": "forward"}, {"class": "Nothing"}, {"class": "AutoencoderKL"}, {"class": "EDMEulerScheduler"},
    {"class": "DDIMScheduler", "beta_end": "x"},
])  # fmt: skip
def test_only_a_scheduler_that_can_be_trained_with_is_taken_at_its_word(scheduler: dict[str, str]) -> None:
    assert training_range(replace(diffusion(8)[0], scheduler=scheduler)).table == "levels"


def test_a_cube_whose_timesteps_say_nothing_is_refused(path: Trajectory) -> None:
    with pytest.raises(UserError, match="timesteps"):
        training_range(replace(path, timestep=path.timestep[::-1], scheduler={"class": "forward"}))
    with pytest.raises(UserError, match="timesteps"):
        training_range(replace(path, timestep=np.zeros(6), scheduler={}))


def test_what_is_said_of_the_middle_half_is_counted(path: Trajectory) -> None:
    found = density([path], BANK)[1]
    high, low = found.middle
    share = np.diff(emerged([np.array(m) for m in found.emergence], np.array([LIMIT, high, low, -LIMIT])))
    np.testing.assert_allclose(share, [0.25, 0.5, 0.25], atol=2e-3)
    sigma = 1 / (1 + np.exp(np.array(found.middle) / 2))
    assert found.uniform == pytest.approx(sigma[1] - sigma[0], abs=2e-3)
    assert found.given == pytest.approx(FLOOR * found.uniform + (1 - FLOOR) * 0.5, abs=2e-3)
    assert found.visited == pytest.approx(np.mean((path.noise_level >= sigma[0]) & (path.noise_level <= sigma[1])))


def test_the_drawn_density_is_relative_to_uniform_training(path: Trajectory) -> None:
    values, found = density([path], BANK)
    timestep, height = relative(values, found)
    assert height.mean() == pytest.approx(1.0)
    assert height.min() >= FLOOR - 0.02
    assert (np.diff(timestep) > 0).all()
    expected = sampled(from_prior(_prior_with(values), objective_of(SCHEDULER)), torch.linspace(0, 1, 65).double())
    np.testing.assert_allclose(height, expected, rtol=0.15)


def test_generation_and_data_both_say_where_bands_emerge() -> None:
    one, two = read_trajectory(cube()), read_trajectory(data_cube())
    values, found = density([one, two], BANK)
    assert len(found.emergence) == 2
    np.testing.assert_allclose(found.emergence[1], emergence(two, BANK), rtol=1e-5)
    assert values != density([one], BANK)[0]
    assert json.loads(json.dumps(found.emergence))


def test_bands_of_any_bank_emerge_where_their_own_energies_say(path: Trajectory) -> None:
    x = gaussian(64, 6)[1]
    for one in (FilterBank((1.0,)), BANK):
        clean = one.energies(torch.from_numpy(x[:, -1])).numpy().sum(1).mean(0)
        noise = CHANNELS * (one.transfer(*GRID) ** 2).sum((1, 2))
        np.testing.assert_allclose(emergence(path, one), np.log(noise / clean), atol=1e-6 if one == BANK else 0.02)
