"""The bundled models: true diffusers folders, small, and good at what their card says."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline, StableDiffusionPipeline

from spectra.models import load_pipeline
from spectra.zoo import reader, world
from spectra.zoo.recipes import gate

ZOO = Path(reader.__file__).parent
MODELS = {"mini": StableDiffusionPipeline, "mini-flow": StableDiffusion3Pipeline}
both = pytest.mark.parametrize("name", list(MODELS))


def megabytes(folder: Path, links: bool = True) -> float:
    """Size of a model folder; without `links`, what it adds to the repository."""
    files = [file for file in folder.rglob("*") if file.is_file() and (links or not file.is_symlink())]
    return sum(file.stat().st_size for file in files) / 1e6


@both
def test_a_model_is_at_most_12_megabytes(name: str) -> None:
    assert megabytes(ZOO / name) <= 12


def test_the_models_together_are_at_most_20_megabytes() -> None:
    assert sum(megabytes(ZOO / name, links=False) for name in MODELS) <= 20


def test_the_folder_opens_with_diffusers_alone() -> None:
    pipe = StableDiffusionPipeline.from_pretrained(ZOO / "mini", dtype=torch.float32, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    picture = pipe("a large red circle on a plain white background", num_inference_steps=4, output_type="np").images
    assert picture.shape == (1, 64, 64, 3)


def test_the_flow_folder_opens_with_diffusers_alone() -> None:
    pipe = StableDiffusion3Pipeline.from_pretrained(
        ZOO / "mini-flow", dtype=torch.float32, text_encoder_3=None, tokenizer_3=None
    )
    pipe.set_progress_bar_config(disable=True)
    caption = "a large red circle on a plain white background"
    picture = pipe(caption, num_inference_steps=4, max_sequence_length=1, output_type="np").images
    assert picture.shape == (1, 64, 64, 3)


@both
def test_the_latent_grid_holds_four_octave_bands(name: str) -> None:
    pipe = load_pipeline(name)
    denoiser = pipe.unet if name == "mini" else pipe.transformer
    assert denoiser.config.sample_size == 16


@both
def test_every_word_of_the_world_is_one_token(name: str) -> None:
    tokenizer = load_pipeline(name).tokenizer
    for word in (*world.COLOURS, *world.SHAPES, *world.SIZES, *world.TEXTURES, "zog"):
        assert len(tokenizer.tokenize(word)) == 1


@both
def test_pictures_show_what_unseen_prompts_ask_for(name: str) -> None:
    """A quick look at 24 of the 240 prompts; the bars leave room for their sampling error."""
    captions = [scene.caption for scene, _ in gate.prompts()[:24]]
    right = reader.agreement(gate.generate(load_pipeline(name), captions, 15, gate.GUIDANCE), captions)
    shares = {attribute: float(values.mean()) for attribute, values in right.items()}
    assert min(shares["colour"], shares["background"]) >= 0.9
    assert min(shares["shape"], shares["texture"]) >= 0.75


def test_the_autoencoder_keeps_every_attribute() -> None:
    scenes = gate.prompts()[:48]
    drawn = np.stack([drawing for _, drawing in scenes])
    table = gate.score(gate.reconstruct(load_pipeline("mini"), drawn), [scene.caption for scene, _ in scenes])
    assert all(row["right"] >= 0.97 for row in table.values())


def test_the_two_models_share_their_latents() -> None:
    first, second = (load_pipeline(name).vae.state_dict() for name in MODELS)
    assert all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.slow
@both
def test_the_full_gate_is_passed(name: str) -> None:
    table = gate.judge(load_pipeline(name), gate.STEPS, gate.GUIDANCE)["samples"]
    assert all(table[attribute]["right"] >= bar for attribute, bar in gate.THRESHOLDS.items())


@both
def test_bands_are_decided_from_low_to_high(name: str, tmp_path: Path) -> None:
    """Guidance off; a band is decided where the cosine of x0 with the finished sample passes 0.8."""
    from spectra.analysis import emergence
    from spectra.probe import probe

    captions = [scene.caption for scene, _ in gate.prompts()[:8]]
    cube = probe(name, captions, [0], 15, tmp_path / "cube.zarr", guidance_scale=1.0)
    mean = cube.coherence.mean("run").dropna("step").values
    decided = [int(np.argmax(mean[:, band] >= 0.8)) for band in range(mean.shape[1])]
    assert decided == sorted(decided)
    assert decided[0] < decided[-1]
    assert emergence(cube) is not None
