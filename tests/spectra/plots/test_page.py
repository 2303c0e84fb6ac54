"""The figure of a cube: says what is true, says what is missing, and can be read."""

import pickle
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import LineCollection, PolyCollection

from spectra.analysis import DECIDED, coherence, emergence, mean_over_prompts
from spectra.bands import FilterBank, radial_modes
from spectra.errors import UserError
from spectra.plots import apart, band_colours, band_labels, energy_per_mode, multiples, overview, save
from tests.spectra.plots.reading import boxes, refuse_collisions, words
from tests.spectra.synthetic import synthetic_cube


@pytest.fixture(scope="module")
def cube() -> xr.Dataset:
    return synthetic_cube(prompts=3, seeds=2, steps=24)


def test_figures_need_neither_pyplot_nor_torch_and_leave_settings_alone() -> None:
    code = """
import sys, pickle, matplotlib
before = dict(matplotlib.rcParams)
cube = pickle.load(sys.stdin.buffer)
from spectra.plots import overview
overview(cube)
assert dict(matplotlib.rcParams) == before
assert "matplotlib.pyplot" not in sys.modules and "torch" not in sys.modules
"""
    given = pickle.dumps(synthetic_cube(prompts=2, seeds=1, steps=4))
    assert subprocess.run([sys.executable, "-c", code], input=given, check=False).returncode == 0


@pytest.mark.parametrize("bands", [2, 4, 7])
def test_no_word_leaves_the_page_or_covers_another(bands: int) -> None:
    figure = overview(synthetic_cube(prompts=3, seeds=1, steps=24, bank=FilterBank.octaves(bands, (16, 16))))
    assert len(boxes(figure)) > 30
    refuse_collisions(figure)


def test_the_steps_shown_are_those_of_emergence(cube: xr.Dataset) -> None:
    shown = words(overview(cube))
    for label, step in zip(band_labels(cube), emergence(cube).step.values, strict=True):
        assert f"{label}   {step:.0f}" in shown


def test_the_headline_claims_an_order_only_where_there_is_one(cube: xr.Dataset) -> None:
    claim = "Bands are decided from low to high"
    assert claim in words(overview(cube))
    backwards = cube.assign(coherence=cube.coherence.isel(band=slice(None, None, -1)).drop_vars("band"))
    together = cube.assign(coherence=cube.coherence.isel(band=[0, 0, 0, 0]).drop_vars("band"))
    for other in (backwards, together, cube.isel(run=[0])):
        assert claim not in words(overview(other))


def test_bands_never_decided_are_said_to_come_later(cube: xr.Dataset) -> None:
    assert words(overview(cube.assign(coherence=cube.coherence * 0.5))).count("later") == 4


def several_calls(cube: xr.Dataset, steps: list[int]) -> xr.Dataset:
    return cube.assign_coords(step=("step", steps))


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([*(i // 2 for i in range(9)), 5], "5 steps (9 calls)"),  # Heun's method
        ([*(i // 4 for i in range(8)), 2, 3], "3 steps (9 calls)"),  # PNDM's warm-up
    ],
)
def test_dots_are_at_the_call_that_decides_where_a_step_has_several(steps: list[int], said: str) -> None:
    cube = several_calls(synthetic_cube(prompts=3, seeds=2, steps=9), steps)
    figure, found = overview(cube), emergence(cube)
    coherent, decided = figure.axes[:2]
    mean = mean_over_prompts(coherence(cube)).value.transpose("step", "band").values
    for ax, height in ((coherent, lambda call, band: mean[call, band]), (decided, lambda call, band: band)):
        dots = {tuple(map(float, np.ravel(line.get_xydata()))) for line in ax.lines if line.get_marker() == "o"}
        assert dots == {
            (call, float(height(int(call), band))) for band, call in enumerate(found.call.values) if np.isfinite(call)
        }
    assert all(line.get_ydata()[0] >= DECIDED for line in coherent.lines if line.get_marker() == "o")
    for label, step in zip(band_labels(cube), found.step.values, strict=True):
        assert f"{label}   {step:.0f}" in words(figure)
    assert said in words(figure)
    refuse_collisions(figure)


def test_large_noise_levels_are_written_out(cube: xr.Dataset) -> None:
    shown = words(overview(cube.assign_coords(noise_level=cube.noise_level * 156.4)))
    assert "0\n156" in shown
    assert "e+" not in shown


def test_what_a_ribbon_would_say_is_not_said_of_a_single_run(cube: xr.Dataset) -> None:
    said = [words(overview(cube.isel(run=runs))) for runs in ([0], [0, 1], [0, 2])]
    assert ["mean" in one for one in said] == [False, True, True]
    assert ["95 % over runs" in one for one in said] == [False, True, False]
    assert ["each prompt (thin)" in one for one in said] == [False, False, True]
    assert ["intervals need more prompts" in one for one in said] == [False, True, True]
    assert "95 % interval over prompts" in words(overview(synthetic_cube(prompts=4, seeds=1, steps=4)))


@pytest.mark.parametrize("prompts", [1, 2, 3, 4])
def test_few_prompts_are_thin_lines_around_the_mean_coherence(prompts: int) -> None:
    cube = synthetic_cube(prompts, seeds=2, steps=6)
    found = overview(cube).axes[0].collections
    thin = [part for part in found if isinstance(part, LineCollection)]
    assert [len(part.get_segments()) for part in thin] == ([max(prompts, 2)] * 4 if prompts < 4 else [])
    assert sum(isinstance(part, PolyCollection) for part in found) == (0 if prompts < 4 else 4)
    if prompts == 3:
        mean = cube.coherence.groupby("prompt").mean().isel(band=0).values[:, :-1]
        np.testing.assert_allclose([path[:, 1] for path in thin[0].get_segments()], mean, rtol=1e-5)


def test_panels_above_and_beside_each_other_share_their_steps(cube: xr.Dataset) -> None:
    """x0 has no value at the last step, and its axis goes there nevertheless."""
    figure = overview(cube)
    steps = [ax.get_xlim() for ax in figure.axes if "step" in ax.get_xlabel()]
    assert steps == [(0, 24)] * 3
    dots = [line for ax in figure.axes for line in ax.lines if line.get_marker() == "o"]
    assert len(dots) == 8
    assert not any(line.get_clip_on() for line in dots)


def of_data(captions: list[str], draws: list[int]) -> xr.Dataset:
    """Runs as `spectra probe --data` records them."""
    given = synthetic_cube(len(captions), 1, 6)
    coords = {"prompt": ("run", np.array(captions, object)), "draw": ("run", draws)}
    guidance = ("run", np.full(len(captions), np.nan))
    data = given.assign_attrs(sampler="forward").assign_coords(**coords, guidance_scale=guidance)
    return data.assign(coherence=given.coherence * np.nan)


def test_data_are_pictures_at_noise_levels_where_nothing_is_sampled() -> None:
    figure = overview(of_data(["a", "b", "c", "d"], [0] * 4))
    shown = words(figure)
    assert "4 pictures  ·  6 noise levels and the clean data  ·  mean and 95 % interval over pictures" in shown
    assert all(word not in shown.lower() for word in ("prompt", "sampl", "guidance", "step", "coherence", "recorded"))
    assert len(figure.axes) == 3
    refuse_collisions(figure)


def test_pictures_of_one_caption_count_each() -> None:
    assert "5 pictures" in words(overview(of_data(["a style"] * 5, list(range(5)))))
    assert "2 pictures, 4 runs" in words(overview(of_data(["a style"] * 4, [0, 0, 1, 1])))


def test_energies_of_data_are_over_those_of_white_noise() -> None:
    cube = of_data(["a", "b", "c", "d"], [0] * 4)
    floor = FilterBank.octaves(4, (16, 16)).white_noise(16, 16).mean
    expected = cube.energy.isel(signal=0).mean(["run", "channel"]).values / floor
    ax = overview(cube).axes[1]
    drawn = [line.get_ydata() for line in ax.lines if len(line.get_xdata()) == 7]
    np.testing.assert_allclose(drawn, expected.T, rtol=1e-5)
    bottom = [part.get_paths()[0].get_extents().y0 for part in ax.collections if isinstance(part, PolyCollection)]
    assert len(bottom) == 4
    assert min(bottom) > 0  # on a logarithmic axis


def test_what_was_not_recorded_is_said(cube: xr.Dataset) -> None:
    poor = cube.isel(signal=[0]).assign(coherence=cube.coherence * np.nan)
    shown = words(overview(poor))
    assert shown.count("not recorded") == 2
    assert "stays decided" not in shown
    assert "10\n" in shown  # the latent's steps are still labelled
    with pytest.raises(UserError, match="no complete run"):
        overview(cube.isel(run=slice(0, 0)))


def test_one_step_one_run_and_one_band_are_drawn() -> None:
    overview(synthetic_cube(prompts=1, seeds=1, steps=1))
    assert "all" in words(overview(synthetic_cube(prompts=2, seeds=1, steps=3, bank=FilterBank(()))))


def test_frames_are_drawn(cube: xr.Dataset) -> None:
    assert words(overview(cube.assign(energy=xr.concat([cube.energy, cube.energy], "frame")))) == words(overview(cube))


def test_names_are_taken_literally_and_shortened(cube: xr.Dataset) -> None:
    assert r"$\frac{x" in words(overview(cube.assign_attrs(model=r"$\frac{x")))
    shown = words(overview(cube.assign_attrs(model="/deep" * 40 + "/mini\n")))
    assert "/mini" in shown
    assert "/deep" * 20 not in shown


def test_a_long_line_about_the_cube_stays_on_the_page(cube: xr.Dataset) -> None:
    long = several_calls(cube, [i // 2 for i in range(25)]).assign_attrs(model="some/where/model_" * 5)
    scales = ("run", np.arange(6) + 1.5)
    refuse_collisions(overview(long.assign_coords(guidance_scale=scales)))
    refuse_collisions(multiples(long.assign_coords(guidance_scale=scales)))


def test_guidance_is_named(cube: xr.Dataset) -> None:
    assert "no guidance" in words(overview(cube))
    assert "guidance 3.5" in words(overview(cube.assign_coords(guidance_scale=cube.guidance_scale * 3.5)))


def test_bands_are_ordered_in_lightness() -> None:
    light = [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b, _ in band_colours(8)]
    assert all(b > a for a, b in pairwise(light))


def test_labels_give_the_range_of_scales(cube: xr.Dataset) -> None:
    assert band_labels(cube) == ["> 3.2 px", "1.6–3.2 px", "0.8–1.6 px", "< 0.8 px"]


def test_labels_are_moved_apart_and_keep_their_order() -> None:
    for values in ([0.1, 0.11, 0.12, 0.9], [0.9, 0.5, 0.49], [0.3]):
        moved = apart(np.array(values), 0.08)
        assert (np.diff(np.sort(moved)) > 0.079).all()
        assert (np.argsort(moved) == np.argsort(values)).all()
    np.testing.assert_array_equal(apart(np.array([0.1, 0.5]), 0.08), [0.1, 0.5])


@pytest.mark.parametrize("values", [[0.0, 0.0, 0.0, 1.0], [1.0, 0.99, 0.98], [0.5, 0.51, 0.52], np.zeros(30)])
def test_labels_stay_within_their_limits(values: list[float]) -> None:
    moved = np.sort(apart(np.array(values), 0.08, 0.03, 0.97))
    assert moved[0] >= 0.03 - 1e-12
    assert moved[-1] <= 0.97 + 1e-12
    assert (np.diff(moved) > min(0.079, 0.94 / len(values))).all()


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_same_cube_gives_the_same_bytes(cube: xr.Dataset, tmp_path: Path, suffix: str) -> None:
    one, two = (save(overview(cube), tmp_path / f"{name}.{suffix}").read_bytes() for name in "ab")
    assert one == two


def test_a_place_that_cannot_be_written_is_named(cube: xr.Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a.png", tmp_path / "a.xyz"):
        with pytest.raises(UserError, match="cannot write the figure"):
            save(overview(cube), path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_unit_white_noise_has_energy_one_in_every_mode(cube: xr.Dataset) -> None:
    white = np.array([radial_modes(cube.sizes["radius"], 16, 16)], float) * cube.sizes["channel"]
    shape = [cube.spectrum.sizes[d] for d in ("run", "step", "signal")]
    spectrum = np.broadcast_to(white, (*shape, white.size))
    found = energy_per_mode(cube.assign(spectrum=(("run", "step", "signal", "radius"), spectrum)))
    assert found is not None
    np.testing.assert_allclose(found[1], 1)
    assert found[1].shape == (cube.sizes["step"], len(found[0]))
    assert energy_per_mode(cube.isel(signal=[1])) is None
