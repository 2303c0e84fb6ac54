"""From settings to encoded data: every source is split by content, and buckets are for training only."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from diffusers import FlowMatchEulerDiscreteScheduler

from adapt.config import TrainConfig
from adapt.loop import train
from adapt.objectives import objective_of
from adapt.task import encode_ahead, load_data, load_one, objective_for, preparation_of, reading_of, silent, split
from datasets_cache import CachedData, Preparation, Reading, encode
from spectra.errors import UserError
from tests.adapt.small import config, encodings, write_pictures
from tests.datasets_cache.sources import KINDS, as_folder, captions, picture
from tests.matrix.train_models import MODELS
from tests.tiny import tiny_sd

SIZES = [(64, 64), (96, 64), (64, 96)] * 4


@cache
def pipe() -> Any:
    return tiny_sd()


def settings(tmp_path: Path, data: object, **changes: Any) -> TrainConfig:
    return config(tmp_path / "run", data=str(data), cache=encodings(), **changes)


@pytest.mark.parametrize("kind", KINDS)
def test_one_picture_in_eight_of_any_source_is_held_out_by_content(tmp_path: Path, kind: str) -> None:
    train, held = load_data(settings(tmp_path, KINDS[kind](tmp_path / "data", SIZES)), pipe(), silent)
    assert (len(train), len(held)) == (11, 1)
    assert train.hits + train.misses == 12 + 24 + 1  # pictures, captions, the empty prompt: none counted twice
    assert (held.hits, held.misses, held.first_miss) == (0, 0, None)
    everything = [*train.caption_lists, *held.caption_lists]
    assert sorted(everything) == sorted(tuple(captions(number)) for number in range(12))
    first, _ = load_data(settings(tmp_path, as_folder(tmp_path / "other", SIZES)), pipe(), silent)
    assert set(train.digests) == set(first.digests)


def test_held_out_pictures_have_one_shape_with_buckets_too(tmp_path: Path) -> None:
    chosen = settings(tmp_path, as_folder(tmp_path / "data", SIZES * 2), buckets=True, bucket_step=16)
    train, held = load_data(chosen, pipe(), silent)
    assert set(train.shapes) == {(4, 16, 16), (4, 20, 12), (4, 12, 20)}
    assert set(held.shapes) == {(4, 16, 16)}
    assert not set(train.digests) & set(held.digests)
    whole = settings(tmp_path, tmp_path / "data", heldout=str(write_pictures(tmp_path / "held", 2)), buckets=True,
                     bucket_step=16)  # fmt: skip
    train, held = load_data(whole, pipe(), silent)
    assert (len(train), len(held)) == (24, 2)
    assert set(held.shapes) == {(4, 16, 16)}


def test_equal_pictures_stay_on_one_side(tmp_path: Path) -> None:
    folder = Path(as_folder(tmp_path / "data", [(64, 64)] * 12))
    for number in range(0, 12, 2):
        (folder / f"{number}.png").write_bytes(picture(number + 1))
    data = encode(folder, pipe(), encodings())
    train, held = split(data)
    assert sorted([*train, *held]) == list(range(12))
    assert len(held) == 2
    assert not {data.digests[row] for row in train} & {data.digests[row] for row in held}


def test_pictures_that_are_all_equal_cannot_be_split(tmp_path: Path) -> None:
    folder = Path(as_folder(tmp_path / "data", [(64, 64)] * 2))
    (folder / "1.png").write_bytes(picture(0))
    with pytest.raises(UserError, match="too few to hold one out"):
        load_data(settings(tmp_path, folder), pipe(), silent)


def test_another_data_set_of_a_run_has_a_caption_of_its_own(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "class", 2)
    (folder / "1.txt").unlink()
    found = load_one(settings(tmp_path, "unused"), str(folder), "a photo of a dog", pipe(), silent)
    assert found.captions == ("ramp 0 0", "a photo of a dog")


def test_the_settings_of_a_run_reach_the_data(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "resolution": 96, "buckets": True, "bucket_step": 32, "smallest": 5, "skip_bad": True, "frames": 3,
    }  # fmt: skip
    chosen = settings(tmp_path, "x", split="test", image_column="a", caption_column="b", default_caption="c", **changes)
    assert preparation_of(chosen) == Preparation(**changes)
    assert reading_of(chosen) == Reading("test", "a", "b", "c", clips=True, tables=encodings() / "tables")


def test_a_bad_picture_is_left_out_if_the_settings_say_so(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "data", 5)
    (folder / "3.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"3\.png is not a picture"):
        load_data(settings(tmp_path, folder), pipe(), silent)
    with pytest.warns(UserWarning, match=r"1 picture is left out: 3\.png"):
        train, held = load_data(settings(tmp_path, folder, skip_bad=True), pipe(), silent)
    assert len(train) + len(held) == 4


def test_held_out_pictures_that_are_trained_on_are_named(tmp_path: Path) -> None:
    folder, held = write_pictures(tmp_path / "data", 3), write_pictures(tmp_path / "held", 2, seed=1)
    (held / "1.png").write_bytes((folder / "2.png").read_bytes())
    with pytest.warns(UserWarning, match=r"1 held-out picture is trained on too: .*held/1\.png"):
        load_data(settings(tmp_path, folder, heldout=str(held)), pipe(), silent)


def test_data_are_encoded_ahead_of_training_and_described(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "data", 9, seed=7)
    chosen = settings(tmp_path, folder, class_data=str(write_pictures(tmp_path / "class", 2, seed=8)))
    first, again = encode_ahead(chosen), encode_ahead(chosen)
    assert {name: found["pictures"] for name, found in first.items()} == {"training": 8, "held out": 1, "class": 2}
    assert first["training"]["misses"] >= 18
    assert again["training"]["misses"] == again["class"]["misses"] == 0
    assert not chosen.out.exists()


def test_pictures_of_a_step_are_read_while_the_step_before_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[int]] = []
    used: list[list[int]] = []
    prefetch, latents = CachedData.prefetch, CachedData.latents

    def early(self: CachedData, rows: Any) -> Any:
        asked.append(list(rows))
        return prefetch(self, rows)

    def seen(self: CachedData, rows: Any) -> Any:
        if len(self) == 6:  # the training pictures
            used.append(list(rows))
        return latents(self, rows)

    monkeypatch.setattr(CachedData, "prefetch", early)
    monkeypatch.setattr(CachedData, "latents", seen)
    train(config(tmp_path / "run", steps=4, batch=3))
    assert len(used) == len(asked) == 4
    assert asked[:-1] == used[1:]


def test_noise_levels_of_a_run_do_not_depend_on_which_bucket_comes_first(tmp_path: Path) -> None:
    flux = MODELS["flux"].build()
    flux.scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, base_image_seq_len=16)
    chosen = settings(tmp_path, "unused", buckets=True, resolution=128)
    side = 128 // flux.vae_scale_factor
    square = objective_of(flux.scheduler, tokens=side**2 // 4)
    for shape in ((4, side, side), (4, side // 2, side), (4, side, side // 2)):
        assert objective_for(chosen, flux, shape).shift == square.shift
    assert objective_for(settings(tmp_path, "unused", resolution=64), flux, (4, side, side)).shift != square.shift


@pytest.mark.parametrize("name", ["data", "heldout", "class_data"])
def test_data_that_are_not_there_are_missed_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("spectra.models.load_pipeline", lambda model: pytest.fail("loaded a model"))
    data = {"data": str(write_pictures(tmp_path / "pictures", 1)), name: str(tmp_path / "pictres")}
    with pytest.raises(UserError, match=r"pictres does not exist \(is it .*pictures\?\)"):
        train(config(tmp_path / "run", **data))
