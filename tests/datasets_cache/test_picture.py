"""Pictures become pixels of the model's size, or a sentence."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from datasets_cache.picture import Fit, decode, is_small, measure
from spectra.errors import UserError


def as_bytes(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def test_a_picture_of_the_right_size_keeps_its_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode(as_bytes(Image.fromarray(pixels)), (8, 12), "x"), pixels)


def test_a_wide_picture_is_cropped_at_its_centre_and_not_squeezed() -> None:
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = 255
    assert (decode(as_bytes(Image.fromarray(pixels)), (10, 10), "x") == 255).all()


def test_transparent_is_white_whatever_colour_hides_there() -> None:
    hidden = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (decode(as_bytes(hidden), (4, 4), "x") == 255).all()


def test_a_turned_photo_is_turned_back() -> None:
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = decode(as_bytes(Image.fromarray(pixels), "PNG", exif=exif), (4, 4), "x")
    assert (turned[:, -1] == 255).all()
    assert (turned[:, 0] == 0).all()


@pytest.mark.parametrize("mode", ["L", "P", "LA", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    kind = "TIFF" if mode == "CMYK" else "PNG"
    assert decode(as_bytes(Image.new(mode, (4, 4)), kind), (4, 4), "x").shape == (4, 4, 3)


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    ramp = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    pixels = decode(as_bytes(Image.fromarray(ramp)), (16, 16), "x")
    np.testing.assert_array_equal(pixels[..., 0], np.arange(256).reshape(16, 16))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_without_a_range_are_refused(mode: str) -> None:
    with pytest.raises(UserError, match="the picture x is damaged"):
        decode(as_bytes(Image.new(mode, (4, 4)), "TIFF"), (4, 4), "x")


@pytest.mark.parametrize("keep", [0, 10, 60, 120])
def test_a_torn_file_is_refused_by_name(keep: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    with pytest.raises(UserError, match=r"the picture folder/7\.png is"):
        decode(as_bytes(Image.fromarray(noise))[:keep], (16, 16), "folder/7.png")


def test_a_picture_of_too_many_pixels_is_not_called_damaged() -> None:
    huge = as_bytes(Image.new("1", (14_000, 14_000)))
    for read in (lambda: measure(huge, "x"), lambda: decode(huge, (4, 4), "x")):
        with pytest.raises(UserError, match="the picture x has more than 179 million pixels"):
            read()


def test_a_turned_photo_is_measured_as_it_is_seen() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = Image.new("RGB", (6, 3))
    assert measure(as_bytes(lying), "x") == (3, 6)
    assert measure(as_bytes(lying, exif=exif), "x") == (6, 3)


def test_a_picture_is_small_if_both_sides_are() -> None:
    assert is_small((3, 6), (4, 7))
    assert not is_small((3, 7), (4, 7))
    assert not is_small((4, 3), (4, 7))


def test_what_is_said_of_a_crop_is_what_is_cropped() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (8, 20, 3), dtype=np.uint8)
    fit = Fit(original=(8, 20), size=(8, 12))
    (top, left), (high, wide) = fit.crop, fit.size
    assert fit.told() == {"original": (8, 20), "crop": (0, 4), "target": (8, 12), "fps": None}
    found = decode(as_bytes(Image.fromarray(pixels)), fit.size, "x")
    np.testing.assert_array_equal(found, pixels[top : top + high, left : left + wide])
    assert fit.lost == pytest.approx(8 / 20)
