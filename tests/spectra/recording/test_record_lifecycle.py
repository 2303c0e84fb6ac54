"""What recording survives: nesting, threads, copies, shared parts, exceptions, full disks."""

from __future__ import annotations

import copy
import threading
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

import spectra
from spectra.errors import UserError
from spectra.record import record
from spectra.recording import sink
from spectra.temporal import temporal_energies
from tests.spectra.witness import CALL, seeded
from tests.tiny import tiny_sd


class Loop:
    """A pipeline without networks: `x -> scheduler.step(x / 2, t, x)`, with a hook into every step."""

    def __init__(self, shape: tuple[int, ...] = (1, 2, 8, 8), scheduler: Any = None) -> None:
        self.scheduler = scheduler or diffusers.FlowMatchEulerDiscreteScheduler()
        self.shape, self.components = shape, {"scheduler": self.scheduler}
        self.each: Any = lambda step: None

    def __call__(self, prompt: str = "a", seed: int = 0, num_inference_steps: int = 3) -> torch.Tensor:
        self.scheduler.set_timesteps(num_inference_steps)
        x = torch.randn(self.shape, generator=torch.Generator().manual_seed(seed))
        for step, t in enumerate(self.scheduler.timesteps):
            self.each(step)
            x = self.scheduler.step(x / 2, t, x).prev_sample
        return x


class Wrapper(Loop):
    """A pipeline that leaves the work to another one, which has the same scheduler."""

    def __init__(self, inner: Loop) -> None:
        super().__init__(scheduler=inner.scheduler)
        self.inner = inner

    def __call__(self, prompt: str = "a", **kwargs: Any) -> torch.Tensor:
        return self.inner(prompt, **kwargs)


def test_a_pipeline_within_a_pipeline_is_recorded_through_either_or_both(tmp_path: Path) -> None:
    inner = Loop()
    outer = Wrapper(inner)
    with record(outer, tmp_path / "outer.zarr"):
        outer("first")
        with record(inner, tmp_path / "inner.zarr"):
            outer("second")
        outer("third")
    one, two = (spectra.open_cube(tmp_path / f"{name}.zarr") for name in ("outer", "inner"))
    assert one.prompt.values.tolist() == ["first", "second", "third"]
    assert two.prompt.values.tolist() == ["second"]
    np.testing.assert_array_equal(one.energy[1], two.energy[0])


def test_a_pipeline_that_calls_itself_makes_one_run(tmp_path: Path) -> None:
    class Twice(Loop):
        def __call__(self, prompt: str = "a", again: bool = True) -> torch.Tensor:
            return self(prompt, again=False) if again else super().__call__(prompt)

    pipe = Twice()
    with record(pipe, tmp_path / "c.zarr") as recorder:
        pipe("a")
    assert recorder.runs == 1


def test_arguments_that_a_subclass_passes_on_unnamed_have_their_names_and_defaults(tmp_path: Path) -> None:
    class Wrapped(diffusers.StableDiffusionPipeline):  # type: ignore[misc]
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return super().__call__(*args, **kwargs)

    pipe = tiny_sd()
    pipe.__class__ = Wrapped
    with record(pipe, tmp_path / "c.zarr", signals=("latent", "guidance")):
        pipe("a dot", 64, 64, 2, output_type="latent", generator=torch.Generator().manual_seed(3))
    cube = spectra.open_cube(tmp_path / "c.zarr")
    assert (cube.prompt.item(), cube.seed.item(), cube.guidance_scale.item()) == ("a dot", 3, 7.5)
    assert (cube["split"].item(), cube.guidance_rule.item()) == ("", "cfg")


def test_steps_of_a_copied_scheduler_are_not_heard_and_advance_only_the_copy(tmp_path: Path) -> None:
    pipe = Loop()

    def aside(step: int) -> None:
        if step == 0:
            pipe.twin = copy.deepcopy(pipe.scheduler)
        pipe.twin.step(torch.zeros(9, 9), pipe.twin.timesteps[step], torch.ones(9, 9))

    plain = pipe()
    pipe.each = aside
    with record(pipe, tmp_path / "c.zarr"):
        assert torch.equal(pipe(), plain)
    assert pipe.twin.step_index == pipe.scheduler.step_index == 3
    assert spectra.open_cube(tmp_path / "c.zarr").sizes["step"] == 4


def test_two_threads_record_two_pipelines_with_one_scheduler_class(tmp_path: Path) -> None:
    def work(name: str, seed: int) -> None:
        pipe = Loop()
        with record(pipe, tmp_path / f"{name}.zarr"):
            for i in range(5):
                pipe(f"{name}{i}", seed=seed)

    threads = [threading.Thread(target=work, args=(name, seed)) for seed, name in enumerate("ab")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one, two = (spectra.open_cube(tmp_path / f"{name}.zarr") for name in "ab")
    assert one.prompt.values.tolist() == [f"a{i}" for i in range(5)]
    assert two.prompt.values.tolist() == [f"b{i}" for i in range(5)]
    assert (one.energy == one.energy[0]).sum() == (two.energy == two.energy[0]).sum() > 0
    assert not np.allclose(one.energy.isel(run=0, step=0, signal=0), two.energy.isel(run=0, step=0, signal=0))


def test_two_pipelines_may_share_the_scheduler_itself_in_turn(tmp_path: Path) -> None:
    one = tiny_sd()
    two = diffusers.StableDiffusionImg2ImgPipeline(**one.components, requires_safety_checker=False)
    two.set_progress_bar_config(disable=True)
    with record(one, tmp_path / "1.zarr"), record(two, tmp_path / "2.zarr"):
        one("a", generator=seeded(1), **CALL)
        two("b", image=torch.zeros(1, 3, 64, 64), strength=0.5, generator=seeded(1), **CALL)
    assert spectra.open_cube(tmp_path / "1.zarr").sizes["step"] == 5
    assert spectra.open_cube(tmp_path / "2.zarr").sizes["step"] == 3


def test_a_pipeline_that_generates_in_two_threads_at_once_is_refused(tmp_path: Path) -> None:
    pipe, said = Loop(), []

    def meanwhile(step: int) -> None:
        def call() -> None:
            with pytest.raises(UserError, match="in another thread"):
                pipe("other")
            said.append(step)

        if threading.current_thread() is threading.main_thread():
            thread = threading.Thread(target=call)
            thread.start()
            thread.join()

    pipe.each = meanwhile
    with record(pipe, tmp_path / "c.zarr") as recorder:
        pipe("mine")
    assert (recorder.runs, said) == (1, [0, 1, 2])


def test_a_scheduler_has_one_recorder_too(tmp_path: Path) -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    again = "this FlowMatchEulerDiscreteScheduler is being recorded already; end that first"
    with (
        record(scheduler, tmp_path / "1.zarr"),
        pytest.raises(UserError, match=f"^{again}$"),
        record(scheduler, tmp_path / "2.zarr"),
    ):
        pytest.fail("the block must not be entered")
    with record(scheduler, tmp_path / "2.zarr") as recorder:
        assert recorder.runs == 0


def test_runs_are_written_when_the_block_ends_with_an_exception(tmp_path: Path) -> None:
    pipe = Loop()

    def stopped() -> None:
        with record(pipe, tmp_path / "c.zarr"):
            for i in range(3):
                pipe(str(i))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert spectra.open_cube(tmp_path / "c.zarr").prompt.values.tolist() == ["0", "1", "2"]


def test_latents_that_change_their_size_within_a_call_are_refused(tmp_path: Path) -> None:
    class Grows(Loop):
        def __call__(self, prompt: str = "a") -> None:
            self.scheduler.set_timesteps(3)
            for size, t in zip((8, 8, 16), self.scheduler.timesteps, strict=True):
                self.scheduler.step(torch.zeros(1, 2, size, size), t, torch.ones(1, 2, size, size))

    pipe = Grows()
    with record(pipe, tmp_path / "c.zarr"), pytest.raises(UserError, match="a cube has one grid"):
        pipe()


def test_a_rewound_call_of_another_batch_size_leaves_no_trace(tmp_path: Path) -> None:
    """Some pipelines step a doubled batch first and take it back."""

    class Rewinds(Loop):
        def __call__(self, prompt: str = "a") -> None:
            self.scheduler.set_timesteps(3)
            x = torch.ones(1, 2, 8, 8)
            for t in self.scheduler.timesteps:
                self.scheduler.step(torch.cat([x, x]), t, torch.cat([x, x]))
                self.scheduler._step_index -= 1
                x = self.scheduler.step(x / 2, t, x).prev_sample

    pipe, plain = Rewinds(), Loop()
    plain.__class__ = type("Plain", (Loop,), {"__call__": _ones})
    with record(pipe, tmp_path / "1.zarr"), record(plain, tmp_path / "2.zarr"):
        pipe()
        plain()
    one, two = (spectra.open_cube(tmp_path / f"{i}.zarr") for i in (1, 2))
    np.testing.assert_array_equal(one.energy, two.energy)


def _ones(self: Loop, prompt: str = "a") -> None:
    self.scheduler.set_timesteps(3)
    x = torch.ones(1, 2, 8, 8)
    for t in self.scheduler.timesteps:
        x = self.scheduler.step(x / 2, t, x).prev_sample


@pytest.mark.parametrize("memory", [1, 3000, 1 << 20])
def test_numbers_do_not_depend_on_how_much_may_be_held_back(memory: int, tmp_path: Path) -> None:
    pipe = Loop(shape=(2, 2, 3, 8, 8))
    with record(pipe, tmp_path / "1.zarr", signals=("latent", "x0", "eps", "prediction"), memory=memory):
        pipe(["a", "b"])  # type: ignore[arg-type]
    with record(pipe, tmp_path / "2.zarr", signals=("latent", "x0", "eps", "prediction")):
        pipe(["a", "b"])  # type: ignore[arg-type]
    one, two = (spectra.open_cube(tmp_path / f"{i}.zarr") for i in (1, 2))
    np.testing.assert_allclose(one.energy, two.energy, rtol=1e-5)
    np.testing.assert_allclose(one.spectrum, two.spectrum, rtol=1e-5)
    assert np.isfinite(one.coherence.isel(step=slice(-1))).all() == (memory > 3000)


def test_later_runs_wait_for_each_other_and_are_written_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[int] = []
    append = sink.Writer.append
    monkeypatch.setattr(sink.Writer, "append", lambda self, runs: writes.append(len(runs.prompt)) or append(self, runs))
    monkeypatch.setattr(sink, "PATIENCE", 1e9)
    pipe = Loop()
    with record(pipe, tmp_path / "c.zarr") as recorder:
        for i in range(6):
            pipe(str(i))
        assert (recorder.runs, writes) == (6, [1, 1])  # how long a write takes is known from the second on
    assert writes == [1, 1, 4]
    assert spectra.open_cube(tmp_path / "c.zarr").prompt.values.tolist() == [str(i) for i in range(6)]


def test_runs_wait_no_longer_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink, "LONGEST", 0.0)
    pipe = Loop()
    with record(pipe, tmp_path / "c.zarr"):
        for i in range(3):
            pipe(str(i))
            assert spectra.open_cube(tmp_path / "c.zarr").sizes["run"] == i + 1


def test_what_watching_keeps_is_not_changed_by_what_happens_to_it_later(tmp_path: Path) -> None:
    class InPlace(Loop):
        def __call__(self, prompt: str = "a") -> None:
            self.scheduler.set_timesteps(3)
            x = torch.ones(1, 2, 8, 8)
            for t in self.scheduler.timesteps:
                out = x / 2
                after = self.scheduler.step(out, t, x).prev_sample
                x.zero_()
                out.zero_()
                x = after.clone()
                after.zero_()

    pipe, plain = InPlace(), Loop()
    plain.__class__ = type("Plain", (Loop,), {"__call__": _ones})
    with record(pipe, tmp_path / "1.zarr"), record(plain, tmp_path / "2.zarr"):
        pipe()
        plain()
    one, two = (spectra.open_cube(tmp_path / f"{i}.zarr") for i in (1, 2))
    np.testing.assert_array_equal(one.energy, two.energy)


def test_a_video_has_temporal_bands_and_a_resumed_cube_keeps_its_bank(tmp_path: Path) -> None:
    time, video = spectra.FilterBank((0.7, 1.5)), Loop(shape=(1, 2, 5, 8, 8))
    for bank in (time, None):
        with record(video, tmp_path / "c.zarr", temporal=bank):
            end = video()
    cube = spectra.open_cube(tmp_path / "c.zarr")
    bank = spectra.FilterBank.octaves(4, (8, 8))
    expected = temporal_energies(end, time, bank)
    np.testing.assert_allclose(cube.temporal.sel(signal="latent").isel(step=-1)[:1], expected, rtol=1e-4)
    np.testing.assert_array_equal(cube.temporal[0], cube.temporal[1])
    with pytest.raises(UserError, match=r"temporal.scales was"), record(video, tmp_path / "c.zarr", temporal=bank):
        pytest.fail("the block must not be entered")
    pictures = Loop()
    with record(pictures, tmp_path / "p.zarr", temporal=time), pytest.raises(UserError, match="there are no frames"):
        pictures()
