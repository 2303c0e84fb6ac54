"""Buckets: shapes that fit the area, and for each picture the one that crops it least."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets_cache.buckets import bucket_of, bucket_shapes, crop_loss, table
from datasets_cache.picture import Fit
from spectra.errors import UserError

STEPS = st.sampled_from([8, 16, 32, 64])
SIDES = st.integers(64, 1024)
SIZES = st.tuples(st.integers(1, 5000), st.integers(1, 5000))


@given(SIDES, STEPS)
def test_shapes_are_the_maximal_ones_of_the_area(side: int, step: int) -> None:
    shapes = bucket_shapes(side * side, step)
    every = {
        (high, wide)
        for high in range(step, 2 * side + step, step)
        for wide in range(step, 2 * side + step, step)
        if high * wide <= side * side and max(high, wide) <= 2 * min(high, wide)
    }
    assert set(shapes) <= every
    assert set(shapes) == {
        (high, wide) for high, wide in every if (high + step, wide) not in every and (high, wide + step) not in every
    }
    assert {(wide, high) for high, wide in shapes} == set(shapes)


@given(SIZES, SIDES, STEPS)
def test_no_shape_crops_a_picture_less_than_its_own(size: tuple[int, int], side: int, step: int) -> None:
    shapes = bucket_shapes(side * side, step)
    mine = bucket_of(size, shapes)
    losses = [Fit(original=size, size=shape).lost for shape in shapes]
    assert crop_loss(size, mine) == pytest.approx(min(losses), abs=1e-9)


@given(st.tuples(st.integers(1, 500), st.integers(1, 500)), st.integers(1, 9), SIDES)
def test_a_bucket_depends_on_the_aspect_alone_and_turns_with_the_picture(
    size: tuple[int, int], times: int, side: int
) -> None:
    shapes = bucket_shapes(side * side, 32)
    high, wide = bucket_of(size, shapes)
    assert bucket_of((size[0] * times, size[1] * times), shapes) == (high, wide)
    assert crop_loss(size[::-1], bucket_of(size[::-1], shapes)) == pytest.approx(
        crop_loss(size, (high, wide)), abs=1e-9
    )


def test_buckets_of_a_megapixel_crop_little() -> None:
    shapes = bucket_shapes(1024 * 1024, 64)
    assert (1024, 1024) in shapes
    assert (768, 1344) in shapes
    aspects = np.geomspace(0.5, 2, 201)
    losses = [
        crop_loss((1000, round(1000 * aspect)), bucket_of((1000, round(1000 * aspect)), shapes)) for aspect in aspects
    ]
    assert max(losses) < 0.09
    assert np.mean(losses) < 0.04
    squares = [crop_loss((1000, round(1000 * aspect)), (1024, 1024)) for aspect in aspects]
    assert np.mean(squares) > 0.25


def test_pictures_of_the_resolution_are_not_cropped() -> None:
    shapes = bucket_shapes(512 * 512, 64)
    assert bucket_of((3000, 3000), shapes) == (512, 512)
    assert crop_loss((3000, 3000), (512, 512)) == 0


def test_a_step_larger_than_the_resolution_is_refused() -> None:
    with pytest.raises(
        UserError, match="steps of 64 pixels fits a resolution of 48; choose a bucket_step of at most 48"
    ):
        bucket_shapes(48 * 48, 64)


def test_the_table_counts_pictures_and_averages_their_loss() -> None:
    sizes, shapes = [(10, 10), (10, 20), (20, 20)], [(8, 8), (8, 8), (4, 8)]
    assert table(sizes, shapes) == [((8, 8), 2, pytest.approx(0.25)), ((4, 8), 1, pytest.approx(0.5))]
