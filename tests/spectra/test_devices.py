"""A device that a person names is used, or refused in one sentence before a model is opened."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from spectra.devices import chosen_device, opened, placed
from spectra.errors import UserError
from tests.tiny import tiny_sd


def cards(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """A machine with so many cards, as torch tells of them."""
    best = torch.device("cuda") if count else None
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: best)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)


def test_a_device_goes_by_its_name_and_without_one_it_is_the_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    cards(monkeypatch, 2)
    for name in ("cuda", "cuda:0", "cuda:1", "cpu"):
        assert chosen_device(name) == torch.device(name)
    assert chosen_device() == torch.device("cuda")
    cards(monkeypatch, 0)
    assert chosen_device() == chosen_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:2", "banana", "mps", "cpu:7", "meta", ""])
@pytest.mark.parametrize(("count", "there"), [(0, "cpu"), (2, "cuda:0, cuda:1, cpu")])
def test_a_device_that_is_not_here_is_refused_with_those_that_are(
    name: str, count: int, there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards(monkeypatch, count)
    monkeypatch.setattr("spectra.models.load_pipeline", lambda *_: pytest.fail("no model may be opened"))
    with pytest.raises(UserError, match=f"^the device '{name}' cannot be used; give one that is here: {there}$"):
        opened("mini", name)


def test_a_device_without_room_is_named() -> None:
    class Large:
        def to(self, device: torch.device) -> Any:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")

    with pytest.raises(UserError, match=r"^the device 'cuda:1' cannot be used: CUDA out of memory\. Tried"):
        placed(Large(), torch.device("cuda:1"))


def test_a_model_is_opened_on_the_device_and_a_pipeline_is_left_where_it_is() -> None:
    pipe = tiny_sd()
    assert opened(pipe) is pipe
    with pytest.raises(UserError, match="a device is for models that are opened here; a pipeline has its own"):
        opened(pipe, "cpu")
    assert opened("gaussian:2x8x8", "cpu").device == torch.device("cpu")
    assert opened("mini", torch.device("meta")).device == torch.device("meta")
