"""The attribute reader: right on drawings that it never saw, hatched ones included."""

import numpy as np
import pytest

from spectra.zoo import reader, tasks, world


@pytest.mark.parametrize("hatched", [False, True])
def test_the_reader_is_right_on_unseen_drawings(hatched: bool) -> None:
    scenes, pictures = zip(*(world.scene_at(99, index, None) for index in range(64)), strict=True)
    shown = [tasks.hatch(p) if hatched else p for p in pictures]
    right = reader.agreement((np.stack(shown) * 255).astype(np.uint8), [s.caption for s in scenes])
    assert {name: float(values.mean()) for name, values in right.items()} == pytest.approx(
        dict.fromkeys(reader.ATTRIBUTES, 1.0), abs=0.05
    )


def test_the_reader_does_not_agree_with_a_wrong_caption() -> None:
    scene, picture = world.scene_at(99, 0)
    wrong = world.Scene(
        *(next(v for v in values if v != getattr(scene, name)) for name, values in reader.ATTRIBUTES.items())
    )
    right = reader.agreement((picture[None] * 255).astype(np.uint8), [wrong.caption])
    assert all(values[0] == 0 for values in right.values())


def test_what_a_caption_does_not_name_counts_neither_way() -> None:
    right = reader.agreement(np.zeros((1, 64, 64, 3), np.uint8), ["a circle"])
    assert {name for name, values in right.items() if np.isnan(values[0])} == set(reader.ATTRIBUTES) - {"shape"}


def test_the_first_of_several_colours_is_the_shapes() -> None:
    assert reader.parse("a red and white cross on black") == {"colour": "red", "shape": "cross"}
