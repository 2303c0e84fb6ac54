"""Trackers get what is measured, and a missing one is said before any work."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from adapt import trackers
from adapt.config import TrainConfig
from adapt.processes import accelerated
from spectra.errors import UserError


def made(**changes: object) -> TrainConfig:
    return TrainConfig(**({"model": "m", "data": "d", "out": Path("runs/a")} | changes))


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_tracker_is_a_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda package: None)
    with pytest.raises(UserError, match=f"tracker '{name}' needs the package {name}; install it with `pip install"):
        trackers.check_trackers(made(trackers=[name]))
    trackers.check_trackers(made())


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_holds_the_numbers_and_the_settings(tmp_path: Path) -> None:
    EventAccumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator
    config = made(trackers=["tensorboard"], project="project")
    with accelerated(config) as accelerator:
        with trackers.tracked(accelerator, config, tmp_path, 0):
            for step in range(3):
                accelerator.log({"loss": 1.0 / (step + 1), "loss/noise_1_of_4": float(step)}, step=step)
        assert accelerator.trackers == []
    found = EventAccumulator(str(tmp_path / "logs" / "project")).Reload()
    assert [event.value for event in found.Scalars("loss")] == pytest.approx([1.0, 0.5, 1 / 3])
    assert [event.step for event in found.Scalars("loss/noise_1_of_4")] == [0, 1, 2]
    assert list((tmp_path / "logs").rglob("hparams.yml"))


def test_settings_become_numbers_and_texts() -> None:
    plain = trackers.plain(made(trackers=["wandb"], targets=["to_q"]).record())
    assert all(isinstance(value, bool | int | float | str) for value in plain.values())
    assert plain["rank"] == 12
    assert plain["targets"] == "['to_q']"


def test_a_tracker_that_cannot_start_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object) -> None:
        raise RuntimeError("no API key configured")

    config = made(trackers=["tensorboard"])
    monkeypatch.setattr(trackers, "filter_trackers", lambda names, folder: [])
    with accelerated(config) as accelerator:
        monkeypatch.setattr(accelerator, "init_trackers", offline)
        words = "tensorboard cannot start: no API key configured; mend that, or leave trackers out"
        with pytest.raises(UserError, match=words), trackers.tracked(accelerator, config, tmp_path, 0):
            pytest.fail("the body must not run")
