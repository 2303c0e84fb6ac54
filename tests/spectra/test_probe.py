from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from safetensors.torch import save_file

import spectra
from spectra import setting
from spectra.errors import UserError
from spectra.probe import probe
from spectra.storage import sharing
from tests.tiny import tiny_sd, tiny_sd3, tiny_sd_folder

PROMPTS = ["a red circle", "a blue square"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_sd_folder(tmp_path_factory.mktemp("model") / "tiny"))


def assert_same_numbers(one: xr.Dataset, other: xr.Dataset) -> None:
    for name in ("energy", "spectrum", "coherence", "prompt", "seed", "guidance_scale", "noise_level"):
        np.testing.assert_array_equal(one[name].values, other[name].values)


def test_every_prompt_meets_every_seed_and_the_cube_says_where_it_comes_from(folder: str, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    cube = probe(
        folder, PROMPTS, [0, 1, 5], 3, tmp_path / "deep" / "c.zarr", batch=4, progress=lambda *x: seen.append(x)
    )
    assert [*zip(cube.prompt.values, cube.seed.values, strict=True)] == [(p, s) for p in PROMPTS for s in (0, 1, 5)]
    assert seen == [(0, 6), (4, 6), (6, 6)]
    assert cube.signal.values.tolist() == ["latent", "x0", "eps", "prediction"]
    assert set(cube.guidance_scale.values) == {1.0}
    assert cube.sizes["step"] == 4
    assert cube.attrs["model"] == folder
    assert cube.attrs["model_hash"] == spectra.model_hash(folder)


@pytest.mark.parametrize("make", [tiny_sd, tiny_sd3])
def test_a_sample_does_not_depend_on_its_batch(make: Any, tmp_path: Path) -> None:
    pipe = make()
    cubes = [probe(pipe, PROMPTS, [3, 4], 2, tmp_path / f"{batch}.zarr", batch=batch) for batch in (1, 3, 8)]
    for cube in cubes[1:]:
        for step in (0, -1):
            ours, theirs = (c.energy.sel(signal="latent").isel(step=step) for c in (cube, cubes[0]))
            np.testing.assert_allclose(ours, theirs, rtol=1e-6 if step == 0 else 1e-3)


def test_the_initial_noise_is_that_of_the_seed(tmp_path: Path) -> None:
    cube = probe(tiny_sd(), PROMPTS, [7], 1, tmp_path / "c.zarr")
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(7))
    bank = spectra.FilterBank.octaves(4, (16, 16))
    for run in range(2):
        np.testing.assert_allclose(
            cube.energy.sel(signal="latent").isel(step=0, run=run), bank.energies(noise)[0], rtol=1e-5
        )


def test_runs_that_are_there_are_not_generated_again(tmp_path: Path) -> None:
    pipe = tiny_sd()
    calls: list[int] = []
    pipe.unet.register_forward_hook(lambda *args: calls.append(1))
    out = tmp_path / "c.zarr"
    first = probe(pipe, PROMPTS, [0, 1], 2, out)
    assert len(calls) == 2
    again = probe(pipe, PROMPTS, [0, 1], 2, out)
    assert len(calls) == 2
    assert_same_numbers(first, again)
    more = probe(pipe, [*PROMPTS, "new"], [0, 1], 2, out)
    assert more.sizes["run"] == 6
    guided = probe(pipe, PROMPTS, [0], 2, out, guidance_scale=3.0)
    assert guided.guidance_scale.values.tolist() == [1.0] * 6 + [3.0] * 2
    assert probe(pipe, PROMPTS, [0], 2, out, label="other").sizes["run"] == 10


class ZImagePipeline(StableDiffusionPipeline):
    """A pipeline that counts its guidance from 0, as the family of this name does."""

    def __call__(
        self, prompt: Any, generator: Any, num_inference_steps: int, guidance_scale: float = 5.0, **kwargs: Any
    ) -> Any:
        return draw(self, prompt, generator, num_inference_steps, guidance_scale=1 + guidance_scale)


class UnguidedPipeline(StableDiffusionPipeline):
    """A pipeline that takes no guidance scale."""

    def __call__(self, prompt: Any, generator: Any, num_inference_steps: int, **kwargs: Any) -> Any:
        return draw(self, prompt, generator, num_inference_steps)


class OtherwiseGuidedPipeline(StableDiffusionPipeline):
    """A pipeline that reads its guidance scale only if it was distilled."""

    def __call__(
        self, prompt: Any, generator: Any, num_inference_steps: int, guidance_scale: float | None = None, **kwargs: Any
    ) -> Any:
        return draw(self, prompt, generator, num_inference_steps)


def draw(pipe: Any, prompt: Any, generator: Any, steps: int, guidance_scale: float = 1.0) -> Any:
    return StableDiffusionPipeline.__call__(
        pipe,
        prompt,
        generator=generator,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        output_type="latent",
    )


def tiny_of(kind: Any) -> Any:
    pipe = kind(**tiny_sd().components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_guidance_is_off_at_the_scale_at_which_the_family_does_not_guide(tmp_path: Path) -> None:
    plain = probe(tiny_sd(), PROMPTS, [0], 2, tmp_path / "plain.zarr")
    ours = probe(tiny_of(ZImagePipeline), PROMPTS, [0], 2, tmp_path / "ours.zarr")
    np.testing.assert_array_equal(ours.energy.values, plain.energy.values)
    assert ours.guidance_scale.values.tolist() == [0.0, 0.0]
    assert probe(tiny_of(ZImagePipeline), PROMPTS, [0], 2, tmp_path / "ours.zarr").sizes["run"] == 2


@pytest.mark.parametrize("kind", [UnguidedPipeline, OtherwiseGuidedPipeline])
def test_a_pipeline_without_guidance_is_resumed_too_and_refuses_a_scale(kind: Any, tmp_path: Path) -> None:
    pipe = tiny_of(kind)
    probe(pipe, PROMPTS, [0], 2, tmp_path / "c.zarr")
    assert probe(pipe, PROMPTS, [0], 2, tmp_path / "c.zarr").sizes["run"] == 2
    with pytest.raises(UserError, match="takes no guidance scale"):
        probe(pipe, PROMPTS, [0], 2, tmp_path / "d.zarr", guidance_scale=3.0)


def test_a_pipeline_that_needs_more_than_a_prompt_is_refused(tmp_path: Path) -> None:
    pipe = tiny_of(StableDiffusionImg2ImgPipeline)
    with pytest.raises(UserError, match="StableDiffusionImg2ImgPipeline does not generate from a prompt alone"):
        probe(pipe, PROMPTS, [0], 2, tmp_path / "c.zarr")
    assert not (tmp_path / "c.zarr").exists()


def test_another_number_of_steps_is_refused_even_if_all_runs_are_there(tmp_path: Path) -> None:
    pipe = tiny_sd()
    probe(pipe, PROMPTS, [0], 2, tmp_path / "c.zarr")
    with pytest.raises(UserError, match="num_inference_steps was 2, is 3"):
        probe(pipe, PROMPTS, [0], 3, tmp_path / "c.zarr")


def test_resume_may_be_forbidden_or_demanded(tmp_path: Path) -> None:
    pipe = tiny_sd()
    with pytest.raises(UserError, match="there is no cube"):
        probe(pipe, PROMPTS, [0], 2, tmp_path / "c.zarr", resume="must")
    probe(pipe, PROMPTS, [0], 2, tmp_path / "c.zarr", resume="never")
    with pytest.raises(UserError, match="exists already"):
        probe(pipe, PROMPTS, [1], 2, tmp_path / "c.zarr", resume="never")
    assert probe(pipe, PROMPTS, [1], 2, tmp_path / "c.zarr", resume="must").sizes["run"] == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": []}, "at least one prompt"),
        ({"prompts": "a"}, "list of at least one prompt"),
        ({"seeds": []}, "at least one seed"),
        ({"seeds": [-1]}, "seeds are 0 or more"),
        ({"steps": 0}, "at least 1 step"),
        ({"batch": 0}, "at least 1 step and batches"),
        ({"model": "no such model"}, "no such model"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_and_leave_nothing(change: Any, message: str, tmp_path: Path) -> None:
    arguments = {"model": "mini", "prompts": PROMPTS, "seeds": [0], "steps": 2, "out": tmp_path / "c.zarr"} | change
    with pytest.raises(UserError, match=message):
        probe(**arguments)
    assert not (tmp_path / "c.zarr").exists()


@pytest.mark.parametrize("kind", ["file in the way", "file as parent", "foreign folder", "read-only"])
def test_a_place_that_cannot_be_written_is_refused_before_a_model_is_opened(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spectra.models.load_pipeline", lambda *args: pytest.fail("no model may be opened"))
    out = tmp_path / "c.zarr"
    if kind == "file in the way":
        out.write_text("")
    elif kind == "file as parent":
        (tmp_path / "file").write_text("")
        out = tmp_path / "file" / "c.zarr"
    elif kind == "foreign folder":
        out.mkdir()
        (out / "notes.txt").write_text("mine")
    else:
        out = Path("/proc/c.zarr")
    with pytest.raises(UserError, match=str(out)):
        probe("mini", PROMPTS, [0], 2, out)


def test_a_pipeline_without_guidance_refuses_a_scale(tmp_path: Path) -> None:
    class Plain(type(tiny_sd())):  # type: ignore[misc]
        def __call__(self, prompt: list[str], generator: Any, num_inference_steps: int) -> Any: ...

    pipe = tiny_sd()
    pipe.__class__ = Plain
    with pytest.raises(UserError, match="takes no guidance scale"):
        probe(pipe, PROMPTS, [0], 2, tmp_path / "c.zarr", guidance_scale=2.0)


def test_the_scheduler_is_that_of_the_name_while_it_probes(tmp_path: Path) -> None:
    pipe = tiny_sd()
    before = pipe.scheduler
    cube = probe(pipe, PROMPTS, [0], 2, tmp_path / "c.zarr", scheduler="EulerDiscrete")
    assert json.loads(cube.attrs["scheduler"])["class"] == "EulerDiscreteScheduler"
    assert pipe.scheduler is before
    assert cube.noise_level.values[0] > 10, "Euler counts noise by its variance"
    with pytest.raises(UserError, match=r"scheduler\.class was"):
        probe(pipe, PROMPTS, [0], 2, tmp_path / "c.zarr")
    assert probe(pipe, PROMPTS, [0], 2, tmp_path / "c.zarr", scheduler="EulerDiscreteScheduler").sizes["run"] == 2


def test_a_scheduler_that_diffusers_does_not_have_is_refused_with_those_near(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"diffusers has no scheduler 'Eulerdiscreet'; near are .*EulerDiscreteSch"):
        probe(tiny_sd(), PROMPTS, [0], 2, tmp_path / "c.zarr", scheduler="Eulerdiscreet")


@pytest.mark.parametrize(
    ("kind", "scheduler", "reason"),
    [
        (tiny_sd, "FlowMatchEulerDiscrete", "it has no init_noise_sigma"),
        (tiny_sd, "CogVideoXDPM", "its step is called with model_output, old_pred_original_sample"),
        (tiny_sd, "UnCLIP", "it has no order"),
        (tiny_sd3, "EulerDiscrete", "trained with flow matching"),
        (tiny_sd3, "DDIM", "trained with flow matching"),
    ],
)
def test_a_scheduler_of_another_kind_is_refused(kind: Any, scheduler: str, reason: str, tmp_path: Path) -> None:
    pipe = kind()
    before = pipe.scheduler
    with pytest.raises(UserError, match=f"{scheduler} does not fit .*{reason}.*; choose another scheduler"):
        probe(pipe, PROMPTS, [0], 2, tmp_path / "c.zarr", scheduler=scheduler)
    assert pipe.scheduler is before
    assert not list(tmp_path.iterdir())


def test_runs_under_another_guidance_rule_are_other_runs(tmp_path: Path) -> None:
    pipe, out = tiny_sd3(), tmp_path / "c.zarr"
    plain = probe(pipe, PROMPTS, [0], 4, out, guidance_scale=3.0)
    assert set(plain.guidance_rule.values) == {"cfg"}
    both = probe(pipe, PROMPTS, [0], 4, out, guidance_scale=3.0, guidance="cfg-zero-star")
    assert both.guidance_rule.values.tolist() == ["cfg"] * 2 + ["cfg-zero-star"] * 2
    energy = both.energy.sel(signal="latent").isel(step=-1).values
    assert abs(energy[2:] / energy[:2] - 1).max() > 1e-3
    for rule in (None, "cfg-zero-star", "cfg"):
        assert probe(pipe, PROMPTS, [0], 4, out, guidance_scale=3.0, guidance=rule).sizes["run"] == 4
    with pytest.raises(UserError, match="there is no guidance rule 'sideways'"):
        probe(pipe, PROMPTS, [0], 4, out, guidance_scale=3.0, guidance="sideways")


def saved_lora(folder: Path, file: str, seed: int) -> Path:
    """A LoRA of the tiny model, as diffusers or as PEFT saves it."""
    from peft import LoraConfig, get_peft_model
    from peft.utils import get_peft_model_state_dict

    unet = tiny_sd().unet
    torch.manual_seed(seed)
    wrapped = get_peft_model(unet, LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    if file == "peft":
        wrapped.save_pretrained(folder)
    else:
        weights = get_peft_model_state_dict(wrapped)
        layers = {name.removeprefix("base_model.model."): value for name, value in weights.items()}
        StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)
    return folder


@pytest.mark.parametrize("kind", ["peft", "diffusers"])
def test_an_adapter_is_loaded_from_its_folder_and_names_the_runs(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "c.zarr"
    plain = probe(tiny_sd(), PROMPTS, [0], 2, out)
    style = saved_lora(tmp_path / "style", kind, 1)
    both = probe(tiny_sd(), PROMPTS, [0], 2, out, adapter=style)
    assert both.adapter.values.tolist() == ["", "", "style", "style"]
    ends = both.energy.sel(signal="latent").isel(step=-1).values
    assert abs(ends[2:] - ends[:2]).max() > 1e-4
    assert both.energy.values[:2].tobytes() == plain.energy.values.tobytes()
    assert probe(tiny_sd(), PROMPTS, [0], 2, out, adapter=style).sizes["run"] == 4
    other = saved_lora(tmp_path / "other" / "style", kind, 2)
    assert probe(tiny_sd(), PROMPTS, [0], 2, out, adapter=other).sizes["run"] == 6, "weights tell adapters apart"


@pytest.mark.parametrize("kind", ["missing", "empty", "unknown", "pickled", "foreign"])
def test_an_adapter_that_cannot_be_loaded_is_refused_and_leaves_nothing(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "adapter"
    if kind != "missing":
        place.mkdir()
    if kind in ("unknown", "pickled"):
        (place / "adapter_config.json").write_text(json.dumps({"peft_type": {"unknown": "MAGIC"}.get(kind, "LORA")}))
        (place / "adapter_model.bin").write_bytes(b"pickle")
    if kind == "foreign":
        save_file({"nonsense.lora_A.weight": torch.zeros(2, 3)}, place / "pytorch_lora_weights.safetensors")
    with pytest.raises(UserError, match=str(place)):
        probe(tiny_sd(), PROMPTS, [0], 2, tmp_path / "c.zarr", adapter=place)
    assert not (tmp_path / "c.zarr").exists()


def test_what_prepare_attaches_is_probed(tmp_path: Path) -> None:
    def prepare(pipe: Any) -> None:
        pipe.unet.conv_in.weight.data.mul_(1.1)

    plain, changed = (
        probe(tiny_sd(), PROMPTS, [0], 2, tmp_path / name, prepare=hook, label=name)
        for name, hook in (("plain", None), ("changed", prepare))
    )
    assert changed.adapter.values.tolist() == ["changed"] * 2
    assert not np.array_equal(plain.energy.values, changed.energy.values)


KILLED = """
import functools, os, signal, sys
import diffusers, zarr
from spectra.probe import probe

model, out, where, count = sys.argv[1:5]
owner, method = {"step": (diffusers.DDIMScheduler, "step"), "status": (zarr.storage.LocalStore, "set"),
                 "resize": (zarr.Array, "resize"), "create": (zarr.Group, "create_array")}[where]
original, left = getattr(owner, method), [int(count)]

@functools.wraps(original)
def deadly(self, *args, **kwargs):
    left[0] -= where != "status" or str(args[0]).startswith("status/c")
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, *args, **kwargs)

setattr(owner, method, deadly)
probe(model, ["a red circle", "a blue square"], range(3), 3, out, batch=2)
"""


@pytest.mark.slow
def test_a_probe_that_is_killed_and_resumed_ends_with_the_same_numbers(folder: str, tmp_path: Path) -> None:
    """Killed while the cube is made, in the midst of sampling, between two resizes and before the status is written."""
    undisturbed = probe(folder, PROMPTS, range(3), 3, tmp_path / "whole.zarr", batch=2)
    out = tmp_path / "killed.zarr"
    survived = []
    for where, count in (("create", 9), ("step", 2), ("resize", 4), ("status", 0), ("status", 1)):
        command = [sys.executable, "-c", KILLED, folder, str(out), where, str(count)]
        done = subprocess.run(command, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120)
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        survived.append(spectra.open_cube(out).sizes["run"] if out.exists() else 0)
    assert survived == [0, 0, 0, 0, 2]
    assert_same_numbers(probe(folder, PROMPTS, range(3), 3, out, batch=2), undisturbed)
    assert spectra.validate(out) == 6


@pytest.mark.slow
def test_a_probe_killed_at_random_moments_ends_bit_for_bit_as_an_undisturbed_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.faults.kill_probe", "--kills", "6", "--out", str(tmp_path / "k.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    tally = json.loads((tmp_path / "k.json").read_text())
    assert tally["equal"]
    assert tally["killed"] == 6


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("Heun", "HeunDiscreteScheduler"),
        ("UniPC", "UniPCMultistepScheduler"),
        ("EulerAncestral", "EulerAncestralDiscreteScheduler"),
        ("euler", "EulerDiscreteScheduler"),
        ("ddim", "DDIMScheduler"),
    ],
)
def test_a_scheduler_may_be_called_as_people_call_it(name: str, full: str) -> None:
    assert setting._scheduler_class(name).__name__ == full


def test_a_name_that_two_schedulers_share_lists_them() -> None:
    with pytest.raises(UserError, match="DPMSolverMultistepScheduler or DPMSolverSinglestepScheduler: give the whole"):
        setting._scheduler_class("dpmsolver")


@pytest.mark.parametrize("slots", [("tokenizer",), ("tokenizer", "text_encoder")])
def test_a_model_without_a_tokenizer_is_refused_before_anything(slots: tuple[str, ...], tmp_path: Path) -> None:
    pipe = tiny_sd()
    for slot in slots:
        setattr(pipe, slot, None)
    with pytest.raises(UserError, match="has no tokenizer, so it cannot read prompts"):
        probe(pipe, PROMPTS, [0], 1, tmp_path / "c.zarr")
    assert not (tmp_path / "c.zarr").exists()


def test_weights_are_opened_in_the_type_that_was_asked_for(folder: str, tmp_path: Path) -> None:
    cube = probe(folder, PROMPTS[:1], [0], 1, tmp_path / "c.zarr", dtype="bfloat16")
    assert cube.attrs["dtype"] == "bfloat16"
    with pytest.raises(UserError, match="not in 'int8'"):
        probe(folder, PROMPTS[:1], [0], 1, tmp_path / "d.zarr", dtype="int8")
    with pytest.raises(UserError, match="a pipeline has its own"):
        probe(tiny_sd(), PROMPTS[:1], [0], 1, tmp_path / "d.zarr", dtype="bfloat16")


def test_a_model_is_opened_on_the_device_that_was_asked_for(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spectra.models.usable_device", lambda: torch.device("meta"))
    assert probe(folder, PROMPTS[:1], [0], 1, tmp_path / "c.zarr", device="cpu").sizes["run"] == 1
    with pytest.raises(UserError, match="a pipeline has its own"):
        probe(tiny_sd(), PROMPTS[:1], [0], 1, tmp_path / "d.zarr", device="cpu")
    crew = sharing.Crew(1, 2, torch.device("cpu"), lambda: None)
    monkeypatch.setattr(sharing, "crew", lambda: crew)
    with pytest.raises(UserError, match="each of the 2 processes has a device of its own already; leave the device"):
        probe(folder, PROMPTS[:1], [0], 1, tmp_path / "d.zarr", device="cpu")
    assert not (tmp_path / "d.zarr").exists()


def test_a_rule_with_options_is_resumed_however_it_is_written(tmp_path: Path) -> None:
    pipe, out = tiny_sd3(), tmp_path / "c.zarr"
    for text in ("cfg-zero-star(zero_init=0)", "cfg-zero-star( zero_init = 0 )", "cfg-zero-star"):
        found = probe(pipe, PROMPTS[:1], [0], 2, out, guidance_scale=3.0, guidance=text)
    assert found.guidance_rule.values.tolist() == ["cfg-zero-star(zero_init=0)", "cfg-zero-star"]


def test_a_split_that_no_run_has_is_said_with_its_reason(tmp_path: Path) -> None:
    wanted: dict[str, Any] = {"signals": ("latent", "cond"), "call": {"guidance_rescale": 0.7}}
    with pytest.warns(UserWarning, match="cond, uncond and guidance could not be recorded in any run: "):
        probe(tiny_sd(), PROMPTS[:1], [0], 2, tmp_path / "c.zarr", guidance_scale=3.0, **wanted)
