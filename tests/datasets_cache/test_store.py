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
