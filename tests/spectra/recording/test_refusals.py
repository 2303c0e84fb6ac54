from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch

import spectra
from spectra.errors import UserError
from spectra.recording.refusals import BEGINNERS, COPIES, GIVEN, SECTIONS, TOKENS, check_recordable
from spectra.signals import schedule_of
from tests.tiny import tiny_sd


def bare(name: str, **attributes: Any) -> Any:
    """An instance of a diffusers pipeline class without its models."""
    cls = getattr(diffusers, name)
    pipe = cls.__new__(cls)
    pipe.__dict__.update(attributes)
    return pipe


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("LTXImageToVideoPipeline", GIVEN),
        ("LTX2ImageToVideoPipeline", GIVEN),
        ("SanaImageToVideoPipeline", GIVEN),
        ("Kandinsky5I2VPipeline", GIVEN),
        ("LTXConditionPipeline", TOKENS),
        ("HunyuanVideoFramepackPipeline", SECTIONS),
        ("WanAnimatePipeline", SECTIONS),
        ("SkyReelsV2DiffusionForcingPipeline", COPIES),
        ("SkyReelsV2DiffusionForcingImageToVideoPipeline", COPIES),
    ],
)
def test_pipelines_that_step_parts_of_their_latents_are_refused_before_they_start(
    name: str, reason: str, tmp_path: Path
) -> None:
    pipe = bare(name, scheduler=diffusers.FlowMatchEulerDiscreteScheduler())
    with pytest.raises(UserError, match=f"{name} {reason}: it cannot be recorded"), spectra.record(pipe, tmp_path):
        pytest.fail("the block must not be entered")


@pytest.mark.parametrize(
    ("name", "plain", "sliced"),
    [
        ("WanImageToVideoPipeline", {"config": SimpleNamespace(expand_timesteps=False)},
         {"config": SimpleNamespace(expand_timesteps=True)}),
        ("HunyuanVideoImageToVideoPipeline",
         *({"transformer": SimpleNamespace(config=SimpleNamespace(image_condition_type=kind))}
           for kind in ("latent_concat", "token_replace"))),
    ],
)  # fmt: skip
def test_image_to_video_is_refused_only_where_the_first_frame_is_left_out(
    name: str, plain: dict[str, Any], sliced: dict[str, Any]
) -> None:
    check_recordable(named(name, plain))
    with pytest.raises(UserError, match=GIVEN):
        check_recordable(named(name, sliced))


def named(name: str, attributes: dict[str, Any]) -> Any:
    return type(name, (), attributes)()


def test_pipelines_that_generate_whole_videos_are_not_refused() -> None:
    for name in ("WanPipeline", "SkyReelsV2Pipeline", "LTXPipeline", "LTX2Pipeline", "HunyuanVideoPipeline"):
        check_recordable(named(name, {}))


class Conditioned:
    """Steps each token at a level of its own, as `LTXConditionPipeline` does."""

    def __init__(self) -> None:
        self.scheduler, self.transformer = diffusers.FlowMatchEulerDiscreteScheduler(), torch.nn.Identity()
        self.components = {"scheduler": self.scheduler, "transformer": self.transformer}

    def __call__(self, prompt: str) -> None:
        self.scheduler.set_timesteps(2)
        x = torch.zeros(1, 2, 3, 4)
        for t in self.scheduler.timesteps:
            self.scheduler.step(x, t, x, per_token_timesteps=t.expand(1, 2))


def test_tokens_at_noise_levels_of_their_own_are_refused(tmp_path: Path) -> None:
    pipe = Conditioned()
    with spectra.record(pipe, tmp_path / "c.zarr"), pytest.raises(UserError, match="each token at a noise level"):
        pipe("a")


@pytest.mark.parametrize("name", ["PNDMScheduler", "LMSDiscreteScheduler"])
def test_solvers_that_have_to_start_at_the_beginning_are_refused_elsewhere(name: str, tmp_path: Path) -> None:
    """Pictures that are changed start in the middle; pictures of pure noise do not."""
    parts = tiny_sd().components | {"scheduler": getattr(diffusers, name)(**SOLVER[name])}
    pipe = diffusers.StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    call = {"image": torch.ones(1, 3, 64, 64), "num_inference_steps": 6, "output_type": "latent"}
    with spectra.record(pipe, tmp_path / "c.zarr") as recorder:
        with pytest.raises(UserError, match=f"change pictures with {BEGINNERS[name]}"):
            pipe("a", strength=0.5, **call)
        pipe("a", strength=1.0, **call)
    assert recorder.runs == 1


SOLVER: dict[str, dict[str, Any]] = {
    "PNDMScheduler": {"skip_prk_steps": True, "steps_offset": 1},
    "LMSDiscreteScheduler": {"steps_offset": 1},
    "DDIMScheduler": {"clip_sample": False},
}


@pytest.mark.parametrize(("name", "right"), [*((name, False) for name in BEGINNERS), ("DDIMScheduler", True)])
def test_with_a_perfect_network_those_solvers_do_go_wrong_and_others_do_not(name: str, right: bool) -> None:
    """The reason for the refusal: states hold another amount of noise than the scheduler's timesteps say."""
    scheduler = getattr(diffusers, name)(**SOLVER[name])
    scheduler.set_timesteps(10)
    schedule = schedule_of(scheduler, ("latent",))
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(4)
    x0, eps = torch.randn(2, 1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    first = schedule.at(scheduler.timesteps[4], 4)
    x, misses = first.signal * x0 + first.noise * eps, []
    for index, t in enumerate(scheduler.timesteps[4:], 4):
        level = schedule.at(t, index)
        rest = x - level.signal * x0
        misses.append(abs(float(rest.std() / (level.noise * eps.std())) - 1))
        x = scheduler.step(rest / level.noise, t, x).prev_sample
    assert (max(misses) < 0.02) == right
