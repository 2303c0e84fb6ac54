"""CLIP and DINO: the same numbers as transformers called by hand, every choice said, every lack one sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModel, CLIPImageProcessorPil, CLIPModel, CLIPProcessor, ViTModel

from adapt.networks import open_networks
from adapt.networks.resizing import describe
from spectra.errors import UserError
from tests.adapt.networks.towers import clip_folder, dino_folder, pictures
from tests.tiny import tokenizer

CAPTIONS = ["a red circle", "x", "a very long caption that has far more bytes than sixteen"]
PLACES = {"clip": clip_folder, "dino": dino_folder}


def by_hand(images: np.ndarray, mean: list[float], sd: list[float]) -> torch.Tensor:
    """40 x 56 -> 36 x 50 by Pillow's bicubic filter, middle 32 x 32, scaled to 0..1, normalised: no processor."""
    whole = [Image.fromarray(image).resize((50, 36), Image.Resampling.BICUBIC) for image in images]
    middle = np.stack([np.asarray(one)[2:34, 9:41] for one in whole])
    normal = (middle / 255 - np.array(mean)) / np.array(sd)
    return torch.from_numpy(normal).permute(0, 3, 1, 2).float()


def test_clip_gives_the_projected_features_of_transformers() -> None:
    (network,) = open_networks([f"clip={clip_folder()}"])
    model = CLIPModel.from_pretrained(clip_folder()).eval()
    pixels = by_hand(pictures(), [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
    with torch.inference_mode():
        want = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output).numpy()
    found = network.pictures(pictures())
    assert found.dtype == np.float32
    assert found.shape == (5, network.dims) == (5, 20)
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)


def test_clip_reads_texts_as_transformers_does_cut_at_its_longest() -> None:
    (network,) = open_networks([f"clip={clip_folder()}"])
    model = CLIPModel.from_pretrained(clip_folder()).eval()
    for caption, found in zip(CAPTIONS, network.texts(CAPTIONS), strict=True):
        words = tokenizer()(caption, truncation=True, max_length=16, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            want = model.text_projection(model.text_model(words).pooler_output)[0].numpy()
        np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)


def test_cosines_are_those_of_the_model_that_joins_pictures_and_texts() -> None:
    (network,) = open_networks([f"clip={clip_folder()}"])
    model, processor = CLIPModel.from_pretrained(clip_folder()).eval(), CLIPProcessor.from_pretrained(clip_folder())
    inputs = processor(
        text=CAPTIONS, images=list(pictures()), return_tensors="pt", padding=True, truncation=True, max_length=16
    )
    with torch.inference_mode():
        want = model(**inputs).logits_per_image.numpy() / float(model.logit_scale.exp())
    seen, read = (
        rows / np.linalg.norm(rows, axis=1, keepdims=True)
        for rows in (network.pictures(pictures()), network.texts(CAPTIONS))
    )
    np.testing.assert_allclose(seen @ read.T, want, atol=1e-5)


def test_dinov2_gives_the_class_token() -> None:
    (network,) = open_networks([f"dino={dino_folder()}"])
    pixels = by_hand(pictures(), [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
    with torch.inference_mode():
        want = AutoModel.from_pretrained(dino_folder()).eval()(pixel_values=pixels).pooler_output.numpy()
    np.testing.assert_allclose(network.pictures(pictures()), want, rtol=1e-4, atol=1e-5)
    assert network.what == "DINOv2, class token after the last layer norm"
    assert network.dims == 24


def test_the_first_dino_is_a_vision_transformer_without_pooler() -> None:
    (network,) = open_networks([f"dino={dino_folder('vit')}"])
    small = np.stack([np.asarray(Image.fromarray(one).resize((32, 32), 2)) for one in pictures()])
    pixels = torch.from_numpy((small / 255 - 0.5) / 0.5).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        model = ViTModel.from_pretrained(dino_folder("vit"), add_pooling_layer=False).eval()
        want = model(pixel_values=pixels).last_hidden_state[:, 0].numpy()
    np.testing.assert_allclose(network.pictures(pictures()), want, rtol=1e-4, atol=1e-5)
    assert network.resize.startswith("PIL bilinear, antialiased, to 32 x 32")
    assert network.size == 32


@pytest.mark.parametrize("kind", PLACES)
def test_a_picture_has_the_same_features_in_every_batch(kind: str) -> None:
    (network,) = open_networks([f"{kind}={PLACES[kind]()}"])
    whole = network.pictures(pictures(7))
    np.testing.assert_allclose(network.pictures(pictures(7), batch=3), whole, atol=1e-5)
    np.testing.assert_allclose(network.pictures(pictures(7)[4:5])[0], whole[4], atol=1e-5)
    assert network.pictures(pictures(7)[:0]).shape == (0, network.dims)


def test_a_text_has_the_same_features_beside_longer_ones() -> None:
    (network,) = open_networks([f"clip={clip_folder()}"])
    whole = network.texts(CAPTIONS)
    np.testing.assert_allclose(np.concatenate([network.texts([one]) for one in CAPTIONS]), whole, atol=1e-5)
    np.testing.assert_allclose(network.texts(CAPTIONS, batch=2), whole, atol=1e-5)


def test_everything_that_pins_the_numbers_is_said() -> None:
    networks = open_networks([f"clip={clip_folder()}", f"dino={dino_folder()}"])
    for network, place in zip(networks, (clip_folder(), dino_folder()), strict=True):
        pinned = json.loads(json.dumps(network.to_dict()))
        assert (pinned["source"], pinned["size"], len(pinned["sha256"])) == (str(place), 32, 64)
        assert pinned["resize"] == (
            "PIL bicubic, antialiased, shorter side to 36, centre crop 32 x 32, "
            "mean (0.48145466, 0.4578275, 0.40821073), sd (0.26862954, 0.26130258, 0.27577711)"
        )
        assert pinned["quantisation"] == "uint8 in; the resized picture is rounded to uint8"
    assert [network.reads_text for network in networks] == [True, False]


@pytest.mark.parametrize("kind", PLACES)
def test_the_hash_follows_the_weights_and_not_the_folder(kind: str, tmp_path: Path) -> None:
    shutil.copytree(PLACES[kind](), tmp_path / "copy")
    shutil.copytree(PLACES[kind](), tmp_path / "other")
    weights = load_file(tmp_path / "other" / "model.safetensors")
    last = sorted(weights)[-1]
    weights[last].view(-1)[-1] += 1e-3
    save_file(weights, tmp_path / "other" / "model.safetensors", {"format": "pt"})
    shipped, copied, other = (
        open_networks([f"{kind}={folder}"])[0].sha256
        for folder in (PLACES[kind](), tmp_path / "copy", tmp_path / "other")
    )
    assert shipped == copied != other


def test_the_hash_follows_the_configuration(tmp_path: Path) -> None:
    shutil.copytree(dino_folder(), tmp_path / "heads")
    config = json.loads((tmp_path / "heads" / "config.json").read_text())
    (tmp_path / "heads" / "config.json").write_text(json.dumps(config | {"num_attention_heads": 3}))
    one, other = (open_networks([f"dino={folder}"])[0].sha256 for folder in (dino_folder(), tmp_path / "heads"))
    assert one != other


def test_two_networks_of_a_kind_have_two_names(tmp_path: Path) -> None:
    shutil.copytree(clip_folder(), tmp_path / "copy")
    names = [f"clip={clip_folder()}", f"dino={dino_folder()}", f"clip={tmp_path / 'copy'}", f"clip={clip_folder()}"]
    assert [network.name for network in open_networks(names)] == ["clip", "dino", "clip_2"]


@pytest.mark.parametrize("kind", PLACES)
def test_a_hub_id_is_named_with_its_commit(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, page = "0123456789abcdef0123456789abcdef01234567", tmp_path / "models--someone--tower"
    shutil.copytree(PLACES[kind](), page / "snapshots" / commit)
    (page / "refs").mkdir()
    (page / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    (network,) = open_networks([f"{kind}=someone/tower"])
    (local,) = open_networks([f"{kind}={PLACES[kind]()}"])
    assert network.source == f"someone/tower@{commit}"
    assert network.sha256 == local.sha256
    np.testing.assert_array_equal(network.pictures(pictures()), local.pictures(pictures()))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"do_center_crop": False, "do_normalize": False}, "PIL bicubic, antialiased, shorter side to 224"),
        (
            {"resample": 0, "do_center_crop": False, "do_normalize": False},
            "PIL nearest, not antialiased, shorter side to 224",
        ),
        ({"do_resize": False, "do_center_crop": False, "do_normalize": False}, "pictures are left as they are"),
        ({"do_resize": False, "do_normalize": False}, "centre crop 224 x 224"),
    ],
)
def test_how_pictures_are_resized_is_read_from_the_processor(settings: dict[str, Any], words: str) -> None:
    assert describe(CLIPImageProcessorPil(**settings)) == words


def test_a_network_for_pictures_reads_no_text() -> None:
    (network,) = open_networks([f"dino={dino_folder()}"])
    with pytest.raises(UserError, match=r"'dino' .*reads pictures only"):
        network.texts(["a zog"])


LACKS = {
    "clip": {
        "config.json": "has no config.json",
        "model.safetensors": "has no safetensors weights, and pickle is never loaded",
        "processor_config.json": "image processor .* cannot be opened",
    },
    "dino": {
        "config.json": "has no config.json",
        "model.safetensors": "has no safetensors weights, and pickle is never loaded",
        "preprocessor_config.json": "image processor .* cannot be opened",
    },
}


@pytest.mark.parametrize(("kind", "file"), [(kind, file) for kind, files in LACKS.items() for file in files])
def test_a_folder_that_lacks_something_is_one_sentence(kind: str, file: str, tmp_path: Path) -> None:
    folder = shutil.copytree(PLACES[kind](), tmp_path / "copy")
    (folder / file).unlink()
    with pytest.raises(UserError, match=LACKS[kind][file]) as error:
        open_networks([f"{kind}={folder}"])
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_clip_without_its_tokenizer_is_one_sentence(tmp_path: Path) -> None:
    folder = shutil.copytree(clip_folder(), tmp_path / "copy")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(UserError, match=r"the tokenizer in .* has 2 words and the network's text side 514") as error:
        open_networks([f"clip={folder}"])
    assert "\n" not in str(error.value)


def test_weights_that_are_missing_are_not_filled_at_random(tmp_path: Path) -> None:
    folder = shutil.copytree(dino_folder(), tmp_path / "copy")
    weights = load_file(folder / "model.safetensors")
    weights.pop(sorted(weights)[-1])
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="is torn: some weights"):
        open_networks([f"dino={folder}"])


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("dino={clip}", r"model of type 'clip'; dino= needs one of dinov2"),
        ("clip={dino}", r"model of type 'dinov2'; clip= needs one of clip"),
        ("clip={clip}/config.json", "is a file; give the folder"),
        ("clip=no-such-folder", "there is no folder 'no-such-folder' .* no hub id"),
        ("dino=nobody/nothing", "'nobody/nothing' cannot be had from the Hugging Face hub: the hub cannot be reached"),
        ("clip", "'openai/clip-vit-large-patch14' cannot be had from the Hugging Face hub"),
    ],
)
def test_a_place_that_is_no_such_network_is_one_sentence(name: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as error:
        open_networks([name.format(clip=clip_folder(), dino=dino_folder())])
    assert "\n" not in str(error.value)
