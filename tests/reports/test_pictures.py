"""Pictures in the page: exact where they are small, within their budget where they are large."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
from PIL import Image

from reports.pictures import encode, neighbours, picture, rows, scrubber

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 255, (512, 768, 3), dtype=np.uint8)


def decoded(uri: str) -> np.ndarray:
    """The pixels of a data URI."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))


def blocks(seed: int, size: int) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return small.repeat(size // 8, axis=0).repeat(size // 8, axis=1)


def test_small_pictures_are_kept_pixel_for_pixel() -> None:
    for pixels in (NOISE[:64, :64], blocks(1, 96), np.zeros((16, 16, 3), np.uint8)):
        np.testing.assert_array_equal(decoded(encode(pixels)[0]), pixels)


def test_the_smallest_file_is_chosen() -> None:
    photo = np.asarray(Image.fromarray(blocks(2, 64)).resize((256, 256), Image.Resampling.BICUBIC))
    flat = blocks(3, 512)
    assert encode(photo)[0].startswith("data:image/webp")
    for pixels in (photo, flat, NOISE[:64, :64]):
        buffer = io.BytesIO()
        image = Image.fromarray(pixels)
        image.thumbnail((256, 256), Image.Resampling.LANCZOS)
        image.save(buffer, "PNG", optimize=True)
        assert len(base64.b64decode(encode(pixels)[0].partition(",")[2])) <= len(buffer.getvalue())


def test_large_pictures_are_made_smaller_and_say_so() -> None:
    found = picture("a", "b", NOISE)
    assert (found.width, found.height, found.original) == (256, 171, (768, 512))
    assert found.reduced
    assert not found.pixelated
    small = picture("a", "b", NOISE[:64, :64])
    assert not small.reduced
    assert small.pixelated


def test_a_gallery_shrinks_its_pictures_before_it_drops_rows() -> None:
    images = np.stack([NOISE] * 4)
    columns = [(name, images) for name in ("a", "b")]
    prompts, seeds = [f"prompt {i}" for i in range(4)], list(range(4))
    whole = {side: 8 * len(encode(NOISE, side)[0]) for side in (256, 192, 128)}
    for budget, count, width in ((whole[256], 4, 256), (whole[192], 4, 192), (whole[128], 4, 128), (9, 1, 128)):
        found = rows(columns, prompts, seeds, budget=budget)
        assert (len(found), found[0].pictures[0].width) == (count, width), budget
        assert count == 1 or sum(len(p.uri) for row in found for p in row.pictures) <= budget
    assert found[0].pictures[1].alt == "b: prompt 0"


def test_the_scrubber_keeps_the_last_step_and_its_budget() -> None:
    images, energies = np.stack([NOISE[:160, :160]] * 9), RNG.random((9, 3)) + 0.1
    steps, noise = list(range(0, 27, 3)), np.geomspace(14, 0.05, 9).tolist()
    sources = [("base model", -1, images, energies), ("LoRA", 0, images, energies * 2)]
    whole = scrubber("s", sources, steps, noise, "p", 0, budget=10_000_000)
    few = scrubber("s", sources, steps, noise, "p", 0, budget=60_000)
    assert len(whole.heads) == 9
    assert 1 < len(few.heads) < 9
    assert few.heads[-1] == whole.heads[-1] == "step 24, noise level 0.05"
    assert sum(len(p.uri) for source in few.sources for p in source.pictures) <= 60_000
    for made in (whole, few):
        assert len(json.loads(made.places)) == len(json.loads(made.steps)) == len(made.sources[0].pictures)
        assert json.loads(made.sources[1].energies)[-1] == [f"{2 * e:.3g}" for e in energies[-1]]


def test_the_closest_neighbours_come_first() -> None:
    found = neighbours(
        [("a", f"p{i}", blocks(i, 64), blocks(9, 64), "c", d) for i, d in enumerate((0.3, 0.1, 0.2))], most=2
    )
    assert [(one.prompt, one.distance) for one in found] == [("p1", "0.1"), ("p2", "0.2")]
