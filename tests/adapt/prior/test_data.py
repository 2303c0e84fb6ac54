"""Priors from data, and from data beside generation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adapt import Prior
from adapt.prior.prior import positions
from adapt.trajectory import read_trajectory
from spectra.errors import UserError
from spectra.forward import probe_data
from spectra.probe import probe
from tests.adapt.prior.worlds import BANK, GRID, RUNS, STEPS, cube, cube_of, data_cube, latents, straight


def learn(source: Any, **options: Any) -> Prior:
    """A prior in the bands that the cubes were recorded in."""
    return Prior.from_cube(source, **{"scales": BANK.scales, **options})


def test_generation_and_data_count_equally_in_the_scaling() -> None:
    """24 runs and 8: each cube's mean and second moment have the weight of one half."""
    few = data_cube().isel(run=slice(8))
    one, two = read_trajectory(cube()), read_trajectory(few)
    prior = learn(cube(), data=few)
    for name, width in (("shares", 4), ("snr", 4), ("log_snr", 1)):
        x, y = (path.feature(name, BANK).reshape(-1, width) for path in (one, two))
        mean = (x.mean(0) + y.mean(0)) / 2
        second = ((x**2).mean(0) + (y**2).mean(0)) / 2
        np.testing.assert_allclose(prior.statistics[name].mean, mean, rtol=1e-5)
        np.testing.assert_allclose(prior.statistics[name].std, np.sqrt(second - mean**2), rtol=1e-4)


def test_data_are_placed_along_the_generation_by_their_signal_to_noise() -> None:
    """The data's levels are twice as fine, so their even ones are those of the generation."""
    level, x = straight(latents(3)[1][:, -1], np.random.default_rng(0).standard_normal((RUNS, 4, *GRID)), 2 * STEPS)
    fine = cube_of(level, x, prompts=["a picture"] * RUNS, sampler="forward", scheduler='{"class": "forward"}')
    fine = fine.assign_coords(draw=("run", np.arange(RUNS)))
    first, second = positions([read_trajectory(cube()), read_trajectory(fine)])
    np.testing.assert_allclose(second[::2], first)
    between = second[1:-1:2]
    assert ((first[:-1] < between) & (between < first[1:])).all()
    assert Prior.from_cube(cube(), data=fine).gate_error < 0.08


def test_a_prior_of_data_alone_reads_its_levels_as_the_path() -> None:
    prior = learn(data_cube())
    assert prior.provenance["source"] == "data"
    assert prior.density.table == "levels"
    assert np.array(prior.gates)[[0, -1]].argmax(1).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (lambda: data_cube(model_hash="other", model="maxi"), "different models.*mini and maxi"),
        (lambda: cube(), "generation and generation"),
        (lambda: data_cube().isel(channel=slice(2)), "different sizes"),
    ],
)
def test_cubes_that_do_not_go_together_are_refused(data: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        learn(cube(), data=data())


def test_data_come_second() -> None:
    with pytest.raises(UserError, match="data and data"):
        learn(data_cube(), data=data_cube())


def test_real_probes_of_generation_and_data_make_a_prior(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    pairs = [(torch.from_numpy(draw.standard_normal((4, 16, 16))).float(), f"picture {i}") for i in range(6)]
    made = probe("mini", ["a blue star", "a red ring"], [0, 1], 4, tmp_path / "made.zarr")
    seen = probe_data("mini", pairs, tmp_path / "data.zarr", levels=5)
    prior = Prior.from_cube(tmp_path / "made.zarr", data=tmp_path / "data.zarr")
    assert prior.provenance["model_hash"] == made.attrs["model_hash"] == seen.attrs["model_hash"]
    assert prior.density.table == "schedule"
    assert prior.bank.chosen is not None
    assert (prior.timestep_log_snr[0], len(prior.timestep_log_snr)) == (prior.density.log_snr[0], 64)
    np.testing.assert_allclose(prior.density.emergence[1], 0, atol=0.4)  # unit white noise emerges at SNR one
    assert Prior.load(prior.save(tmp_path / "prior.json")) == prior
