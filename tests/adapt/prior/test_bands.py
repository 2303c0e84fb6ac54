"""The choice of bands, on families of latents whose content is known to sit in certain frequencies."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats

from adapt.prior.bands import INEXACT, advantage, candidates, check, choose, gains, inexact
from adapt.prior.parts import number
from adapt.trajectory import Trajectory, log_shares, read_trajectory
from spectra.bands import FilterBank, from_coefficients, radius
from spectra.errors import UserError
from spectra.gaussian import GaussianField
from tests.adapt.prior.worlds import BANK, GRID, cube, cube_of, data_cube, gaussian, straight

HALF_POWER = math.sqrt(math.log(2) / 2) / math.pi  # a Gaussian of scale s has fallen to half at this over s


def ranges(cuts: tuple[float, ...], runs: int = 48, seed: int = 0) -> Trajectory:
    """Fields whose power between the frequencies `cuts` varies from run to run, range by range, and nothing else."""
    draw = np.random.default_rng(seed)
    place = np.digitize(radius(*GRID), cuts)
    modes = np.bincount(place.ravel())
    loudness = np.exp(draw.standard_normal((runs, 1, len(modes))))
    X = 16 * np.sqrt((loudness / modes)[..., place]) * draw.standard_normal((runs, 4, *GRID))
    clean = from_coefficients(torch.from_numpy(X)).numpy()
    return read_trajectory(cube_of(*straight(clean, draw.standard_normal(clean.shape), 6)))


@pytest.mark.parametrize("cuts", [(0.041,), (0.041, 0.083), (0.165, 0.33)])
def test_scales_are_put_between_the_ranges_that_carry_the_content(cuts: tuple[float, ...]) -> None:
    bank, choice = choose([ranges(cuts)])
    fitting = next(score for score in choice.best if len(score.scales) == len(cuts))
    np.testing.assert_allclose(sorted(HALF_POWER / np.array(fitting.scales)), cuts, rtol=0.03)
    assert choice.reason == "better"
    assert bank.scales == max(choice.best, key=lambda score: score.total.value).scales
    assert choice.gain is not None
    assert choice.gain.low is not None
    assert choice.gain.low > 0
    assert choice.chosen is not None
    assert choice.default is not None
    assert choice.chosen.total.value > choice.default.total.value
    assert choice.default.scales == FilterBank.octaves(4, GRID).scales


def test_the_octaves_stay_where_no_choice_beats_them_beyond_doubt() -> None:
    path = read_trajectory(cube_of(*gaussian(8, 6, seed=30)))
    bank, choice = choose([path])
    assert bank == FilterBank.octaves(4, GRID)
    assert choice.reason == "kept"
    assert choice.chosen == choice.default
    assert choice.gain is not None
    assert choice.gain.low is not None
    assert choice.gain.low <= 0


def test_a_choice_is_judged_by_units_that_had_no_say() -> None:
    totals = [np.random.default_rng(i).standard_normal((9, n)) for i, n in enumerate((7, 11))]
    won: list[list[float]] = [[], []]
    for i, total in enumerate(totals):
        for p in range(total.shape[1]):
            others = [np.delete(other, p, axis=1) if j == i else other for j, other in enumerate(totals)]
            best = np.mean([other.mean(1) for other in others], axis=0).argmax()
            won[i].append(total[best, p] - total[2, p])
    assert advantage(2, totals).value == pytest.approx(np.mean([np.mean(one) for one in won]), rel=1e-6)


def test_among_equals_a_choice_seldom_seems_to_win() -> None:
    """The winner's curse is gone: picking the best of 40 equal banks gains nothing on average."""
    found = [advantage(0, [np.random.default_rng(i).standard_normal((40, 12))]) for i in range(300)]
    assert abs(np.mean([one.value for one in found])) < 0.08
    assert np.mean([one.low is not None and one.low > 0 for one in found]) < 0.1


def test_intervals_are_students_and_with_two_sources_welchs() -> None:
    a, b = (np.random.default_rng(i).normal(size=n) for i, n in ((0, 9), (1, 14)))
    low, high = stats.t.interval(0.95, 8, a.mean(), a.std(ddof=1) / 3)
    assert [number([a]).low, number([a]).high] == pytest.approx([low, high], rel=1e-5)
    ends = stats.ttest_ind(a, -b, equal_var=False).confidence_interval()
    both = number([a, b])
    assert both.value == pytest.approx((a.mean() + b.mean()) / 2, rel=1e-6)
    assert [both.low, both.high] == pytest.approx([ends.low / 2, ends.high / 2], rel=1e-5)
    assert number([np.array([1.5])]).low is None


def test_candidates_are_octaves_apart_and_hold_the_default_ones() -> None:
    for grid in (GRID, (64, 64), (96, 128)):
        banks = list(candidates(grid))
        assert len(set(banks)) == len(banks)
        assert FilterBank.octaves(4, grid) in banks
        assert {bank.bands for bank in banks} == {2, 3, 4}
        for bank in banks:
            assert all(b / a > 1.99 for a, b in pairwise(bank.scales))
            assert 0.499 < bank.scales[0] <= bank.scales[-1] <= 0.4 * min(grid) * 1.001


def test_energies_of_other_bands_are_as_exact_as_is_said() -> None:
    level, x = gaussian(12, 5)
    path = read_trajectory(cube_of(level, x))
    for scales in ((1.131371,), (0.565685, 2.262742), (0.8, 3.2)):
        bank = FilterBank(scales)
        truth = bank.energies(torch.from_numpy(x[:, :-1])).numpy().sum(2)
        estimate, low, high = path.rebanded(bank)
        assert (low <= truth * (1 + 1e-6)).all()
        assert (truth <= high * (1 + 1e-6)).all()
        wrong = np.abs(estimate.mean(0) - truth.mean(0)) / estimate.mean(0)
        assert 0 < wrong.max() <= inexact(path, bank) < INEXACT
    assert inexact(path, BANK) == 0
    error = log_shares(path.recorded) - log_shares(path.rebanded(BANK).value)
    assert check(path) == pytest.approx(np.sqrt(np.mean(error**2, (0, 1))).max())
    assert 0 < check(path) < 0.05


def test_shares_of_natural_spectra_are_far_closer_than_their_bounds() -> None:
    grid = (64, 64)
    clean = GaussianField.power_law((4, *grid), 2.0).sample(6, 0)
    level, x = straight(clean, np.random.default_rng(1).standard_normal(clean.shape), 4)
    path, x = read_trajectory(cube_of(level, x, FilterBank.octaves(4, grid))), x[:, :-1]
    for scales in ((0.8,), (3.2,), (6.4,), (12.8,), (1.6, 6.4), (3.2, 12.8), (1.6, 3.2, 6.4)):
        bank = FilterBank(scales)
        truth = log_shares(bank.energies(torch.from_numpy(x)).numpy().sum(2))
        assert inexact(path, bank) < INEXACT
        assert np.abs((log_shares(path.rebanded(bank).value) - truth).mean(0)).max() < 0.06
    assert inexact(path, FilterBank((25.6,))) > INEXACT


def test_bands_whose_energies_the_spectrum_does_not_tell_are_set_aside_or_refused() -> None:
    blurred = cube_of(*gaussian(12, 5))
    radius, S = blurred.radius.values.reshape(4, 16).mean(1), blurred.spectrum.values
    coarse = blurred.drop_vars(["spectrum", "radius"]).assign(
        spectrum=(("run", "step", "signal", "radius"), S.reshape(*S.shape[:-1], 4, 16).sum(-1)))  # fmt: skip
    path = read_trajectory(coarse.assign_coords(radius=radius))
    bank, choice = choose([path])
    assert bank == BANK  # the recorded bands are exact whatever the spectrum
    assert choice.set_aside > 20
    with pytest.raises(UserError, match="radial bins"):
        choose([path], scales=(3.2,))


def test_bands_that_are_asked_for_are_taken_and_compared() -> None:
    path = read_trajectory(cube())
    bank, choice = choose([path], scales=(1.0, 3.0))
    assert bank.scales == (1.0, 3.0)
    assert (choice.reason, choice.gain) == ("asked", None)
    assert choice.chosen is not None
    assert choice.default is not None
    assert choice.default.scales == FilterBank.octaves(4, GRID).scales


@pytest.mark.parametrize("bands", [2, 3, 4, 6])
def test_a_number_of_bands_means_octaves_as_without_a_prior(bands: int) -> None:
    bank, choice = choose([read_trajectory(cube())], bands=bands)
    assert bank == FilterBank.octaves(bands, GRID)
    assert (choice.reason, choice.gain) == ("asked", None)
    assert choice.chosen is not None
    assert choice.chosen.scales == bank.scales


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"bands": 3, "scales": (1.0,)}, "1 scales make 2 bands, not 3"),
        ({"bands": 1}, "at least 2 bands"),
        ({"bands": 0}, "at least 1 band"),
        ({"bands": 2.5}, "whole"),
        ({"scales": ()}, "at least 2 bands"),
        ({"scales": (0.1, 1.0)}, "empty on 16 x 16"),
        ({"scales": (1.0, 1.0)}, "distinct"),
    ],
)
def test_impossible_bands_are_refused(asked: dict[str, tuple[float, ...]], words: str) -> None:
    with pytest.raises(UserError, match=words):
        choose([read_trajectory(cube())], **asked)  # type: ignore[arg-type]


def test_with_few_runs_the_octaves_stay_unscored() -> None:
    bank, choice = choose([read_trajectory(cube().isel(run=slice(3)))])
    assert bank == FilterBank.octaves(4, GRID)
    assert (choice.reason, choice.chosen, choice.gain, choice.best) == ("few", None, None, ())


def test_generation_and_data_count_equally() -> None:
    paths = [read_trajectory(cube()), read_trajectory(data_cube())]
    _, choice = choose(paths, scales=BANK.scales)
    means = [(one.level + one.content).mean() for one in (gains(path, BANK) for path in paths)]
    assert choice.chosen is not None
    assert choice.chosen.total.value == pytest.approx(np.mean(means), rel=1e-6)
    assert choice.unit == "prompts and pictures"


def test_many_runs_are_thinned_evenly_for_the_choice() -> None:
    path = read_trajectory(cube())
    some = path.thinned(5)
    assert some.runs == len(some.unit) == 5
    np.testing.assert_array_equal(some.recorded, path.recorded[[0, 6, 12, 17, 23]])
