"""The store: what is there is whole, what is torn is made again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datasets_cache import store
from spectra.errors import UserError

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(1, np.float32)}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = store.entry(tmp_path, "kind", "abcdef")
    assert store.read(path) is None
    store.write(path, ARRAYS)
    found = store.read(path)
    assert found is not None
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)


def test_writing_leaves_one_entry_and_no_scratch(tmp_path: Path) -> None:
    path = store.entry(tmp_path, "kind", "abcdef")
    store.write(path, ARRAYS)
    store.write(path, ARRAYS)
    assert [p.name for p in path.parent.iterdir()] == ["abcdef.zarr"]


def test_a_torn_entry_is_absent_and_can_be_replaced(tmp_path: Path) -> None:
    path = store.entry(tmp_path, "kind", "abcdef")
    store.write(path, ARRAYS)
    (path / "zarr.json").write_text("{")
    assert store.read(path) is None
    store.write(path, ARRAYS)
    assert store.read(path) is not None


def test_a_failure_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "_publish", fail)
    path = store.entry(tmp_path, "kind", "abcdef")
    with pytest.raises(UserError, match="No space left on device"):
        store.write(path, ARRAYS)
    assert list(path.parent.iterdir()) == []


def test_a_cache_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="SPECTRA_CACHE"):
        store.write(store.entry(tmp_path / "file", "kind", "abcdef"), ARRAYS)


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECTRA_CACHE", str(tmp_path))
    assert store.cache_directory() == tmp_path
    monkeypatch.delenv("SPECTRA_CACHE")
    assert store.cache_directory().name == "spectra"


def test_numbers_keep_their_kind(tmp_path: Path) -> None:
    path = store.entry(tmp_path, "kind", "abcdef")
    arrays = {
        "mask": np.array([True, False]),
        "ids": np.array([[2**40]]),
        "scalar": np.array(0.1),
        "half": np.ones(2, "f2"),
    }
    store.write(path, arrays)
    found = store.read(path)
    assert found is not None
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_shapes_are_known_without_reading(tmp_path: Path) -> None:
    path = store.entry(tmp_path, "kind", "abcdef")
    assert store.look(path) is None
    store.write(path, ARRAYS, {"model": "x"})
    assert store.look(path) == {"a": (2, 3), "b": (1,)}
    assert (store.about(path) or {})["told"] == {"model": "x"}
    store.write(store.entry(tmp_path, "kind", "empty"), {})
    assert store.look(store.entry(tmp_path, "kind", "empty")) == {}


@pytest.mark.parametrize("value", [0.0, 1.5])
def test_a_file_that_is_missing_or_short_is_damage_even_of_zeros(tmp_path: Path, value: float) -> None:
    path = store.entry(tmp_path, "kind", "abcdef")
    store.write(path, {"a": np.full((4, 4), value, np.float32)})
    chunk = next(file for file in path.rglob("*") if file.is_file() and file.name != "zarr.json")
    whole = chunk.read_bytes()
    for damage in (lambda: chunk.write_bytes(whole[:-1]), chunk.unlink):
        damage()
        assert store.look(path) is None
        assert store.read(path) is None


def test_a_flipped_bit_is_found_by_reading(tmp_path: Path) -> None:
    path = store.entry(tmp_path, "kind", "abcdef")
    store.write(path, {"a": np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)})
    chunk = next(file for file in path.rglob("*") if file.is_file() and file.name != "zarr.json")
    whole = bytearray(chunk.read_bytes())
    for place in range(20, len(whole), 40):
        changed = bytearray(whole)
        changed[place] ^= 4
        chunk.write_bytes(changed)
        assert store.read(path) is None


@pytest.mark.parametrize(("before", "after"), [("chunk_shape", "chunk_shap_"), ("    8,", "    9,")])
def test_an_array_that_is_described_wrongly_is_damage(tmp_path: Path, before: str, after: str) -> None:
    path = store.entry(tmp_path, "kind", "abcdef")
    store.write(path, {"a": np.ones((8, 8), np.float32)})
    about = path / "a" / "zarr.json"
    changed = about.read_text().replace(before, after, 1)
    assert changed != about.read_text()
    about.write_text(changed)
    assert store.read(path) is None


def test_entries_that_do_not_tell_their_lengths_are_still_read(tmp_path: Path) -> None:
    import zarr

    path = store.entry(tmp_path, "kind", "abcdef")
    group = zarr.open_group(path, mode="w", attributes={"format": store.FORMAT})
    group.create_array("a", data=ARRAYS["a"])
    assert store.look(path) == {"a": (2, 3)}
    found = store.read(path)
    assert found is not None
    np.testing.assert_array_equal(found["a"], ARRAYS["a"])
