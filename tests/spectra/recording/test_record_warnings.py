"""What is said of recordings that went otherwise than they were meant."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from spectra.errors import UserError
from spectra.guidance import rule
from spectra.probe import probe
from spectra.record import record
from spectra.recording.repeats import Repeats
from spectra.storage.stored import open_stored
from spectra.zoo.gaussian import gaussian_pipeline
from tests.spectra.recording.test_record_lifecycle import Loop
from tests.spectra.witness import CALL, seeded
from tests.tiny import tiny_sd

ONE = CALL | {"num_inference_steps": 1}


def test_a_block_without_a_call_is_warned_of_and_one_that_fails_is_not(tmp_path: Path) -> None:
    pipe = Loop()
    with (
        pytest.warns(
            UserWarning, match=r"nothing was recorded at .*c\.zarr: Loop was not called inside the block"
        ) as said,
        record(pipe, tmp_path / "c.zarr"),
    ):
        pass
    assert [Path(one.filename) for one in said] == [Path(__file__)]
    with warnings.catch_warnings(), pytest.raises(KeyboardInterrupt):  # noqa: PT012
        warnings.simplefilter("error")
        with record(pipe, tmp_path / "c.zarr"):
            raise KeyboardInterrupt


def test_a_block_with_runs_or_one_that_expects_none_is_silent(tmp_path: Path) -> None:
    pipe = Loop()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with record(pipe, tmp_path / "c.zarr"):
            pipe()
        with record(pipe, tmp_path / "c.zarr") as recorder:
            recorder.expects_runs = False


def test_a_probe_that_is_complete_is_silent_and_finds_its_runs_by_the_scale_of_its_rule(tmp_path: Path) -> None:
    once = {"guidance": rule("cfg", scale=4.0), "guidance_scale": 2.0}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for _ in range(2):
            cube = probe(gaussian_pipeline("gaussian:2x8x8:2.0:0.7"), ["a"], [0], 2, tmp_path / "c.zarr", **once)  # type: ignore[arg-type]
    assert cube.guidance_scale.values.tolist() == [4.0]


def test_runs_that_are_recorded_again_are_warned_of_once_in_a_block(tmp_path: Path) -> None:
    pipe = tiny_sd()
    for _ in range(2):
        with warnings.catch_warnings(record=True) as said, record(pipe, tmp_path / "c.zarr") as recorder:
            warnings.simplefilter("always")
            for _ in range(3):
                pipe(["a", "b"], generator=seeded(1, 2), **ONE)
        again = [one for one in said if "holds this prompt and seed" in str(one.message)]
        assert [Path(one.filename) for one in again] == [Path(__file__)]
        assert recorder.runs == 6


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "b"},
        {"generator": seeded(2)[0]},
        {"guidance_scale": 2.0},
        {"negative_prompt": "n"},
        {"generator": None},
    ],
    ids=lambda other: next(iter(other)),
)
def test_runs_that_differ_are_no_repetitions(other: dict[str, Any], tmp_path: Path) -> None:
    pipe, usual = tiny_sd(), {"prompt": "a", "generator": seeded(1)[0]} | ONE
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with record(pipe, tmp_path / "c.zarr"):
            pipe(**usual)
        with record(pipe, tmp_path / "c.zarr"):
            pipe(**usual | other)


def test_runs_of_unknown_noise_are_never_repetitions(tmp_path: Path) -> None:
    pipe = Loop()  # takes a seed, not a generator
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with record(pipe, tmp_path / "c.zarr"):
            pipe(seed=1)
            pipe(seed=1)


def test_a_loop_without_a_guidance_scale_has_repetitions_too(tmp_path: Path) -> None:
    """Its scale is NaN, which equals nothing."""
    scheduler = Loop().scheduler
    for _ in range(2):
        with warnings.catch_warnings(record=True) as said, record(scheduler, tmp_path / "c.zarr") as recorder:
            warnings.simplefilter("always")
            with recorder.sampling("a", seed=1):
                scheduler.set_timesteps(2)
                x = torch.ones(1, 2, 8, 8)
                for t in scheduler.timesteps:
                    x = scheduler.step(x / 2, t, x).prev_sample
    assert [Path(one.filename) for one in said] == [Path(__file__)]
    repeats = Repeats(tmp_path / "c.zarr")
    repeats.read(open_stored(tmp_path / "c.zarr"))
    assert len(repeats.known) == 1
    assert math.isnan(open_stored(tmp_path / "c.zarr").read("guidance_scale")[0])


def test_labels_that_cannot_be_read_are_a_sentence(tmp_path: Path) -> None:
    pipe, path = Loop(), tmp_path / "c.zarr"
    with record(pipe, path):
        pipe()
    chunks = [one for one in (path / "prompt").rglob("*") if one.is_file() and one.suffix != ".json"]
    assert chunks
    for chunk in chunks:
        chunk.write_bytes(b"nonsense")
    with pytest.raises(UserError, match="damaged cube: its labels cannot be read"), record(pipe, path):
        pytest.fail("the block must not be entered")


@pytest.mark.filterwarnings("ignore:nothing was recorded at")
def test_a_recorder_is_shown_in_a_few_words(tmp_path: Path) -> None:
    pipe = Loop()
    with record(pipe, tmp_path / "c.zarr") as recorder:
        assert repr(recorder) == f"Recorder(Loop, {tmp_path / 'c.zarr'}, 0 runs)"
        pipe()
        assert repr(recorder) == f"Recorder(Loop, {tmp_path / 'c.zarr'}, 1 runs)"
    with record(pipe.scheduler, tmp_path / "d.zarr") as recorder, pytest.raises(UserError), recorder.sampling() as run:
        assert len(repr(run)) < 200
