"""Pictures and clips of every family against those of its own pipeline, and the files that they are kept in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from adapt.generating import FRAME_RATE, first_frames, frame_rate, generate, guided, pictures, save_png, sizes_of_run
from datasets_cache.families import encode_pixels
from spectra.errors import UserError
from spectra.prompts import quiet_cuts
from tests.matrix.train_calls import CAPTIONS, arguments
from tests.matrix.train_calls import first_frames as beginnings
from tests.matrix.train_models import MODELS, opened

SCALE = 2.0
GUIDED: dict[str, dict[str, Any]] = {
    "qwen-image": {"true_cfg_scale": SCALE, "negative_prompt": ["", ""]},
    "svd": {"min_guidance_scale": 1.0, "max_guidance_scale": SCALE},
    "z-image": {"guidance_scale": SCALE - 1},  # counts what is added
}


def sizes(name: str) -> dict[str, int]:
    model = MODELS[name]
    frames = {"num_frames": model.frames} if model.frames else {}
    return {"height": model.size[0], "width": model.size[1], **frames}


def made(name: str, rows: slice = slice(None)) -> Tensor:
    images = beginnings(name)[rows] if name == "svd" else None
    return generate(
        opened(name), CAPTIONS[rows], [7, 8][rows], steps=2, guidance=SCALE, sizes=sizes(name), images=images
    )


@pytest.mark.parametrize("name", ["sdxl", "flux", "flux2-klein", "z-image", "qwen-image", "pixart-sigma", "ltx", "svd"])
def test_pictures_are_those_of_the_pipeline(name: str) -> None:
    """Guidance, sizes, latents and decoding in one."""
    pipe = opened(name)
    call = arguments(name) | {"num_inference_steps": 2, "output_type": "np", "guidance_scale": SCALE}
    call |= {"generator": [torch.Generator().manual_seed(seed) for seed in (7, 8)]} | GUIDED.get(name, {})
    if name == "svd":
        call.pop("guidance_scale")
    with quiet_cuts():
        result = pipe(**call)
    expected = np.asarray(result.frames if MODELS[name].frames else result.images)
    drawn = pictures(pipe, made(name))
    assert drawn.shape == expected.shape
    assert drawn.std() > 1
    assert np.abs(drawn / 255 - expected).max() <= 1.01 / 255


@pytest.mark.parametrize("name", ["sd", "sd3", "wan"])
def test_the_noise_of_a_sample_belongs_to_its_seed_alone(name: str) -> None:
    torch.testing.assert_close(made(name)[1:], made(name, slice(1, 2)), rtol=1e-3, atol=1e-3)


def test_latents_of_klein_are_those_that_it_was_trained_on() -> None:
    """The pipeline hands on what its autoencoder decodes; taken back, it is of the kind of encoded pictures."""
    latents = made("flux2-klein")
    encoded = encode_pixels(opened("flux2-klein"), torch.zeros(1, 3, *MODELS["flux2-klein"].size))
    assert latents.shape[1:] == encoded.shape[1:]


def test_a_model_that_animates_pictures_asks_for_them() -> None:
    with pytest.raises(UserError, match="a StableVideoDiffusionPipeline animates pictures; give the picture that each"):
        generate(opened("svd"), ["a dot"], [0], steps=2, guidance=1.0)


def test_guidance_off_names_no_negative_prompt() -> None:
    assert guided(opened("qwen-image"), 1.0, 2) == {"true_cfg_scale": 1.0}
    assert guided(opened("z-image"), 1.0, 2) == {"guidance_scale": 0.0}
    assert guided(opened("svd"), 0.5, 2) == {"min_guidance_scale": 0.5, "max_guidance_scale": 0.5}


def test_a_run_is_drawn_with_the_sizes_that_it_trained_at() -> None:
    assert sizes_of_run(opened("sd"), {"resolution": 32, "frames": 1}) == {"height": 32, "width": 32}
    assert sizes_of_run(opened("sd"), {}) == {"height": 64, "width": 64}
    assert sizes_of_run(opened("wan"), {"frames": 5}) == {"height": 480, "width": 832, "num_frames": 5}


def test_clips_are_kept_as_animated_pictures(tmp_path: Path) -> None:
    clip = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3), np.uint8)
    save_png(clip, tmp_path / "clip.png", rate=10)
    with Image.open(tmp_path / "clip.png") as found:
        assert (found.n_frames, found.info["duration"]) == (3, 100)  # type: ignore[attr-defined]
        for index in range(3):
            found.seek(index)
            assert np.array_equal(np.asarray(found.convert("RGB")), clip[index])
    save_png(clip[0], tmp_path / "one.png")
    with Image.open(tmp_path / "one.png") as found:
        assert np.array_equal(np.asarray(found), clip[0])


def test_clips_run_as_fast_as_the_pipeline_makes_them() -> None:
    assert [frame_rate(opened(name)) for name in ("ltx", "svd", "wan")] == [25, 7, FRAME_RATE]


def test_first_frames_are_read_from_files(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    (found,) = first_frames([str(tmp_path / "clear.png")])
    assert (found.mode, found.getpixel((0, 0))) == ("RGB", (255, 255, 255))
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (6, 3)).save(tmp_path / "turned.jpg", exif=turned)
    assert first_frames([str(tmp_path / "turned.jpg")])[0].size == (3, 6)
    Image.new("1", (14_000, 14_000)).save(tmp_path / "huge.png")
    with pytest.raises(UserError, match=r"huge\.png' has more than 179 million pixels; this model animates"):
        first_frames([str(tmp_path / "huge.png")])
    (tmp_path / "text.png").write_text("no picture")
    for wrong in ("a dot", str(tmp_path / "text.png"), str(tmp_path)):
        with pytest.raises(UserError, match="is not a picture; this model animates pictures, so give their paths"):
            first_frames([wrong])
