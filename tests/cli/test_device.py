"""`--device`, which every command that opens a model has, but those whose device accelerate decides."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.adapt.small import finished, model
from tests.conftest import Command

COMMANDS: dict[str, tuple[str, ...]] = {
    "probe": ("spectra", "probe", "--model", "MODEL", "--prompt", "a dot", "--seeds", "0", "--steps", "2"),
    "probe of pictures": ("spectra", "probe", "--model", "MODEL", "--data", "PICTURES/train", "--steps", "2"),
    "sample": ("adapt", "sample", "RUN", "--prompt", "a dot", "--steps", "2"),
    "export": ("adapt", "export", "RUN", "--steps", "2", "--prompt", "a dot"),
    "cache": ("adapt", "cache", "--model", "MODEL", "--data", "PICTURES", "--set", "cache=CACHE"),
    "evaluate": ("adapt", "evaluate", "--model", "MODEL", "--prompt", "a dot", "--seeds", "0", "--steps", "2"),
}


def asked(name: str, pictures: Path, folder: Path) -> list[str]:
    """The words of a command, with a place to write where it takes one."""
    places = {
        "MODEL": str(model("sd")), "PICTURES": str(pictures), "RUN": str(finished("lora").path),
        "CACHE": str(folder / "cache"),
    }  # fmt: skip
    words = list(COMMANDS[name])
    for short, path in places.items():
        words = [word.replace(short, path) for word in words]
    return [*words, *([] if name == "cache" else ["--out", str(folder / "out.zarr")])]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_computes_on_the_device_that_it_is_told(
    name: str, command: Command, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = asked(name, pictures, tmp_path)
    monkeypatch.setattr("spectra.models.usable_device", lambda: torch.device("meta"))  # where nothing has a value
    monkeypatch.setattr("accelerate.Accelerator", lambda: pytest.fail("accelerate was asked for a device"))
    done = command(*words, "--device", "cpu")
    assert done.code == 0, done.err
    assert list(tmp_path.iterdir())


@pytest.mark.parametrize("device", ["cuda:1", "banana"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_device_that_is_not_there_is_one_sentence_and_nothing_is_written(
    name: str, device: str, command: Command, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = asked(name, pictures, tmp_path)
    monkeypatch.setattr("spectra.models.usable_device", lambda: torch.device("cpu"))
    monkeypatch.setattr("spectra.models.load_pipeline", lambda *_: pytest.fail("no model may be opened"))
    said = command(*words, "--device", device).refused()
    assert said.endswith(f"the device '{device}' cannot be used; give one that is here: cpu.")
    assert not list(tmp_path.iterdir())


def test_a_device_means_nothing_where_no_model_is_opened(command: Command) -> None:
    said = command("adapt", "cache", "--device", "cpu").refused()
    assert "--device says nothing without --data; give the data to encode" in said
