"""Clips: frames evenly spaced from the first, from animations and from folders, treated as pictures are."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from datasets_cache import Preparation, Reading, encode, open_dataset
from datasets_cache.clips import chosen, count_frames, decode_clip, frame_rate
from datasets_cache.encoder import Encoder
from datasets_cache.items import BadPicture, frames_of
from spectra.errors import UserError
from tests.adapt.small import write_pictures
from tests.matrix.train_models import wan as video_model
from tests.tiny import tiny_sd

LEVELS = [0, 40, 80, 120, 160, 200, 240]


def frames(size: tuple[int, int] = (12, 16)) -> list[Image.Image]:
    """Grey frames (h, w), each of its own level."""
    return [Image.new("RGB", size[::-1], (level,) * 3) for level in LEVELS]


def animation(kind: str) -> bytes:
    stream = io.BytesIO()
    first, *rest = frames()
    first.save(stream, kind, save_all=True, append_images=rest, **({"lossless": True} if kind == "WEBP" else {}))
    return stream.getvalue()


def write_clip(folder: Path) -> Path:
    """Frames whose order by number is not that by name."""
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames()):
        frame.save(folder / f"{number + 5}.png")
    return folder


def levels(pixels: Any) -> list[int]:
    return [int(frame.mean().round()) for frame in pixels]


@given(st.integers(1, 60), st.integers(1, 200))
def test_frames_are_equally_far_apart_from_the_first_on(wanted: int, more: int) -> None:
    there = wanted + more - 1
    numbers = list(chosen(there, wanted))
    assert len(numbers) == wanted
    assert numbers[0] == 0
    assert len({b - a for a, b in pairwise(numbers)}) <= 1
    assert numbers[-1] < there
    assert there - wanted < wanted * (there // wanted) <= there  # what is left at the end is less than `wanted`


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations_give_their_frames(kind: str) -> None:
    data = (animation(kind),)
    assert count_frames(data, "x") == 7
    assert levels(decode_clip(data, (12, 16), 7, "x")) == LEVELS
    assert levels(decode_clip(data, (12, 16), 3, "x")) == [LEVELS[0], LEVELS[2], LEVELS[4]]
    assert decode_clip(data, (6, 6), 2, "x").shape == (2, 6, 6, 3)


def test_a_folder_gives_its_frames_by_number(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "x.frames")
    parts = tuple(path.read_bytes() for path in frames_of(clip))
    assert levels(decode_clip(parts, (12, 16), 7, "x")) == LEVELS


def test_the_frame_rate_is_that_of_the_frames_taken() -> None:
    stream = io.BytesIO()
    first, *rest = frames()
    first.save(stream, "GIF", save_all=True, append_images=rest, duration=50)
    data = (stream.getvalue(),)
    assert frame_rate(data, 7, "x") == pytest.approx(20)
    assert frame_rate(data, 3, "x") == pytest.approx(10)  # every second frame
    assert frame_rate((animation("PNG"), animation("PNG")), 2, "x") is None


def test_too_few_frames_and_frames_of_several_sizes_are_refused() -> None:
    with pytest.raises(BadPicture, match="the picture x has 7 frames of the 8 that are needed"):
        decode_clip((animation("GIF"),), (12, 16), 8, "x")
    parts = [write(frame) for frame in (*frames()[:2], Image.new("RGB", (3, 3)))]
    with pytest.raises(BadPicture, match="has frames of several sizes"):
        decode_clip(parts, (12, 16), 3, "x")


def write(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def test_frames_without_a_number_or_with_one_twice_are_named(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "x.frames")
    (clip / "05.png").write_bytes((clip / "5.png").read_bytes())
    with pytest.raises(BadPicture, match="several frames of one number"):
        frames_of(clip)
    (clip / "05.png").rename(clip / "last.png")
    with pytest.raises(BadPicture, match=r"frames without a number in their names \(last\.png\)"):
        frames_of(clip)


def test_clips_are_listed_with_their_captions_where_they_are_asked_for(tmp_path: Path) -> None:
    write_clip(tmp_path / "walk.frames")
    (tmp_path / "run.gif").write_bytes(animation("GIF"))
    for name in ("walk", "run"):
        (tmp_path / f"{name}.txt").write_text(f"they {name}")
    found = open_dataset(tmp_path, Reading(clips=True))
    assert [(item.path.name, item.caption) for item in found] == [("run.gif", "they run"), ("walk.frames", "they walk")]
    assert [len(item.read()) for item in found] == [1, 7]
    with pytest.raises(UserError, match="a clip, which needs the setting frames"):
        open_dataset(tmp_path)


def test_a_model_of_pictures_refuses_clips_before_it_encodes(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "data", 1)
    with pytest.raises(UserError, match="learns from pictures, not from clips of 3 frames"):
        encode(folder, tiny_sd(), tmp_path / "cache", reading=Reading(clips=True), preparation=Preparation(frames=3))


def test_the_number_of_frames_is_part_of_the_key(tmp_path: Path) -> None:
    from datasets_cache.picture import Fit

    encoder = Encoder(tiny_sd(), tmp_path)
    keys = {encoder.picture_key((b"x",), Fit((8, 8), (8, 8), frames)) for frames in (1, 2, 3)}
    keys |= {encoder.picture_key(parts, Fit((8, 8), (8, 8), 2)) for parts in ((b"x", b"y"), (b"xy",), (b"y", b"x"))}
    assert len(keys) == 6


@pytest.mark.filterwarnings("ignore:1 picture is smaller")
def test_a_model_of_videos_gets_clips_as_they_are(tmp_path: Path) -> None:
    wan = video_model()
    folder = tmp_path / "data"
    write_clip(folder / "walk.frames")
    (folder / "walk.txt").write_text("they walk")
    preparation = Preparation(resolution=32, frames=5)
    data = encode(folder, wan, tmp_path / "cache", reading=Reading(clips=True), preparation=preparation)
    assert levels(data.picture(0)) == LEVELS[:5]
    pixels = torch.from_numpy(data.picture(0).astype(np.float32) / 127.5 - 1).permute(3, 0, 1, 2)[None]
    from datasets_cache.families import encode_pixels

    assert torch.equal(data.latents([0]), encode_pixels(wan, pixels))
