"""The cache says what it holds, and removes what a person does not want any more, and nothing else."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from datasets_cache import encode, prune, store, summary
from datasets_cache.upkeep import DAY, UNKNOWN
from tests.adapt.small import write_pictures
from tests.tiny import tiny_sd


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Two pictures of model `one` used today, one of `two` ten days ago, and samples of a model that is not told."""
    for kind, key, model, days in (
        ("latents", "aa1", "one", 0),
        ("latents", "bb2", "one", 0),
        ("latents", "cc3", "two", 10),
        ("samples", "dd4", "", 40),
    ):
        place = store.entry(tmp_path, kind, key)
        store.write(place, {"a": np.zeros(50, np.float32)}, {"model": model} if model else None)
        os.utime(place, (time.time() - days * DAY,) * 2)
    return tmp_path


def test_the_summary_counts_entries_by_kind_and_model(cache: Path) -> None:
    found = {(usage.kind, usage.model): usage for usage in summary(cache)}
    assert {place: usage.entries for place, usage in found.items()} == {
        ("latents", "one"): 2, ("latents", "two"): 1, ("samples", UNKNOWN): 1
    }  # fmt: skip
    assert sum(usage.bytes for usage in found.values()) == sum(
        p.stat().st_size for p in cache.rglob("*") if p.is_file()
    )
    assert time.time() - found["latents", "two"].oldest == pytest.approx(10 * DAY, rel=1e-3)


def test_a_missing_cache_is_empty(tmp_path: Path) -> None:
    assert summary(tmp_path / "none") == []
    assert prune(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("chosen", "removed"),
    [
        ({"days": 5}, {"cc3", "dd4"}),
        ({"days": 20}, {"dd4"}),
        ({"model": "one"}, {"aa1", "bb2"}),
        ({"model": "two", "days": 20}, set()),
        ({}, {"aa1", "bb2", "cc3", "dd4"}),
    ],
)
def test_pruning_removes_what_is_chosen_and_nothing_else(cache: Path, chosen: dict, removed: set[str]) -> None:  # type: ignore[type-arg]
    before = {path.stem for path in cache.rglob("*.zarr")}
    assert {entry.path.stem for entry in prune(cache, **chosen)} == removed
    assert {path.stem for path in cache.rglob("*.zarr")} == before - removed


def test_what_killed_writers_left_is_removed_and_what_writers_at_work_have_is_not(cache: Path) -> None:
    old, young = (cache / "latents" / "aa" / f".new-{name}" for name in ("old", "young"))
    for left in (old, young):
        left.mkdir()
    os.utime(old, (time.time() - 2 * DAY,) * 2)
    prune(cache, model="none")
    assert (old.exists(), young.exists()) == (False, True)


def test_what_a_run_finds_counts_as_used_and_is_made_again_after_pruning(tmp_path: Path) -> None:
    folder, pipe, cache = write_pictures(tmp_path / "data", 2), tiny_sd(), tmp_path / "cache"
    encode(folder, pipe, cache)
    for path in cache.rglob("*.zarr"):
        os.utime(path, (time.time() - 10 * DAY,) * 2)
    (folder / "1.png").unlink()
    (folder / "1.txt").unlink()
    encode(folder, pipe, cache)
    assert sorted(entry.kind for entry in prune(cache, days=5)) == ["latents", "text"]
    assert encode(folder, pipe, cache).misses == 0
    assert {usage.model for usage in summary(cache)} == {"StableDiffusionPipeline"}
