"""Whatever the source, the order, the buckets, the choice of caption and the step: pictures keep their captions.

Every picture is noise of its own and its captions are its own; what a step is given is compared with what the model
makes of that very picture and caption, encoded here without the cache.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import torch

from adapt.draws import draw
from adapt.step import picks
from datasets_cache import Preparation, Reading, encode
from datasets_cache.cached import CachedData
from datasets_cache.families import encode_caption, encode_pixels
from datasets_cache.picture import decode
from tests.adapt.small import config
from tests.datasets_cache.sources import KINDS, captions, picture
from tests.tiny import tiny_sd

SIZES = [(64, 64), (90, 60), (60, 90), (40, 100), (64, 65), (100, 40), (61, 90)]
NAME = "encoder_hidden_states"


@cache
def pipe() -> Any:
    return tiny_sd()


@cache
def encoded(kind: str, buckets: bool) -> CachedData:
    root = Path(mkdtemp())
    return encode(
        KINDS[kind](root / "data", SIZES), pipe(), Path(mkdtemp()), reading=Reading(tables=root / "tables"),
        preparation=Preparation(buckets=buckets, bucket_step=16),
    )  # fmt: skip


@cache
def embedding(text: str) -> torch.Tensor:
    return encode_caption(pipe(), text, {})[NAME]


@cache
def latent(number: int, size: tuple[int, int]) -> torch.Tensor:
    pixels = decode(picture(number, SIZES[number]), size, "x").astype(np.float32) / 127.5 - 1
    return encode_pixels(pipe(), torch.from_numpy(pixels).permute(2, 0, 1)[None])[0]


def check_step(data: CachedData, step: int, choice: str, batch: int = 3) -> set[str]:
    """Compare a step's latents and embeddings with the models' own; the captions that it used."""
    draws = draw(5, step, batch, len(data), data.shapes[0], 0.0, data.shapes)
    pick = picks(config(Path("unused"), caption_choice=choice), data, draws)
    latents, told = data.latents(draws.rows), data.conditioning(draws.rows, pick)[NAME]
    assert latents.shape == draws.noise.shape
    used = set()
    for place, (row, one) in enumerate(zip(draws.rows, pick, strict=True)):
        text = data.caption_lists[row][one]
        number = int(re.findall(r"\d+", text)[0])
        assert text in captions(number)
        assert torch.equal(latents[place], latent(number, data.fits[row].size))
        assert torch.equal(told[place], embedding(text))
        used.add(text)
    return used


@pytest.mark.parametrize("buckets", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_pictures_keep_their_captions(kind: str, buckets: bool) -> None:
    data = encoded(kind, buckets)
    assert len(set(data.shapes)) == (3 if buckets else 1)
    used = set().union(*(check_step(data, step, "random") for step in range(24)))
    assert used == {text for number in range(len(SIZES)) for text in captions(number)}


def test_the_first_caption_is_used_where_that_is_asked_for() -> None:
    used = set().union(*(check_step(encoded("folder", True), step, "first") for step in range(24)))
    assert used == {captions(number)[0] for number in range(len(SIZES))}


def test_a_run_that_goes_on_sees_the_same_steps() -> None:
    data = encoded("folder", True)
    whole = [draw(5, step, 3, len(data), data.shapes[0], 0.1, data.shapes) for step in range(12)]
    for begin in (1, 5, 11):
        for step in range(begin, 12):
            again = draw(5, step, 3, len(data), data.shapes[0], 0.1, data.shapes)
            assert again.rows == whole[step].rows
            assert torch.equal(again.noise, whole[step].noise)
            assert torch.equal(again.choice, whole[step].choice)


def test_shuffled_rows_keep_everything_together() -> None:
    data = encoded("parquet", True)
    order = np.random.default_rng(3).permutation(len(data)).tolist()
    shuffled = data.take(order)
    for step in range(6):
        check_step(shuffled, step, "random")
    assert shuffled.keys == tuple(data.keys[row] for row in order)


def test_sources_of_every_kind_share_the_cache(tmp_path: Path) -> None:
    keys = {kind: sorted(encoded(kind, True).keys) for kind in KINDS}
    assert all(found == keys["folder"] for found in keys.values())
