"""The procedural world: what a caption says is what the picture shows, and equal seeds give equal pixels."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectra.zoo import reader, world
from spectra.zoo.world import COLOURS, OUTLINES, SHAPES, SIDE, SIZES, TEXTURES, Scene

scenes = st.builds(
    Scene, st.sampled_from(SIZES), st.sampled_from(list(COLOURS)), st.sampled_from(SHAPES),
    st.sampled_from(TEXTURES), st.sampled_from(list(COLOURS)),
)  # fmt: skip


def test_a_picture_is_a_function_of_seed_and_index() -> None:
    (scene, first), (again, second) = world.scene_at(3, 5), world.scene_at(3, 5)
    assert scene == again
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, world.scene_at(3, 6)[1])


@given(scenes)
def test_a_caption_names_all_five_attributes_and_reads_back(scene: Scene) -> None:
    read = reader.parse(scene.caption)
    assert read == {name: getattr(scene, name) for name in reader.ATTRIBUTES}


@given(scenes, st.integers(0, 2**32 - 1))
def test_a_loose_caption_never_contradicts_its_scene(scene: Scene, seed: int) -> None:
    for name, value in reader.parse(world.loose_caption(scene, np.random.default_rng(seed))).items():
        assert value == getattr(scene, name)


@settings(max_examples=30, deadline=None)
@given(scenes.filter(lambda s: s.colour != s.background), st.integers(0, 1000))
def test_pictures_stay_in_range_and_show_their_colour(scene: Scene, seed: int) -> None:
    picture = world.draw(scene, np.random.default_rng(seed))
    assert picture.shape == (SIDE, SIDE, 3)
    assert picture.min() >= 0
    assert picture.max() <= 1
    colour = np.array(COLOURS[scene.colour]) / 255
    assert (np.abs(picture - colour).max(axis=-1) < 0.12).mean() > 0.02


def test_held_out_combinations_are_one_in_eight_and_do_not_depend_on_size() -> None:
    every = [
        Scene("small", c, s, t, b) for c, s, t, b in itertools.product(COLOURS, SHAPES, TEXTURES, COLOURS) if c != b
    ]
    assert 0.10 < np.mean([scene.held_out for scene in every]) < 0.15
    assert all(scene.held_out == replace(scene, size="large").held_out for scene in every)


@pytest.mark.parametrize("held_out", [True, False])
def test_a_stream_keeps_to_its_side_of_the_split(held_out: bool) -> None:
    assert all(world.scene_at(0, index, held_out)[0].held_out is held_out for index in range(40))


@pytest.mark.parametrize("shape", SHAPES)
def test_outlines_are_signed_distances(shape: str) -> None:
    """Along the outside the gradient of a distance has length one; the centre of mass lies near the origin."""
    x, y = world.grid(256)
    x, y = x - 32, y - 32
    distance = OUTLINES[shape](x, y, 16.0)
    slope = np.hypot(*np.gradient(distance, SIDE / 256))
    assert np.median(slope[distance > 1]) == pytest.approx(1, abs=0.02)
    inside = distance < 0
    assert np.hypot(x[inside].mean(), y[inside].mean()) < 3
    assert 0.05 < inside.mean() < 0.25


def test_edges_are_one_pixel_soft() -> None:
    np.testing.assert_allclose(world.coverage(np.array([-2, -0.5, 0, 0.5, 2], np.float32)), [1, 1, 0.5, 0, 0])


def test_backgrounds_have_the_frequencies_they_promise() -> None:
    """Energy above the mean: none for plain, at the lowest vertical mode for gradient, at the period for stripes."""
    from scipy.fft import dctn

    def spectrum(texture: str) -> np.ndarray:
        picture = world.backdrop(texture, "blue", np.random.default_rng(0))
        return dctn(picture.mean(axis=-1) - picture.mean(), norm="ortho") ** 2

    assert spectrum("plain").sum() < 1e-9
    assert spectrum("gradient")[:3].sum() / spectrum("gradient").sum() > 0.95
    peak = np.unravel_index(spectrum("striped").argmax(), (SIDE, SIDE))
    assert peak[1] == 0
    assert peak[0] / (2 * SIDE) == pytest.approx(1 / 12, abs=0.01)
