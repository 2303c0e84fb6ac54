"""A run that was stopped ends with the same bits as one that was not, and never goes on with other settings."""

from __future__ import annotations

import json
import os
import shutil
import signal
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
import xarray as xr

import adapt.loop as loop
from adapt import checkpoint, state
from adapt.checkpoint_tree import save_tree
from adapt.loop import RunResult, TrainingStoppedError, train
from adapt.methods import load_adapter
from adapt.prior import Prior
from adapt.state import read_record
from adapt.step import step_loss
from spectra.errors import UserError
from spectra.models import load_pipeline, model_hash
from tests.adapt.small import config, data, model, write_pictures
from tests.reports.fixtures import write_cube

SETTINGS: dict[str, dict[str, Any]] = {
    "lora": {"method": "lora", "dropout": 0.2, "optimizer": "adamw"},
    "fera": {
        "method": "fera", "dropout": 0.1, "ema": 0.7, "tau_end": 0.3, "fecl_weight": 0.1, "lr_schedule": "linear",
    },
    "adalora": {"method": "adalora", "lr": 1e-2},
    "full": {"method": "full", "optimizer": "adafactor", "lr": 1e-3},
    "text": {"method": "lora", "text_encoder": True, "optimizer": "sgd", "lr": 0.1, "precision": "bf16"},
}  # fmt: skip


def settings(name: str, **changes: Any) -> dict[str, Any]:
    return SETTINGS[name] | {"eval_every": 3, "steps": 5, "sample_prompts": 1} | changes


@cache
def undisturbed(name: str) -> RunResult:
    return train(config(Path(mkdtemp()) / name, **settings(name)))


def stop_at(step: int, number: signal.Signals = signal.SIGTERM) -> Callable[[str, int, int], None]:
    """Progress that sends this process a signal during training step `step`."""

    def told(phase: str, done: int, total: int) -> None:
        if phase == "train" and done == step:
            os.kill(os.getpid(), number)

    return told


def stopped(out: Path, step: int, name: str = "lora", **changes: Any) -> TrainingStoppedError:
    with pytest.raises(TrainingStoppedError) as caught:
        train(config(out, **settings(name, **changes)), stop_at(step))
    return caught.value


def assert_same(one: RunResult, other: RunResult) -> None:
    """Equal adapters, numbers and pictures, to the bit; cards differ in the name of the run."""
    inside = [path for path in (one.path / "adapter").rglob("*") if path.is_file()]
    files = [path.relative_to(one.path) for path in inside if path.name != "README.md"]
    assert len(files) >= 2
    for path in files:
        assert (one.path / path).read_bytes() == (other.path / path).read_bytes()
    for name in ("metrics.zarr", "evaluation.zarr"):
        found = [xr.open_zarr(run.path / name, consolidated=False).load() for run in (one, other)]
        xr.testing.assert_identical(*found)
    free = {"seconds_train", "seconds_total", "finished", "resumed", "peak_memory_mib", "cache", "config", "name"}
    records = [{key: value for key, value in run.record.items() if key not in free} for run in (one, other)]
    assert records[0] == records[1]


@pytest.mark.parametrize(
    "name", ["lora", "fera", *(pytest.param(name, marks=pytest.mark.slow) for name in ("adalora", "full", "text"))]
)
def test_a_stopped_run_ends_with_the_bits_of_an_undisturbed_one(tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    for step in (2, 4):  # between two measurements, and after one
        error = stopped(out, step, name)
        assert error.kept == out / "state" / f"step-00000{step}"
    result = train(config(out, **settings(name)))
    assert result.record["resumed"] == 2
    assert_same(result, undisturbed(name))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_between_steps_in_one_sentence(tmp_path: Path, number: signal.Signals, code: int) -> None:
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    with pytest.raises(KeyboardInterrupt) as caught:
        train(config(tmp_path / "run", **settings("lora")), stop_at(3, number))
    error = caught.value
    assert isinstance(error, TrainingStoppedError)
    assert error.exit_code == code
    assert f"({number.name}) after step 3 of 5; its state is kept in {tmp_path}/run/state/step-000003" in str(error)
    assert {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)} == before
    kept = tmp_path / "run" / "state" / "step-000003" / "adapter"
    assert load_adapter(load_pipeline(model("sd")).unet, kept) == "lora"


def test_a_signal_while_the_last_pictures_are_drawn_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(TrainingStoppedError, match=r"after step 5 of 5; its state is kept in .*step-000005"):
            train(config(tmp_path / "run", **settings("lora")))
    steps: list[int] = []
    result = train(config(tmp_path / "run", **settings("lora")), lambda phase, done, total: steps.append(done))
    assert_same(result, undisturbed("lora"))
    assert min(steps) >= 0
    assert result.record["resumed"] == 1


def test_what_may_change_may_change_on_the_way(tmp_path: Path) -> None:
    stopped(tmp_path / "run", 2)
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    pictures = Path(shutil.copytree(data(), tmp_path / "pictures"))
    changed: dict[str, Any] = {"preview_every": 4, "keep_checkpoints": 3, "checkpoint_every": 1, "lr": None}
    result = train(config(moved, **settings("lora", **changed, data=pictures / "train")))
    metrics = xr.open_zarr(result.path / "metrics.zarr", consolidated=False).load()
    expected = xr.open_zarr(undisturbed("lora").path / "metrics.zarr", consolidated=False).load()
    xr.testing.assert_identical(metrics, expected)
    assert [path.name for path in (moved / "previews").iterdir()] == ["step-000004"]


def test_other_settings_are_refused_and_listed_before_any_work(tmp_path: Path) -> None:
    stopped(tmp_path / "run", 2)
    words = r"unfinished run of other settings \(rank: 12 -> 6; steps: 5 -> 9\); give the saved ones"
    with pytest.raises(UserError, match=words):
        train(config(tmp_path / "run", **settings("lora", steps=9, rank=6, model="no-such-model")))
    assert checkpoint.newest(tmp_path / "run" / "state").step == 2


def test_other_pictures_under_the_same_name_are_refused(tmp_path: Path) -> None:
    pictures = Path(shutil.copytree(data(), tmp_path / "pictures"))
    stopped(tmp_path / "run", 2, data=pictures / "train")
    write_pictures(pictures / "train", 7, seed=3)
    with pytest.raises(UserError, match=r"other settings \(the pictures or captions are other ones\)"):
        train(config(tmp_path / "run", **settings("lora", data=pictures / "train")))


def test_an_unfinished_run_begins_anew_only_if_asked_twice(tmp_path: Path) -> None:
    stopped(tmp_path / "run", 2)
    with pytest.raises(UserError, match="holds an unfinished run"):
        train(config(tmp_path / "run", **settings("lora", resume=False)))
    result = train(config(tmp_path / "run", **settings("lora", resume=False, overwrite=True, seed=1)))
    assert result.record["resumed"] == 0
    assert read_record(tmp_path / "run")["seed"] == 1


def test_a_torn_state_is_passed_over_by_name(tmp_path: Path) -> None:
    out = tmp_path / "run"
    stopped(out, 4, checkpoint_every=1, keep_checkpoints=2)
    (out / "state" / "step-000004" / "training.safetensors").write_bytes(b"short")
    with pytest.warns(UserWarning, match=r"training.safetensors in step-000004 is not what .*goes on from step 3"):
        result = train(config(out, **settings("lora")))
    assert_same(result, undisturbed("lora"))


def test_with_every_state_torn_training_begins_at_the_beginning(tmp_path: Path) -> None:
    out = tmp_path / "run"
    stopped(out, 2)
    (out / "state" / "step-000002" / "complete.json").unlink()
    with pytest.warns(UserWarning, match=r"step-000002 has no complete.json: training goes on from the beginning"):
        result = train(config(out, **settings("lora")))
    assert_same(result, undisturbed("lora"))
    assert result.record["resumed"] == 0


@pytest.mark.parametrize("at", [3, 5])
def test_a_full_disk_is_one_sentence_and_the_earlier_state_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:

    def full(tree: dict[str, Any], folder: Path) -> None:
        save_tree(tree, folder)
        if tree["step"] == at:
            raise OSError(28, "No space left on device")

    earlier = "nothing was kept before" if at == 3 else "step-000003 is whole: make room"
    words = rf"cannot save the state of step {at} .*No space left on device; .*{earlier}"
    with monkeypatch.context() as patch:
        patch.setattr("adapt.checkpoint_keeper.save_tree", full)
        with pytest.raises(UserError, match=words):
            train(config(tmp_path / "run", **settings("lora")))
    assert (tmp_path / "run").exists() == (at == 5)
    assert_same(train(config(tmp_path / "run", **settings("lora"))), undisturbed("lora"))


def test_memory_that_is_used_up_keeps_the_state_and_goes_on_with_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = [0]

    def short(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step_loss(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("adapt.trainer.step_loss", short)
        with pytest.raises(UserError, match=r"not suffice for a training step; raise accumulate .*state/step-000003"):
            train(config(tmp_path / "run", **settings("lora")))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        result = train(config(tmp_path / "run", **settings("lora", accumulate=3, checkpointing=True)))
    assert result.error_after == pytest.approx(undisturbed("lora").error_after, rel=1e-3)


def test_a_finished_run_is_replaced_only_when_the_new_one_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(config(out, **settings("lora")))
    stopped(out, 2, overwrite=True, seed=1)
    assert read_record(out)["seed"] == 0
    result = train(config(out, **settings("lora", overwrite=True, seed=1)))
    assert result.record["resumed"] == 1
    assert read_record(out)["seed"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_checkpoint_says_its_horizon(tmp_path: Path) -> None:
    stopped(tmp_path / "run", 2)
    saved = json.loads((tmp_path / "run" / "state" / "step-000002" / "training.json").read_text())
    assert saved["step"] == 2
    assert (saved["horizon"]["steps"], saved["horizon"]["warmup"]) == (5, 0.05)
    assert not [path for path in (tmp_path / "run").rglob("*") if path.suffix in (".pt", ".bin", ".pkl")]


def test_a_signal_stops_before_the_measurement_that_is_due(tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []
    out, tell = tmp_path / "run", stop_at(3)

    def progress(phase: str, done: int, total: int) -> None:
        told.append((phase, done))
        tell(phase, done, total)

    with pytest.raises(TrainingStoppedError) as caught:
        train(config(out, **settings("lora", preview_every=3)), progress)
    assert caught.value.kept == out / "state" / "step-000003"
    assert ("validate", 3) not in told
    assert not list(out.glob("previews/step-000003"))
    assert_same(train(config(out, **settings("lora"))), undisturbed("lora"))


def test_a_state_under_another_name_is_refused_and_kept(tmp_path: Path) -> None:
    out = tmp_path / "run"
    stopped(out, 2)
    renamed = (out / "state" / "step-000002").rename(out / "state" / "good one")
    with pytest.raises(UserError, match=r"state/good one holds a state under a name that is not a state's; call it"):
        train(config(out, **settings("lora")))
    assert (renamed / "complete.json").is_file()
    renamed.rename(out / "state" / "step-000002")
    assert_same(train(config(out, **settings("lora"))), undisturbed("lora"))


def test_a_prior_may_move_but_not_change(tmp_path: Path) -> None:
    cube = write_cube(tmp_path / "probe.zarr", model_hash=model_hash(model("sd")))
    first = Prior.from_cube(cube)
    stopped(tmp_path / "run", 2, "fera", prior=first.save(tmp_path / "a.json"))
    means = {name: replace(one, mean=tuple(m + 1 for m in one.mean)) for name, one in first.statistics.items()}
    other = replace(first, statistics=means).save(tmp_path / "a.json")
    with pytest.raises(UserError, match=r"other settings \(the prior's numbers are other ones\)"):
        train(config(tmp_path / "run", **settings("fera", prior=other)))
    moved = first.save(tmp_path / "b.json")
    assert train(config(tmp_path / "run", **settings("fera", prior=moved))).record["resumed"] == 1


def test_a_setting_that_only_another_version_knows_is_refused(tmp_path: Path) -> None:
    stopped(tmp_path / "run", 2)
    begun = tmp_path / "run" / "config.json"
    saved = json.loads(begun.read_text())
    saved["config"]["sparkle"] = 3
    begun.write_text(json.dumps(saved))
    with pytest.raises(UserError, match=r"other settings \(sparkle: 3, not known to this version\)"):
        train(config(tmp_path / "run", **settings("lora")))


def test_errors_that_are_not_of_the_disk_are_not_called_so(tmp_path: Path) -> None:
    def gone(phase: str, done: int, total: int) -> None:
        if phase == "train":
            raise ConnectionResetError(104, "Connection reset by peer")

    with pytest.raises(ConnectionResetError):
        train(config(tmp_path / "run", **settings("lora")), gone)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_elsewhere_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", "/cache/latents")

    monkeypatch.setattr(loop, "prepare", full)
    with pytest.raises(UserError, match=r"^cannot write /cache/latents: No space left on device$"):
        train(config(tmp_path / "run"))


def test_memory_that_does_not_suffice_to_begin_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loop, "prepare", short)
    with pytest.raises(UserError, match=r"not suffice to open .* and encode its data; .* is in the cache"):
        train(config(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_another_process_has_just_finished_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    real = state.claim

    def claim(*args: Any, **kwargs: Any) -> state.Home:
        home = real(*args, **kwargs)
        state.publish(home, {"name": "of the other"})
        return home

    monkeypatch.setattr(state, "claim", claim)
    with pytest.raises(UserError, match="was finished by another process"):
        train(config(out))
    assert read_record(out)["name"] == "of the other"
