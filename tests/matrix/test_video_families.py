"""Video pipelines, tiny and random, under the recorder: its numbers against what the scheduler really got and gave."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

import spectra
from spectra.errors import UserError
from spectra.families import family_of
from tests.matrix.videos import CASES, STEPS, Case, built

BANK = spectra.FilterBank((0.8, 1.6))
SIGNALS = ("latent", "x0", "eps", "prediction")


@dataclass(frozen=True)
class Step:
    """A call of the scheduler, in the pipeline's own layout; `clean` is x0 as the scheduler itself understood it."""

    x: Tensor
    out: Tensor
    clean: Tensor


@dataclass(frozen=True)
class Recorded:
    case: Case
    pipe: Any
    cube: xr.Dataset
    steps: list[Step]
    result: Tensor

    def energies(self, signal: str) -> Tensor:
        """(b, step, c, t, K)"""
        values = self.cube.energy.sel(signal=signal).transpose("run", "step", "channel", "frame", "band").values
        return torch.from_numpy(values)

    def expected(self, fields: list[Tensor]) -> Tensor:
        """Energies of tensors in the pipeline's layout."""
        return torch.stack([BANK.energies(self.case.unpack(self.pipe, one).double()) for one in fields], 1)


def clean_by(scheduler: Any, x: Tensor, result: Any) -> Tensor:
    """x0 without a formula for what the network predicts.

    Euler goes along the straight line through x0, so two states tell where it ends; solvers keep the x0 that they
    made of the prediction; the others return it.
    """
    kind = next(base.__name__ for base in type(scheduler).__mro__ if base.__module__.startswith("diffusers"))
    if kind == "FlowMatchEulerDiscreteScheduler":
        end = 1.0 if scheduler.config.invert_sigmas else 0.0
        here, there = (float(sigma) for sigma in scheduler.sigmas[scheduler.step_index - 1 : scheduler.step_index + 1])
        return x + (result[0] - x) * (end - here) / (there - here)
    if kind in ("UniPCMultistepScheduler", "DPMSolverMultistepScheduler"):
        return scheduler.model_outputs[-1].clone()
    return result[1] if isinstance(result, tuple) else result.pred_original_sample


def listened(pipe: Any) -> list[Step]:
    """Make the scheduler an instance of a subclass that keeps what it gets and gives."""
    steps: list[Step] = []
    cls = type(pipe.scheduler)
    signature = inspect.signature(cls.step)

    @functools.wraps(cls.step)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = signature.bind(self, *args, **kwargs).arguments
        x, out = given["sample"].clone(), given["model_output"].clone()
        result = cls.step(self, *args, **kwargs)
        if given.get("pred_original_sample") is not None:  # Cosmos: guided by hand after a call for both halves
            uncond, cond = steps.pop().out.chunk(2)
            out = cond + pipe.guidance_scale * (cond - uncond)
        if self is pipe.scheduler:  # LTX-2 steps its audio with a copy
            steps.append(Step(x, out, clean_by(self, x, result)))
        return result

    pipe.scheduler.__class__ = type(cls.__name__, (cls,), {"step": step})
    return steps


@functools.lru_cache(maxsize=len(CASES))
def recorded(name: str, folder: Path) -> Recorded:
    case, pipe = CASES[name], built(name)
    steps = listened(pipe)
    with spectra.record(pipe, folder / f"{name}.zarr", bank=BANK, signals=SIGNALS):
        result = pipe(
            **case.call, num_inference_steps=STEPS, output_type="latent", latents=case.pack(pipe, case.noise())
        ).frames
    return Recorded(case, pipe, spectra.open_cube(folder / f"{name}.zarr"), steps, result)


@pytest.fixture(params=CASES)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return recorded(request.param, tmp_path_factory.getbasetemp())


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.double(), expected.double(), rtol=2e-4, atol=1e-5 * float(expected.max()))


def test_the_family_and_its_frames_are_known(run: Recorded) -> None:
    frames, height, width = run.case.grid
    assert run.cube.attrs["family"] == run.case.family
    assert run.cube.attrs["state_space"] == run.case.space
    assert run.cube.attrs["grid"] == f"[{height}, {width}]"
    assert run.cube.sizes["frame"] == frames
    assert run.cube.sizes["channel"] == run.case.channels
    assert run.cube.step.values.tolist() == list(range(STEPS + 1))
    assert family_of(run.pipe).causal == run.case.causal


def test_the_first_step_is_the_noise_that_was_given(run: Recorded) -> None:
    noise = run.case.noise() * run.case.gain(run.pipe)
    close(run.energies("latent")[:, 0], BANK.energies(noise))


def test_the_last_step_is_what_the_pipeline_returned(run: Recorded) -> None:
    close(run.energies("latent")[:, -1], run.expected([run.result])[:, 0])


def test_every_call_is_recorded_as_the_scheduler_got_it(run: Recorded) -> None:
    close(run.energies("latent")[:, :-1], run.expected([step.x for step in run.steps]))
    close(run.energies("prediction")[:, :-1], run.expected([step.out for step in run.steps]))


def test_the_clean_sample_is_where_the_scheduler_goes(run: Recorded) -> None:
    close(run.energies("x0")[:, :-1], run.expected([step.clean for step in run.steps]))


def test_the_noise_is_what_is_left_of_a_state_without_its_clean_sample(run: Recorded) -> None:
    a, b = (run.cube[name].values[:-1] for name in ("signal_level", "noise_level"))
    eps = [(step.x - float(a[i]) * step.clean) / float(b[i]) for i, step in enumerate(run.steps)]
    close(run.energies("eps")[:, :-1], run.expected(eps))
    assert np.all(np.diff(run.cube.noise_level.values) < 0)
    assert np.all(np.diff(run.cube.signal_level.values) >= 0)


def test_the_second_transformer_of_wan_predicts_below_the_boundary(tmp_path: Path) -> None:
    pipe = built("wan-2.2")
    called: list[str] = []
    for name in ("transformer", "transformer_2"):
        getattr(pipe, name).register_forward_hook(lambda *_, name=name: called.append(name))
    steps = listened(pipe)
    with spectra.record(pipe, tmp_path / "c.zarr", bank=BANK, signals=SIGNALS):
        pipe(**CASES["wan-2.2"].call, num_inference_steps=STEPS, output_type="latent")
    assert set(called) == {"transformer", "transformer_2"}
    cube = spectra.open_cube(tmp_path / "c.zarr")
    boundary = 0.8 * pipe.scheduler.config.num_train_timesteps
    expected = ["transformer" if t >= boundary else "transformer_2" for t in cube.timestep.values[:-1] for _ in "cu"]
    assert called == expected
    last = cube.energy.sel(signal="prediction").isel(step=STEPS - 1).transpose("run", "channel", "frame", "band")
    close(torch.from_numpy(last.values), BANK.energies(steps[-1].out))


def test_noise_of_stable_video_diffusion_is_that_of_its_continuous_time(tmp_path: Path) -> None:
    cube = recorded("svd", tmp_path).cube
    noise, time = cube.noise_level.values, cube.timestep.values
    assert noise[0] == pytest.approx(700, rel=1e-3)
    np.testing.assert_allclose(time[:-1], 0.25 * np.log(noise[:-1]), rtol=1e-5)
    assert time[STEPS - 1] < 0
    assert noise[-1] == 0


def test_levels_of_mochi_run_from_noise_to_video_although_its_sigmas_rise(tmp_path: Path) -> None:
    found = recorded("mochi", tmp_path)
    np.testing.assert_allclose(found.cube.signal_level, found.pipe.scheduler.sigmas, atol=1e-6)
    np.testing.assert_allclose(found.cube.noise_level, 1 - found.pipe.scheduler.sigmas, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "family", "layout"),
    [
        ("ConsisIDPipeline", "cogvideox", "b t c h w -> b c t h w"),
        ("SkyReelsV2Pipeline", "wan", ""),
        ("SanaVideoPipeline", "sana-video", ""),
        ("Kandinsky5T2VPipeline", "kandinsky5", "b t h w c -> b c t h w"),
    ],
)
def test_relatives_share_their_layout(name: str, family: str, layout: str) -> None:
    found = family_of(type(name, (), {})())
    assert (found.name, found.layout) == (family, layout)


def test_packed_videos_of_unknown_pipelines_ask_for_a_layout() -> None:
    unknown = family_of(SimpleNamespace())
    with pytest.raises(UserError, match=r"\(2, 12, 8\), whose layout is unknown: give layout=.*b c t h w"):
        unknown.plain(torch.zeros(2, 12, 8), SimpleNamespace())
