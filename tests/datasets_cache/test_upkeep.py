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


@pytest.mark.parametrize(
    "place",
    [
        "class/dogs",
        "tables/2024/results",
        "latents/mine/raw.zarr",
        "latents/aa/bb3.zarr",
        "samples/ab/cd",
        "x/y/.new-z",
    ],
)
def test_what_the_cache_did_not_make_stays_in_a_folder_that_was_chosen_by_mistake(cache: Path, place: str) -> None:
    (cache / place).mkdir(parents=True)
    (cache / place / "file").write_text("precious")
    os.utime(cache / place, (time.time() - 100 * DAY,) * 2)
    prune(cache)
    assert (cache / place / "file").read_text() == "precious"
    assert summary(cache) == []


def test_links_out_of_the_cache_are_not_followed(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / ("a" * 64)
    outside.mkdir()
    (cache / "class").symlink_to(outside.parent)
    prune(cache)
    assert outside.is_dir()


def test_drawn_classes_and_unpacked_tables_are_removed(cache: Path) -> None:
    drawn, table = cache / "class" / ("0" * 64), cache / "tables" / "parquet" / "default-0123456789abcdef"
    drawn.mkdir(parents=True)
    (table / "0.0.0" / "a").mkdir(parents=True)
    (table / "0.0.0" / "a" / "dataset_info.json").write_text("{}")
    assert {entry.path for entry in prune(cache)} >= {drawn, table}


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
