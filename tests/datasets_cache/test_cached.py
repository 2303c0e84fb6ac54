"""Rows are read when they are asked for, in bounded memory, and are what was encoded."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import torch

from datasets_cache import encode, store
from datasets_cache.cached import CachedData, Shelf
from datasets_cache.families import encode_caption, encode_pixels
from spectra.errors import UserError
from tests.adapt.small import write_pictures
from tests.tiny import tiny_sd

SIZE = 4 * 100
"""Bytes of an entry."""


@cache
def encoded() -> tuple[Any, CachedData]:
    pipe, root = tiny_sd(), Path(mkdtemp())
    return pipe, encode(write_pictures(root / "data", 3), pipe, root / "cache")


def entries(root: Path, count: int) -> list[Path]:
    places = [store.entry(root, "kind", f"{number:064x}") for number in range(count)]
    for number, place in enumerate(places):
        store.write(place, {"a": np.full(100, number, np.float32)})
    return places


def test_rows_are_bit_for_bit_what_the_model_encodes() -> None:
    pipe, data = encoded()
    for row in (2, 0, 1):
        pixels = torch.from_numpy(data.picture(row).astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
        assert torch.equal(data.latents([row]), encode_pixels(pipe, pixels))
        told = encode_caption(pipe, data.captions[row], {})
        found = data.conditioning([row])
        assert found.keys() == told.keys()
        assert all(torch.equal(found[name][0], told[name]) for name in told)


def test_pictures_come_back_as_they_were_encoded() -> None:
    from PIL import Image

    _, data = encoded()
    np.testing.assert_array_equal(data.picture(1), np.asarray(Image.open(data.paths[1])))


def test_memory_is_bounded_and_what_was_used_last_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places, shelf, read = entries(tmp_path, 4), Shelf(limit=3 * SIZE), []
    monkeypatch.setattr(store, "read", lambda place, real=store.read: (read.append(place), real(place))[1])
    for number in (0, 1, 2, 0, 3):
        assert shelf.get(places[number])["a"].unique().tolist() == [number]
        assert shelf.bytes <= shelf.limit
    assert read == [places[0], places[1], places[2], places[3]]
    shelf.get(places[0])
    assert len(read) == 4  # still there; 1, which was used longest ago, gave way
    shelf.get(places[1])
    assert read[-1] == places[1]


def test_an_entry_larger_than_the_memory_is_still_read(tmp_path: Path) -> None:
    shelf = Shelf(limit=1)
    for place in entries(tmp_path, 2):
        assert shelf.get(place)["a"].shape == (100,)


def test_threads_share_a_shelf(tmp_path: Path) -> None:
    places, shelf = entries(tmp_path, 6), Shelf(limit=3 * SIZE)
    order = np.random.default_rng(0).integers(0, 6, 120).tolist()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda number: int(shelf.get(places[number])["a"][0]), order))
    assert found == order
    assert shelf.bytes == SIZE * len(shelf._kept) <= shelf.limit


def test_rows_that_were_asked_for_early_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    _, data = encoded()
    data.shelf.__init__()  # type: ignore[misc]
    expected = data.latents([0, 2])
    data.shelf.__init__()  # type: ignore[misc]
    data.prefetch([0, 2]).result()
    monkeypatch.setattr(store, "read", lambda place: pytest.fail("read again"))
    assert torch.equal(data.latents([0, 2]), expected)
    data.conditioning([0, 2])


def test_an_entry_that_is_damaged_during_a_run_is_named_and_made_again_by_the_next(tmp_path: Path) -> None:
    pipe = tiny_sd()
    folder = write_pictures(tmp_path / "data", 2)
    data = encode(folder, pipe, tmp_path / "cache")
    file = next(file for file in data.places[1].rglob("*") if file.is_file() and file.name != "zarr.json")
    changed = bytearray(file.read_bytes())
    changed[len(changed) // 2] ^= 1
    file.write_bytes(changed)
    data.latents([0])
    with pytest.raises(UserError, match="was damaged or removed during the run; start again"):
        data.latents([1])
    again = encode(folder, pipe, tmp_path / "cache")
    assert again.misses == 1
    again.latents([0, 1])


def test_captions_are_picked_by_number() -> None:
    _, data = encoded()
    both = data.take([0, 1])
    two = CachedData(**{**vars_of(both), "texts": ((both.texts[0][0], both.texts[1][0]), both.texts[1])})
    name = "encoder_hidden_states"
    assert torch.equal(two.conditioning([0, 0, 1], [1, 0, 0])[name], data.conditioning([1, 0, 1])[name])
    assert torch.equal(two.conditioning([0])[name], data.conditioning([0])[name])


def vars_of(data: CachedData) -> dict[str, Any]:
    return {name: getattr(data, name) for name in data.__dataclass_fields__}


def test_several_writers_make_each_entry_once(tmp_path: Path) -> None:
    folder, pipes = write_pictures(tmp_path / "data", 5), [tiny_sd(), tiny_sd()]
    begin, found = threading.Barrier(2), []

    def work(pipe: Any) -> None:
        begin.wait()
        found.append(encode(folder, pipe, tmp_path / "cache"))

    threads = [threading.Thread(target=work, args=(pipe,)) for pipe in pipes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(data.misses for data in found) == 11  # five pictures, five captions, the empty prompt
    assert [data.hits + data.misses for data in found] == [11, 11]
    assert torch.equal(*(data.latents(range(5)) for data in found))
