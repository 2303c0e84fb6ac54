"""What is measured beside the pictures: errors, references, features and attributes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adapt.evaluation import stage
from adapt.evaluation.measuring import attributes_of, captions_of, right
from adapt.methods import load_adapters
from adapt.networks import Network
from adapt.task import prepare
from adapt.validate import make_grid, validate
from datasets_cache import encode
from spectra.bands import FilterBank
from spectra.errors import UserError
from spectra.models import load_pipeline
from tests.adapt.evaluation.kinds import by_hand, evaluated, merged, protocol, two
from tests.adapt.small import config, data, encodings, model


@pytest.mark.slow
def test_validation_errors_are_those_of_adapt_validate_on_one_grid_for_all(tmp_path: Path) -> None:
    adapter = by_hand("lora", text=True)
    found = evaluated(tmp_path / "a.zarr", [adapter], data=data() / "heldout", seeds=[0], prompts=["a"])
    assert found.validation_error.dims == ("adapter", "level", "heldout", "draw")
    assert found.band_error.dims == ("adapter", "level", "heldout", "draw", "band")
    for label, folder, text in (("base", None, False), ("lora-text", adapter, True)):
        settings = config(tmp_path / label, eval_samples=16, eval_levels=8, method="full", text_encoder=text)
        task = prepare(settings, torch.device("cpu"))
        if folder is not None:
            load_adapters(task.pipe, folder)
        grid = make_grid(task)
        expected = validate(task, grid)
        np.testing.assert_allclose(found.validation_error.sel(adapter=label), expected.error, rtol=1e-5)
        np.testing.assert_allclose(found.band_error.sel(adapter=label), expected.band_error, rtol=1e-4, atol=1e-7)
    level = task.objective.noise_level(grid.timesteps).double()
    np.testing.assert_allclose(found.log_snr, task.objective.log_snr(level))
    assert (np.diff(found.noise_level) > 0).all()


def test_references_are_the_pictures_and_their_encodings(tmp_path: Path) -> None:
    found = evaluated(tmp_path / "a.zarr", [], data=data(), seeds=[0], prompts=["a"])
    for part in ("heldout", "train"):
        chosen = found.isel(reference=found.reference_part.values == part)
        encoded = encode(data() / part, load_pipeline(model("sd")), encodings())
        rows = list(range(len(encoded)))
        assert chosen.reference_caption.values.tolist() == list(encoded.captions)
        np.testing.assert_array_equal(chosen.reference_image, np.stack([encoded.picture(row) for row in rows]))
        energies = FilterBank.octaves(4, (16, 16)).energies(encoded.latents(rows))
        np.testing.assert_allclose(chosen.reference_energy, energies, rtol=1e-5)
        assert chosen.reference_spectrum.shape == (len(rows), found.sizes["radius"])


def mean_colour(names: Sequence[str], **_: Any) -> list[Network]:
    """Networks that need no weights: the mean colour of a picture, and the letters of a text."""

    def see(images: Any) -> Any:
        return images.reshape(len(images), -1, 3).mean(1).astype(np.float32)

    def read(texts: list[str]) -> Any:
        return np.array([[len(text), text.count("a"), 1] for text in texts], np.float32)

    hashes = {"auto": "1", "other": "2"}
    return [Network("mean", "mean colour", "closed form", hashes[name], 64, "none", "uint8 in", 3, True, see, read)
            for name in names]  # fmt: skip


def test_features_are_those_of_the_stored_pictures_and_of_the_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapt.networks.open_networks", mean_colour)
    told: list[tuple[str, int, int]] = []
    settings: dict[str, Any] = {"networks": ["auto"], "data": data() / "heldout", "batch": 3}
    found = evaluated(tmp_path / "a.zarr", [merged()], **settings, progress=lambda *phase: told.append(phase))
    np.testing.assert_allclose(found.feature_mean, found.image.values.mean((2, 3)), rtol=1e-5)
    np.testing.assert_allclose(found.reference_feature_mean, found.reference_image.values.mean((1, 2)), rtol=1e-5)
    assert found.feature_mean.dims == ("adapter", "sample", "dim_mean")
    assert found.text_mean.values[:, 0].tolist() == [len(prompt) for prompt in found.prompt.values]
    assert protocol(found)["networks"][0]["sha256"] == "1"
    assert {phase for phase, _, _ in told} == {"encode", "sample", "validate", "features"}
    assert [one for one in told if one[0] == "sample"] == [("sample", done, 8) for done in (0, 3, 4, 7, 8)]
    assert told[-1] == ("features", 8, 8)
    with pytest.raises(UserError, match=r"networks\.mean was"):
        evaluated(tmp_path / "a.zarr", [], **(settings | {"networks": ["other"]}))


@pytest.mark.filterwarnings("ignore:1 prompt is longer")
def test_attributes_are_read_of_pictures_of_the_world_alone(tmp_path: Path) -> None:
    world = "red plain blue background"
    found = evaluated(tmp_path / "a.zarr", [], prompts=[world], unrelated=["a house", ""], seeds=[0])
    assert found.attribute.values.tolist() == ["size", "colour", "shape", "texture", "background"]
    assert np.isnan(found.attribute_right[0, 0]).values.tolist() == [True, False, True, False, False]
    assert found.attribute_right[0, 0, [1, 3, 4]].isin([0, 1]).all()
    assert found.attribute_right[0, 1:].isnull().all()
    assert "attribute_right" not in two()[1]


def test_a_bundled_model_is_asked_for_what_a_prompt_names_and_another_for_whole_captions() -> None:
    world, part = "a large red circle on a plain blue background", "a white cross"
    assert captions_of([world, part, ""], "mini-flow") == [world, part, ""]
    assert captions_of([world, part, ""], str(model("sd"))) == [world, "", ""]
    assert attributes_of([part], (64, 64)) == attributes_of([world], (64, 64)) != []
    assert attributes_of([part], (32, 32)) == attributes_of(["a house"], (64, 64)) == []
    named = np.isfinite(right(np.zeros((1, 64, 64, 3), np.uint8), [part]))[0]
    assert named.tolist() == [False, True, True, False, False]  # colour and shape


def test_stage_counts_add_up() -> None:
    told: list[Any] = []
    counts = stage.Counts(lambda *one: told.append(one), {"a": 3, "b": 1})
    for _ in range(3):
        counts.of("a")(1)
    assert told == [("a", 1, 3), ("a", 2, 3), ("a", 3, 3)]
