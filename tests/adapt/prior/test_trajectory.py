"""What the prior reads from a cube is what a router computes on the latents themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from adapt.fera.features import Reader
from adapt.fera.noise import Clock, schedule_of
from adapt.trajectory import FEWEST, Trajectory, read_trajectory
from spectra.bands import FilterBank, radial_spectrum
from spectra.probe import probe
from tests.adapt.prior.worlds import BANK, BINS, cube, cube_of, data_cube, gaussian

FEATURES = ("shares", "snr", "log_snr")
PROMPTS = ["a large red ring on a plain white background", "a small blue star on a dotted black background"]


def read_by_router(x: torch.Tensor, timestep: torch.Tensor, bank: FilterBank, scheduler: Any) -> np.ndarray:
    """Raw features (batch, 2 bands + 1) by the router's own code, not standardised."""
    width = 2 * bank.bands + 1
    clock = Clock.of(schedule_of(scheduler))
    reader = Reader(FEATURES, bank.bands, bank, clock, (0.0,) * width, (1.0,) * width, 1.0)
    return reader(x, timestep).double().numpy()


def of_prior(path: Trajectory, bank: FilterBank) -> np.ndarray:
    return np.concatenate([path.feature(name, bank) for name in FEATURES], axis=2)


def test_a_flows_latents_read_the_same_from_the_cube_and_by_the_router() -> None:
    level, x = gaussian(6, 5)
    path = read_trajectory(cube_of(level, x))
    t = torch.from_numpy(np.broadcast_to(1000 * level[:-1], (6, 5)).copy()).flatten()
    seen = read_by_router(torch.from_numpy(x[:, :-1]).flatten(0, 1), t, BANK, FlowMatchEulerDiscreteScheduler())
    mine = of_prior(path, BANK).reshape(30, -1)
    np.testing.assert_allclose(mine, seen, atol=2e-3)
    np.testing.assert_allclose(np.delete(mine, slice(0, None, 5), 0), np.delete(seen, slice(0, None, 5), 0), atol=2e-4)


@pytest.mark.parametrize("exploding", [False, True])
def test_a_denoisers_latents_read_the_same_in_the_space_of_any_sampler(exploding: bool) -> None:
    """The router sees the scaled input; a sampler like Euler's keeps the signal as it is and lets the noise grow."""
    scheduler = DDIMScheduler()
    t = np.array([999, 700, 400, 100])
    a2 = scheduler.alphas_cumprod.double().numpy()[t]
    clean, noise = gaussian(5, 1)[1][:, -1:], gaussian(5, 1, seed=3)[1][:, :1]
    a, b = (np.sqrt(v)[None, :, None, None, None] for v in (a2, 1 - a2))
    given = a * clean + b * noise  # what the denoiser is given
    state = given / a if exploding else given
    path = _path_of(np.concatenate([state, clean], 1), np.sqrt(1 - a2) / (np.sqrt(a2) if exploding else 1), a2, t)
    timestep = torch.from_numpy(np.tile(t, 5))
    seen = read_by_router(torch.from_numpy(given).flatten(0, 1), timestep, BANK, scheduler)
    np.testing.assert_allclose(of_prior(path, BANK).reshape(20, -1), seen, atol=5e-4)


def _path_of(x: np.ndarray, noise_level: np.ndarray, a2: np.ndarray, t: np.ndarray) -> Trajectory:
    field = torch.from_numpy(x)
    base = read_trajectory(cube_of(*gaussian(len(x), len(t))))
    spectrum = radial_spectrum(field, BINS).sum(2).numpy()
    return replace(
        base, noise_level=noise_level, log_snr=np.log(a2 / (1 - a2)), timestep=t.astype(float),
        recorded=BANK.energies(field).numpy().sum(2)[:, :-1], spectrum=spectrum[:, :-1], finished=spectrum[:, -1],
    )  # fmt: skip


@pytest.mark.parametrize("model", ["mini", "mini-flow"])
def test_what_the_denoiser_is_given_while_a_probe_runs_is_what_the_prior_learns_from(
    model: str, tmp_path: Path
) -> None:
    from spectra.models import load_pipeline

    pipe = load_pipeline(model)
    denoiser = pipe.unet if getattr(pipe, "unet", None) is not None else pipe.transformer
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def look(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        latent = kwargs.get("hidden_states", kwargs.get("sample", args[0] if args else None))
        timestep = kwargs.get("timestep", args[1] if len(args) > 1 else None)
        assert latent is not None
        seen.append((latent.clone(), torch.as_tensor(timestep).float().expand(len(latent)).clone()))

    hook = denoiser.register_forward_pre_hook(look, with_kwargs=True)
    found = probe(pipe, PROMPTS, [0, 1], 3, tmp_path / "cube.zarr")
    hook.remove()
    path = read_trajectory(found)
    rows = [read_by_router(x, t, BANK, pipe.scheduler) for x, t in seen]
    every = np.concatenate(rows)  # as many latents as runs times steps, in some order
    mine = of_prior(path, BANK).reshape(-1, every.shape[1])
    assert len(every) == len(mine) == 12
    for these, those in ((mine, every), (every, mine)):
        nearest = np.abs(these[:, None] - those).max(2).min(1)
        np.testing.assert_array_less(nearest, 2e-3)  # pure noise counts as a signal of exp(-14) in the router


def test_other_bands_are_estimated_within_their_bounds() -> None:
    level, x = gaussian(6, 5)
    path, bank = read_trajectory(cube_of(level, x)), FilterBank((0.7, 2.5))
    truth = bank.energies(torch.from_numpy(x[:, :-1])).numpy().sum(2)
    estimate, low, high = path.rebanded(bank)
    assert ((low <= truth * (1 + 1e-6)) & (truth <= high * (1 + 1e-6))).all()
    np.testing.assert_array_equal(path.energy(bank), estimate)
    np.testing.assert_allclose(path.energy(BANK), BANK.energies(torch.from_numpy(x[:, :-1])).numpy().sum(2), rtol=1e-5)


def test_units_are_prompts_of_samples_and_pictures_of_data_and_runs_where_they_are_few() -> None:
    assert read_trajectory(cube()).kind == "prompt"
    assert len(set(read_trajectory(cube()).unit)) == 12
    data = read_trajectory(data_cube())
    assert (data.source, data.kind, len(set(data.unit))) == ("data", "picture", 24)
    few = read_trajectory(cube().isel(run=slice(2 * FEWEST - 2)))
    assert (few.kind, len(set(few.unit))) == ("run", 2 * FEWEST - 2)


def test_positions_are_quantiles_and_steps_of_one_level_share_theirs() -> None:
    path = read_trajectory(cube())
    np.testing.assert_allclose(path.position, (np.arange(12) + 0.5) / 12)
    twice = replace(path, log_snr=np.repeat(path.log_snr[:6], 2))
    np.testing.assert_allclose(twice.position, np.repeat((np.arange(6) + 0.5) / 6, 2))
