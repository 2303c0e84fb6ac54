"""The adaptation tasks: ordinary image folders, reproducible, with a held-out set that training never sees."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spectra.zoo import tasks, world


@pytest.mark.parametrize("name", list(tasks.TASKS))
def test_a_task_is_an_image_folder_with_captions(name: str, tmp_path: Path) -> None:
    tasks.write_task(name, tmp_path)
    _, train, heldout = tasks.TASKS[name]
    for part, count in (("train", train), ("heldout", heldout)):
        pictures = sorted((tmp_path / part).glob("*.png"))
        assert len(pictures) == count
        assert all(picture.with_suffix(".txt").read_text().startswith("a ") for picture in pictures)
        assert Image.open(pictures[0]).size == (world.SIDE, world.SIDE)


def test_writing_twice_gives_equal_bytes_and_the_parts_differ(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        tasks.write_task("subject", tmp_path / folder)
    first, second = (tmp_path / folder / "train" / "0003.png" for folder in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()
    train = {p.read_bytes() for p in (tmp_path / "one" / "train").glob("*.png")}
    assert not train & {p.read_bytes() for p in (tmp_path / "one" / "heldout").glob("*.png")}


def test_hatching_adds_energy_at_its_period_and_keeps_the_scene() -> None:
    from scipy.fft import dctn

    picture = world.scene_at(0, 0)[1]
    gain = np.abs(dctn((tasks.hatch(picture) - picture).mean(axis=-1), norm="ortho"))
    gain[:12, :12] = 0  # the muted colours change the low frequencies; the lines are what lies above
    row, column = np.unravel_index(gain.argmax(), gain.shape)
    assert np.hypot(row, column) / (2 * world.SIDE) == pytest.approx(1 / 6, rel=0.1)
    assert np.corrcoef(tasks.hatch(picture).ravel(), picture.ravel())[0, 1] > 0.5


def test_hatching_is_heavier_where_the_picture_is_dark() -> None:
    dark, light = (np.full((64, 64, 3), level, np.float32) for level in (0.1, 0.9))

    def inked(picture: np.ndarray) -> float:
        return float((tasks.hatch(picture).mean(axis=-1) < tasks.hatch(picture).max() - 0.05).mean())

    assert inked(dark) > inked(light) + 0.08
