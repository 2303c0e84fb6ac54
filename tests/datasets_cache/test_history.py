"""The cache says why it encodes something: the reason is true for each way in which an entry can be missing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from datasets_cache import Preparation, encode, encoder
from datasets_cache.history import INDEX
from tests.adapt.small import write_pictures
from tests.tiny import tiny_sd


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny_sd()


@pytest.fixture
def folder(tmp_path: Path, pipe: Any) -> Path:
    folder = write_pictures(tmp_path / "data", 2)
    assert encode(folder, pipe, tmp_path / "cache").first_miss == f"{folder / '0.png'}: the picture is new"
    assert encode(folder, pipe, tmp_path / "cache").first_miss is None
    return folder


def reason(folder: Path, pipe: Any, **preparation: Any) -> str | None:
    made = encode(folder, pipe, folder.parent / "cache", preparation=Preparation(**preparation))
    return made.first_miss and made.first_miss.removeprefix(f"{folder}/")


def test_a_new_picture(folder: Path, pipe: Any) -> None:
    Image.new("RGB", (64, 64), "blue").save(folder / "2.png")
    (folder / "2.txt").write_text("blue")
    assert reason(folder, pipe) == "2.png: the picture is new"


def test_a_new_caption(folder: Path, pipe: Any) -> None:
    (folder / "1.txt").write_text("something else, and longer than forty letters")
    with pytest.warns(UserWarning, match="is cut"):
        assert reason(folder, pipe) == "'something else, and longer than forty le...': the caption is new"


def test_other_bytes_under_the_same_name(folder: Path, pipe: Any) -> None:
    Image.new("RGB", (64, 64), "red").save(folder / "1.png")
    assert reason(folder, pipe) == "1.png: the picture changed since (same name, other bytes)"


@pytest.mark.filterwarnings("ignore:2 pictures are smaller")
def test_another_size_and_back(folder: Path, pipe: Any) -> None:
    assert reason(folder, pipe, resolution=96) == "0.png: other size 64 x 64 -> 96 x 96"
    assert reason(folder, pipe, resolution=32) == "0.png: other size 96 x 96 -> 32 x 32"
    assert reason(folder, pipe) is None


def test_other_weights_of_the_autoencoder(folder: Path) -> None:
    changed = tiny_sd()
    with torch.no_grad():
        changed.vae.quant_conv.bias[0] += 0.5
    assert reason(folder, changed) == "0.png: other VAE weights"


def test_another_text_encoder(folder: Path) -> None:
    changed = tiny_sd()
    with torch.no_grad():
        next(changed.text_encoder.parameters())[0] += 0.5
    assert reason(folder, changed) == "'ramp 0 0': other text encoder, tokenizer or call defaults"


def test_another_version_of_the_transform(folder: Path, pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "TRANSFORM", "another")
    assert reason(folder, pipe) == "0.png: other transform version"


def test_an_entry_that_was_removed_and_one_that_was_damaged(folder: Path, pipe: Any) -> None:
    data = encode(folder, pipe, folder.parent / "cache")
    shutil.rmtree(data.places[1])
    assert reason(folder, pipe) == "1.png: its entry was damaged or removed from the cache"
    (data.places[1] / "zarr.json").write_text("{")
    with pytest.warns(UserWarning, match=r"damaged in the cache, and made again: .*1\.png"):
        again = encode(folder, pipe, folder.parent / "cache")
    assert again.notes == (f"damaged in the cache, and made again: {folder / '1.png'}",)
    assert again.first_miss == f"{folder / '1.png'}: its entry was damaged or removed from the cache"


def test_a_torn_or_missing_index_costs_the_reason_only(folder: Path, pipe: Any) -> None:
    index = folder.parent / "cache" / INDEX
    index.write_bytes(index.read_bytes()[:-7] + b"\n\xff[1]\n")
    assert reason(folder, pipe) is None
    Image.new("RGB", (64, 64), "red").save(folder / "1.png")
    assert reason(folder, pipe) == "1.png: the picture changed since (same name, other bytes)"
    index.unlink()
    Image.new("RGB", (64, 64), "green").save(folder / "1.png")
    assert reason(folder, pipe) == "1.png: the picture is new"


def test_the_reason_is_known_before_anything_is_encoded(folder: Path, pipe: Any) -> None:
    from datasets_cache.encoding import look
    from datasets_cache.sources import open_dataset

    Image.new("RGB", (64, 64), "red").save(folder / "1.png")
    found = encoder.Encoder(pipe, folder.parent / "cache")
    planned, bad = look(open_dataset(folder), found, Preparation())
    assert bad == []
    assert [one.shape for one in planned] == [(4, 16, 16), None]
    expected = f"{folder / '1.png'}: the picture changed since (same name, other bytes)"
    assert found.why(planned[1]) == expected
    assert encode(folder, pipe, folder.parent / "cache").first_miss == expected
