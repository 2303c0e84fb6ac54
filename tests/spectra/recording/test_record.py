from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

import spectra
from spectra.errors import UserError
from spectra.record import record
from spectra.schedulers import SCHEDULERS
from tests.spectra.witness import ALL, CALL, STEPS, seeded
from tests.tiny import tiny_sd, tiny_sd3


def test_unknown_schedulers_are_refused_for_clean_samples_and_labelled_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(SCHEDULERS, "KDPM2DiscreteScheduler")
    pipe = tiny_sd("epsilon")
    pipe.scheduler = diffusers.KDPM2DiscreteScheduler.from_config(pipe.scheduler.config)
    with pytest.raises(UserError, match="KDPM2DiscreteScheduler has no known rule"), record(pipe, tmp_path / "c.zarr"):
        pipe("a", **CALL)
    assert not (tmp_path / "c.zarr").exists()
    with record(pipe, tmp_path / "c.zarr", signals=("latent", "prediction")):
        pipe("a", **CALL)
    cube = spectra.open_cube(tmp_path / "c.zarr")
    assert cube.attrs["state_space"] == "unknown"
    assert np.isnan(cube.noise_level).all()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_call_that_fails_leaves_neither_runs_nor_wrappers(error: type[BaseException], tmp_path: Path) -> None:
    pipe = tiny_sd()
    before = type(pipe).__call__, type(pipe.scheduler).step

    def fail(pipe: Any, step: int, timestep: Any, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
        if step == 1:
            raise error
        return {}

    with record(pipe, tmp_path / "c.zarr") as recorder:
        with pytest.raises(error):
            pipe("a", callback_on_step_end=fail, **CALL)
        assert type(pipe.scheduler).step is before[1]
        assert not (tmp_path / "c.zarr").exists()
        pipe("b", generator=seeded(5), **CALL)
    assert (type(pipe).__call__, type(pipe.scheduler).step) == before
    assert recorder.runs == 1
    assert spectra.open_cube(tmp_path / "c.zarr").prompt.values.tolist() == ["b"]


def test_an_interrupted_call_is_not_recorded_and_says_so(tmp_path: Path) -> None:
    pipe = tiny_sd()

    def stop(pipe: Any, step: int, timestep: Any, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
        pipe._interrupt = step == 1
        return {}

    with record(pipe, tmp_path / "c.zarr"), pytest.warns(UserWarning, match="ended after 2 of 4 steps: not recorded"):
        pipe("a", callback_on_step_end=stop, **CALL)
    assert list(tmp_path.iterdir()) == []


def test_one_pipeline_has_one_recorder_and_two_pipelines_have_two(tmp_path: Path) -> None:
    one, two = tiny_sd(), tiny_sd()
    with record(one, tmp_path / "1.zarr"), record(two, tmp_path / "2.zarr"):
        with pytest.raises(UserError, match="is being recorded already"), record(one, tmp_path / "3.zarr"):
            pass
        one("first", **CALL)
        two("second", **CALL)
        two("third", **CALL)
    assert spectra.open_cube(tmp_path / "1.zarr").prompt.values.tolist() == ["first"]
    assert spectra.open_cube(tmp_path / "2.zarr").prompt.values.tolist() == ["second", "third"]


def test_recording_changes_nothing_that_is_generated(tmp_path: Path) -> None:
    pipe = tiny_sd3()
    plain = pipe("a", generator=seeded(1), **CALL).images
    with record(pipe, tmp_path / "c.zarr", signals=ALL):
        recorded = pipe("a", generator=seeded(1), **CALL).images
    assert torch.equal(plain, recorded)


def test_runs_are_told_apart_by_prompt_seed_draw_and_guidance(tmp_path: Path) -> None:
    pipe = tiny_sd()
    used = torch.Generator().manual_seed(8)
    torch.randn(1, generator=used)
    call = CALL | {"num_inference_steps": 1}
    with record(pipe, tmp_path / "c.zarr", adapter="mine"):
        pipe(["a", "b"], num_images_per_prompt=2, generator=seeded(1, 2, 3, 4), **call)
        pipe("c", None, None, 1, guidance_scale=4.0, negative_prompt="n", output_type="latent", num_images_per_prompt=2,
             generator=torch.Generator().manual_seed(9))  # fmt: skip
        pipe("used", generator=used, **call)
        pipe("none", **call)
        pipe("given", generator=seeded(5), latents=torch.randn(1, 4, 16, 16), **call)
    cube = spectra.open_cube(tmp_path / "c.zarr")
    assert cube.prompt.values.tolist() == ["a", "a", "b", "b", "c", "c", "used", "none", "given"]
    assert cube.seed.values.tolist() == [1, 2, 3, 4, 9, 9, -1, -1, -1]
    assert cube.draw.values.tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 0]
    assert cube.guidance_scale.values.tolist() == [1, 1, 1, 1, 4, 4, 1, 1, 1]
    assert cube.negative_prompt.values.tolist() == ["", "", "", "", "n", "n", "", "", ""]
    assert set(cube.adapter.values) == {"mine"}


def test_active_adapters_are_named_and_do_not_change_the_model(tmp_path: Path) -> None:
    from peft import LoraConfig

    pipe = tiny_sd()
    with record(pipe, tmp_path / "c.zarr"):
        pipe("a", **CALL)
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]), adapter_name="style")
    with record(pipe, tmp_path / "c.zarr"):
        pipe("a", **CALL)
        pipe.unet.disable_adapters()
        pipe("a", **CALL)
    assert spectra.open_cube(tmp_path / "c.zarr").adapter.values.tolist() == ["", "style", ""]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda pipe: pipe.scheduler.register_to_config(set_alpha_to_one=False), "set_alpha_to_one was true, is false"),
        (lambda pipe: pipe.unet.conv_out.bias.data.add_(1), "model_hash was"),
        (lambda pipe: setattr(pipe, "scheduler", diffusers.DDPMScheduler()), 'scheduler.class was "DDIMScheduler", is'),
    ],
)  # fmt: skip
def test_runs_of_another_kind_are_refused_with_what_differs(change: Any, message: str, tmp_path: Path) -> None:
    pipe = tiny_sd()
    with record(pipe, tmp_path / "c.zarr"):
        pipe("a", **CALL)
    change(pipe)
    with pytest.raises(UserError, match=message), record(pipe, tmp_path / "c.zarr"):
        pipe("a", **CALL)
    assert spectra.open_cube(tmp_path / "c.zarr").sizes["run"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bank": spectra.FilterBank((1.0,))}, r"bank.scales was \[0.8, 1.6, 3.2\], is \[1.0\]"),
        ({"signals": ALL}, "signals was"),
        ({"radial_bins": 3}, "radial_bins was 64, is 3"),
    ],
)
def test_another_measure_is_refused_before_anything_is_generated(options: Any, message: str, tmp_path: Path) -> None:
    pipe = tiny_sd()
    with record(pipe, tmp_path / "c.zarr"):
        pipe("a", **CALL)
    with pytest.raises(UserError, match=message), record(pipe, tmp_path / "c.zarr", **options):
        pytest.fail("the block must not be entered")


def test_another_number_of_steps_or_another_grid_is_refused(tmp_path: Path) -> None:
    pipe = tiny_sd()
    with record(pipe, tmp_path / "c.zarr"):
        pipe("a", **CALL)
        with pytest.raises(UserError, match="num_inference_steps was 4, is 3"):
            pipe("a", **CALL | {"num_inference_steps": 3})
        with pytest.raises(UserError, match=r"grid was \[16, 16\], is \[16, 8\]"):
            pipe("a", height=64, width=32, **CALL)


def test_steps_that_are_given_as_a_list_are_counted(tmp_path: Path) -> None:
    with record(tiny_sd3(), tmp_path / "c.zarr") as recorder:
        recorder.pipe("a", generator=seeded(1), sigmas=[1.0, 0.6, 0.3], output_type="latent", guidance_scale=1.0)
    assert spectra.open_cube(tmp_path / "c.zarr").attrs["num_inference_steps"] == "3"


def test_an_existing_cube_lends_its_bank(tmp_path: Path) -> None:
    pipe = tiny_sd()
    for bank in (spectra.FilterBank((2.0,)), None):
        with record(pipe, tmp_path / "c.zarr", bank=bank):
            pipe("a", **CALL)
    assert json.loads(spectra.open_cube(tmp_path / "c.zarr").attrs["bank"])["scales"] == [2.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"signals": ("latent", "wrong")}, "not 'wrong'"),
        ({"signals": "latent"}, "signals are some of"),
        ({"signals": ("x0",)}, "latent"),
        ({"attrs": {"bank": "x"}}, "'bank' belongs to the cube"),
        ({"resume": "must"}, "there is no cube"),
        ({"layout": "nonsense"}, "not understood"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_at_once(options: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message), record(tiny_sd(), tmp_path / "c.zarr", **options):
        pytest.fail("the block must not be entered")


def test_coherence_is_off_with_a_reason_where_clean_samples_would_fill_the_memory(tmp_path: Path) -> None:
    pipe, memory = tiny_sd(), 4 * 4 * 16 * 16 * STEPS - 1
    with record(pipe, tmp_path / "c.zarr", memory=memory):
        pipe("a", **CALL)
    cube = spectra.open_cube(tmp_path / "c.zarr")
    assert np.isnan(cube.coherence).all()
    assert f"over {memory} bytes" in cube.attrs["coherence_off"]


def test_samples_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    pipe = tiny_sd()
    with record(pipe, tmp_path / "c.zarr"):
        pipe.unet.conv_out.bias.data.fill_(math.nan)
        with pytest.raises(UserError, match="not finite from step 1 on"):
            pipe("a", **CALL)
    assert not (tmp_path / "c.zarr").exists()


class Loop:
    """A pipeline of no known family, with latents of any shape."""

    def __init__(self, *shape: int, times: int = 1) -> None:
        self.scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
        self.transformer = torch.nn.Identity()
        self.shape, self.times, self.copies = shape, times, False

    @property
    def components(self) -> dict[str, Any]:
        return {"scheduler": self.scheduler, "transformer": self.transformer}

    def __call__(
        self, prompt: str, generator: torch.Generator | None = None, num_inference_steps: int = 3
    ) -> torch.Tensor:
        scheduler = copy.deepcopy(self.scheduler) if self.copies else self.scheduler
        scheduler.set_timesteps(num_inference_steps)
        x = torch.randn(self.shape, generator=generator)
        for t in scheduler.timesteps:
            for time in range(self.times):
                if time:
                    scheduler._step_index -= 1
                out = scheduler.step(0.5 * x + time, t, x, return_dict=False)[0]
            x = out
        return x


@pytest.mark.parametrize("shape", [(2, 3, 8, 6), (2, 3, 5, 8, 6)])
def test_plain_latents_of_unknown_pipelines_are_recorded(shape: tuple[int, ...], tmp_path: Path) -> None:
    pipe = Loop(*shape)
    with record(pipe, tmp_path / "c.zarr"):
        end = pipe(prompt=["a", "b"], generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    cube = spectra.open_cube(tmp_path / "c.zarr")
    bank = spectra.FilterBank.from_dict(json.loads(cube.attrs["bank"]))
    latent = cube.energy.sel(signal="latent").isel(step=-1)
    order = [dim for dim in ("run", "channel", "frame", "band") if dim in latent.dims]
    np.testing.assert_allclose(latent.transpose(*order), bank.energies(end), rtol=1e-5)
    np.testing.assert_allclose(
        cube.spectrum.sel(signal="latent").isel(step=-1).sum("radius"), end.flatten(1).square().sum(1), rtol=1e-5
    )
    assert np.isfinite(cube.coherence.isel(step=slice(-1))).all()


def test_packed_latents_of_unknown_pipelines_need_a_layout(tmp_path: Path) -> None:
    pipe = Loop(1, 48, 3)
    with pytest.raises(UserError, match="layout="), record(pipe, tmp_path / "c.zarr"):
        pipe("a")
    with record(pipe, tmp_path / "c.zarr", layout="b (h w) c -> b c h w, h=8, w=6"):
        pipe("a")
    assert json.loads(spectra.open_cube(tmp_path / "c.zarr").attrs["grid"]) == [8, 6]


def test_a_step_that_the_pipeline_takes_back_counts_once_as_it_was_last(tmp_path: Path) -> None:
    pipe = Loop(1, 1, 8, 8, times=2)
    with record(pipe, tmp_path / "c.zarr", signals=ALL, bank=spectra.FilterBank((1.0,))):
        pipe("a", generator=torch.Generator().manual_seed(0))
    cube = spectra.open_cube(tmp_path / "c.zarr")
    assert cube.sizes["step"] == 4
    x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = spectra.FilterBank((1.0,)).energies(0.5 * x + 1)
    np.testing.assert_allclose(cube.energy.sel(signal="prediction").isel(step=0)[0], expected[0], rtol=1e-5)


def test_a_pipeline_that_steps_only_copies_is_told_that_nothing_was_seen(tmp_path: Path) -> None:
    pipe = Loop(1, 1, 8, 8)
    pipe.copies = True
    with record(pipe, tmp_path / "c.zarr"), pytest.raises(UserError, match="without calling step"):
        pipe("a")


def test_prompts_that_do_not_match_the_samples_are_refused(tmp_path: Path) -> None:
    with (
        record(Loop(3, 1, 8, 8), tmp_path / "c.zarr") as recorder,
        pytest.raises(UserError, match="2 prompts x 1 images"),
    ):
        recorder.pipe(["a", "b"])


def test_a_scheduler_whose_step_tells_no_sample_is_refused(tmp_path: Path) -> None:
    class Odd(diffusers.FlowMatchEulerDiscreteScheduler):
        def step(self, *args: Any, **kwargs: Any) -> Any:
            return super().step(*args, **kwargs)

    pipe = Loop(1, 1, 8, 8)
    pipe.scheduler = Odd()
    with record(pipe, tmp_path / "c.zarr"), pytest.raises(UserError, match=r"Odd.step has no argument"):
        pipe("a")


def test_a_pipeline_without_scheduler_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no scheduler"), record(object(), tmp_path / "c.zarr"):
        pass
