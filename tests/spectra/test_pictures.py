"""Pictures on their way to a model: found, captioned, cut, encoded."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from spectra.errors import UserError
from spectra.families import family_of
from spectra.pictures import Picture, digest, find_pictures, latents, native_size, pixels
from tests.tiny import tiny_sd, tiny_sd3


def save(path: Path, size: tuple[int, int] = (8, 6), colour: Any = (255, 0, 0), mode: str = "RGB") -> Path:
    Image.new(mode, size, colour).save(path)
    return path


def test_captions_come_from_text_files_or_from_a_table(tmp_path: Path) -> None:
    a, b, c = (save(tmp_path / f"{name}.png") for name in "abc")
    (tmp_path / "a.txt").write_text("a  red\npicture\n")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "b.png", "caption": "blue"}) + "\n\n")
    (tmp_path / "notes.md").write_text("not a picture")
    assert find_pictures(tmp_path) == [Picture(a, "a red picture"), Picture(b, "blue"), Picture(c, "")]


@pytest.mark.parametrize("line", ["{", "[1]", '{"text": "a"}', '{"file_name": "a.png", "text": 3}'])
def test_a_table_that_is_not_understood_is_named_with_its_line(line: str, tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text(f'{{"file_name": "a.png", "text": "a"}}\n{line}\n')
    with pytest.raises(UserError, match="line 2"):
        find_pictures(tmp_path)


def test_captions_in_another_encoding_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes("rouge à".encode("latin-1"))
    with pytest.raises(UserError, match="UTF-8"):
        find_pictures(tmp_path)


def test_the_digest_changes_with_pictures_and_captions_only(tmp_path: Path) -> None:
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        save(tmp_path / place / "a.png")
    one, two = digest(find_pictures(tmp_path / "one")), digest(find_pictures(tmp_path / "two"))
    assert one == two
    (tmp_path / "two" / "a.txt").write_text("x")
    assert digest(find_pictures(tmp_path / "two")) != one
    save(tmp_path / "one" / "a.png", colour=(0, 255, 0))
    assert digest(find_pictures(tmp_path / "one")) != one


def test_pixels_are_upright_on_white_and_cropped_at_the_centre(tmp_path: Path) -> None:
    picture = Image.new("RGB", (30, 10), (0, 0, 255))
    picture.paste((255, 0, 0), (10, 0, 20, 10))
    picture.save(tmp_path / "wide.png")
    found = pixels(tmp_path / "wide.png", (10, 10))
    assert found.shape == (3, 10, 10)
    np.testing.assert_allclose(found[:, :, 2:-2].mean((1, 2)), [1, -1, -1])
    clear = pixels(save(tmp_path / "clear.png", colour=(0, 0, 0, 0), mode="RGBA"), (4, 4))
    np.testing.assert_array_equal(clear, 1)
    turned = Image.new("RGB", (10, 20), (0, 0, 0))
    turned.paste((255, 255, 255), (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn to the right: its top comes to lie right
    turned.save(tmp_path / "turned.png", exif=exif)
    found = pixels(tmp_path / "turned.png", (10, 20))
    assert found[:, :, 15].min() == 1
    assert found[:, :, 5].max() == -1


@pytest.mark.parametrize(
    "config",
    [{"scaling_factor": 0.18, "shift_factor": 0.1}, {"scaling_factor": 0.5, "shift_factor": None}],
)
def test_normalisation_is_the_inverse_of_what_goes_to_the_decoder(config: dict[str, Any]) -> None:
    pipe = tiny_sd3()
    pipe.vae.register_to_config(**config)
    family = family_of(pipe)
    raw = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(family.to_vae(family.from_vae(raw, pipe), pipe), raw)
    by_hand = (raw - (config["shift_factor"] or 0)) * config["scaling_factor"]
    torch.testing.assert_close(family.from_vae(raw, pipe), by_hand)


def test_the_mode_of_the_posterior_is_what_becomes_the_latents() -> None:
    pipe = tiny_sd()
    pipe.vae.register_to_config(scaling_factor=0.3)
    batch = np.random.default_rng(0).uniform(-1, 1, (2, 3, 64, 64)).astype(np.float32)
    with torch.no_grad():
        mode = pipe.vae.encode(torch.tensor(batch)).latent_dist.mode()
    torch.testing.assert_close(latents(pipe, family_of(pipe), batch), 0.3 * mode)


def test_a_pipeline_that_cannot_take_pictures_says_so() -> None:
    pipe = tiny_sd()
    assert native_size(pipe, family_of(pipe)) == (64, 64)
    with pytest.raises(UserError, match="does not encode single pictures"):
        latents(pipe, family_of(pipe), np.zeros((1, 5, 64, 64), np.float32))
    unsaid: Any = SimpleNamespace(unet=SimpleNamespace(config=SimpleNamespace()))
    with pytest.raises(UserError, match="give size"):
        native_size(unsaid, family_of(unsaid))
