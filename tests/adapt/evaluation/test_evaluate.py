"""What `adapt.evaluate` promises: one protocol for all, whole adapters, and a store that anyone can open."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import spectra
from adapt.evaluation import stage
from adapt.evaluation.adapters import base, find
from adapt.evaluation.references import Sources, sources_of, warn_learned
from adapt.evaluation.request import (
    Request,
    guidance_of,
    labels_of,
    model_of,
    settings_of,
    steps_of,
    unrepeated,
)
from adapt.evaluation.store import known_in, open_evaluation
from adapt.methods import load_adapters
from adapt.networks import Network
from adapt.task import prepare
from adapt.validate import make_grid, validate
from datasets_cache import encode
from spectra.bands import FilterBank
from spectra.errors import UserError
from spectra.models import load_pipeline, model_hash
from tests.adapt.evaluation.kinds import PROMPTS, SEEDS, by_hand, evaluated, flow_lora, merged, run, strong_lora, two
from tests.adapt.small import config, data, encodings, model


def protocol(found: xr.Dataset) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(found.attrs["protocol"])
    return told


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_pictures_are_those_of_the_pipeline_itself() -> None:
    _, found = two()
    for label, path in (("base", model("sd")), ("merged", merged())):
        drawn = load_pipeline(path)(
            prompt=PROMPTS[1], generator=torch.Generator().manual_seed(5), num_inference_steps=2, guidance_scale=3.0,
            output_type="np",
        ).images  # fmt: skip
        image = found.image.sel(adapter=label)[3].values
        assert (found.prompt[3].item(), found.seed[3].item()) == (PROMPTS[1], 5)
        assert np.abs(image.astype(int) - (drawn[0] * 255).round().astype(int)).max() <= 1
    assert len(np.unique(found.image.values.reshape(3, -1), axis=0)) == 3


def test_all_adapters_start_from_the_same_noise_which_belongs_to_the_seed() -> None:
    out, _ = two()
    cube = spectra.open_cube(out / "probe")
    first = cube.energy.sel(signal="latent", step=0)
    assert cube.sizes["run"] == 3 * 3 * 2
    for seed in SEEDS:
        rows = first.values[cube.seed.values == seed]
        assert len(rows) == 9
        assert (rows == rows[0]).all()
    assert not np.array_equal(first.values[0], first.values[1])


def test_the_cube_has_every_sample_under_the_label_of_its_adapter_and_ends_with_the_stored_energies() -> None:
    out, found = two()
    cube = spectra.open_cube(str(out / "probe"))
    for label in found.adapter.values:
        runs = cube.isel(run=cube.adapter.values == label)
        assert runs.prompt.values.tolist() == found.prompt.values.tolist()
        assert runs.seed.values.tolist() == found.seed.values.tolist()
        final = runs.energy.sel(signal="latent").isel(step=-1)
        np.testing.assert_allclose(
            final.transpose("run", "channel", "band"), found.energy.sel(adapter=label), rtol=1e-4
        )
    np.testing.assert_allclose(cube.scale_high, found.scale_high)
    assert cube.attrs["model_hash"] == protocol(found)["model_hash"] == model_hash(model("sd"))


def test_the_store_opens_with_xarray_as_it_is() -> None:
    out, found = two()
    plain = xr.open_zarr(out).load()
    xr.testing.assert_identical(plain, found)
    xr.testing.assert_identical(open_evaluation(str(out)).load(), found)
    assert found.adapter.values.tolist() == ["base", "strong", "merged"]
    assert found.kind.values.tolist() == ["base", "lora", "merged"]
    assert found.digest.values[0] == ""
    assert len(set(found.digest.values)) == 3
    assert found.path.values.tolist() == ["", str(strong_lora()), str(merged())]
    assert found.status.values.tolist() == [1, 1, 1]
    assert found.prompt.dtype == np.dtypes.StringDType()
    assert {"kind", "path", "digest", "prompt", "seed", "part", "scale_low", "radius"} <= set(found.coords)
    assert found.attrs["format"] == 1


def test_unrelated_prompts_are_a_part_of_their_own() -> None:
    _, found = two()
    assert found.part.values.tolist() == ["asked"] * 4 + ["unrelated"] * 2
    assert found.prompt.values.tolist() == [PROMPTS[0]] * 2 + [PROMPTS[1]] * 2 + ["a house"] * 2


def test_the_protocol_says_what_pictures_depend_on() -> None:
    told = protocol(two()[1])
    assert (told["steps"], told["guidance"], told["sizes"]) == (2, 3.0, {"height": 64, "width": 64})
    assert told["scheduler"]["class"] == "DDIMScheduler"
    assert told["scheduler"]["config"]["prediction_type"] == "v_prediction"
    assert (told["prompts"], told["seeds"], told["unrelated"]) == (PROMPTS, SEEDS, ["a house"])
    assert (told["device"], told["batch"], told["networks"], told["data"]) == ("cpu", 8, [], None)
    assert told["versions"]["torch"] == torch.__version__


def test_adapters_that_are_added_later_are_as_if_they_had_been_there_from_the_start(tmp_path: Path) -> None:
    evaluated(tmp_path / "a.zarr", [strong_lora()], unrelated=["a house"])
    later = evaluated(tmp_path / "a.zarr", [merged(), strong_lora()], unrelated=["a house"], model=None)
    xr.testing.assert_identical(later, two()[1])
    mine, expected = (spectra.open_cube(out / "probe") for out in (tmp_path / "a.zarr", two()[0]))
    for name in ("energy", "spectrum", "adapter", "prompt", "seed", "draw"):
        np.testing.assert_array_equal(mine[name], expected[name])


def test_the_same_call_again_changes_no_file(tmp_path: Path) -> None:
    shutil.copytree(two()[0], tmp_path / "a.zarr")
    before = files(tmp_path / "a.zarr")
    again = evaluated(tmp_path / "a.zarr", [strong_lora(), merged()], unrelated=["a house"])
    assert files(tmp_path / "a.zarr") == before
    xr.testing.assert_identical(again, two()[1])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompts": ["another"]}, "prompts was"),
        pytest.param({"seeds": [1]}, r"seeds was \[3, 5\], is \[1\]", marks=pytest.mark.slow),
        ({"steps": 3}, "steps was 2, is 3"),
        pytest.param({"guidance": 1.0}, "guidance was 3.0, is 1.0", marks=pytest.mark.slow),
        pytest.param({"unrelated": []}, "unrelated was", marks=pytest.mark.slow),
        pytest.param({"resolution": 32}, "sizes.height was 64, is 32", marks=pytest.mark.slow),
        ({"data": data() / "heldout"}, "heldout"),
        pytest.param({"model": merged}, "model_hash was", marks=pytest.mark.slow),
        ({"names": ["merged"]}, "the name 'merged' is taken"),
    ],
)
def test_what_would_not_compare_is_refused_and_nothing_is_lost(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    shutil.copytree(two()[0], tmp_path / "a.zarr")
    before = files(tmp_path / "a.zarr")
    asked = {name: value() if callable(value) else value for name, value in changes.items()}
    with pytest.raises(UserError, match=words):
        evaluated(tmp_path / "a.zarr", [by_hand("fera")], **({"unrelated": ["a house"]} | asked))
    assert files(tmp_path / "a.zarr") == before


def test_an_adapter_that_changed_is_refused_by_name(tmp_path: Path) -> None:
    shutil.copytree(strong_lora(), tmp_path / "mine")
    evaluated(tmp_path / "a.zarr", [tmp_path / "mine"], prompts=["a"], seeds=[0])
    settings = tmp_path / "mine" / "adapter_config.json"
    settings.write_text(settings.read_text().replace('"lora_alpha": 2', '"lora_alpha": 4'))
    with pytest.raises(UserError, match="mine has other weights than when it was evaluated as 'mine'"):
        evaluated(tmp_path / "a.zarr", [tmp_path / "mine"], prompts=["a"], seeds=[0])


def test_an_adapter_that_was_moved_is_known_by_its_name_and_weights(tmp_path: Path) -> None:
    known = known_in(two()[0])
    for name in ("strong", "other"):
        shutil.copytree(strong_lora(), tmp_path / name)
    assert labels_of([find(tmp_path / "strong")], None, known) == ["strong"]
    assert labels_of([find(tmp_path / "other")], None, known) == ["other"]


def test_labels_are_unique_or_given(tmp_path: Path) -> None:
    shutil.copytree(merged() / "unet", tmp_path / "strong" / "unet")
    both = [find(strong_lora()), find(tmp_path / "strong" / "unet")]
    assert labels_of(both, None, []) == ["strong", "strong (2)"]
    assert labels_of(both, None, known_in(two()[0])) == ["strong", "strong (2)"]
    assert labels_of(both, ["<i>ünï</i>", "b"], []) == ["<i>ünï</i>", "b"]


def test_an_adapter_that_is_given_twice_is_one(tmp_path: Path) -> None:
    (tmp_path / "strong").symlink_to(strong_lora())
    given: list[str | Path] = [
        strong_lora(),
        str(strong_lora()),
        strong_lora() / ".." / "strong",
        tmp_path / "strong",
        "base",
    ]
    assert unrepeated(given) == [str(strong_lora())]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompts": []}, "at least one prompt and one seed"),
        ({"seeds": []}, "at least one prompt and one seed"),
        ({"prompts": "a circle"}, "prompts is a list of texts"),
        ({"seeds": [-1]}, "a seed is a whole number"),
        ({"steps": 0}, "steps is at least 1"),
        pytest.param({"steps": 2000}, "2000 sampler steps are too many", marks=pytest.mark.slow),
        ({"batch": 0}, "batch is at least 1"),
        ({"guidance": -1.0}, "guidance is a number of at least 0"),
        ({"unrelated": PROMPTS[:1]}, "given as asked and as unrelated"),
        ({"model": "no-such-model"}, "no model folder"),
        ({"model": None}, "give the model"),
        pytest.param({"networks": ["no-such-network"]}, "no-such-network", marks=pytest.mark.slow),
        ({"data": "no-such-folder"}, "no-such-folder"),
        pytest.param({"device": "cuda:7"}, "the device 'cuda:7' cannot be used", marks=pytest.mark.slow),
        ({"names": ["a", "b"]}, "2 names were given for 1 adapter;"),
        ({"names": ["base"]}, "the name 'base' is taken"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words) as refused:
        evaluated(tmp_path / "a.zarr", [strong_lora()], **changes)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "a.zarr").exists()


def test_an_adapter_that_does_not_fit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not fit this StableDiffusionPipeline"):
        evaluated(tmp_path / "a.zarr", [strong_lora(), model("sd3")])
    with pytest.raises(UserError, match=r"was trained on .* and .* is another model"):
        evaluated(tmp_path / "a.zarr", [run("lora")], model=model("sd3"))
    assert not (tmp_path / "a.zarr").exists()


def test_a_place_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("a")
    xr.Dataset({"a": ("x", [1.0])}).to_zarr(tmp_path / "other.zarr", zarr_format=3, consolidated=False)
    for name, words in (("notes", "it holds no zarr group"), ("other.zarr", "no evaluation")):
        for attempt in (lambda out: evaluated(out, []), open_evaluation):
            with pytest.raises(UserError, match=words):
                attempt(tmp_path / name)
    with pytest.raises(UserError, match="there is no evaluation at"):
        open_evaluation(tmp_path / "gone.zarr")


def test_what_is_left_open_is_as_in_the_runs() -> None:
    """Model, steps, guidance and pictures, where all adapters are runs and agree."""
    mine, open_ = find(run("lora")), Request(None, ["a"], [0], [], None, None, ["none"], None, None, None, None, 8)
    assert mine.record is not None
    settings = settings_of([mine])
    assert (model_of(open_, None, [mine]), steps_of(open_, None, settings)) == (str(model("sd")), 2)
    other = replace(mine, record=mine.record | {"config": mine.record["config"] | {"sample_steps": 9, "guidance": 1.0}})
    assert guidance_of(open_, None, settings_of([other])) == 1.0
    assert (steps_of(open_, None, settings_of([mine, other])), guidance_of(open_, None, settings)) == (20, 3.0)
    found = sources_of(open_, None, [mine])
    assert (found.data, found.train) == (str(data() / "heldout"), str(data() / "train"))
    assert sources_of(open_, None, [mine, find(strong_lora())]) == Sources()


@pytest.mark.slow
def test_evaluations_of_runs_are_as_the_runs_were_and_stay_so(tmp_path: Path) -> None:
    found = evaluated(tmp_path / "a.zarr", [run("lora")], model=None, steps=None, seeds=[0], prompts=["a"])
    told = protocol(found)
    assert (told["model"], told["steps"], told["guidance"]) == (str(model("sd")), 2, 3.0)
    assert (told["data"], told["train"]) == (str(data() / "heldout"), str(data() / "train"))
    assert found.reference_part.values.tolist() == ["heldout"] * 4 + ["train"] * 6
    mixed = evaluated(tmp_path / "b.zarr", [run("lora"), strong_lora()], model=None, seeds=[0], prompts=["a"])
    assert protocol(mixed)["data"] is None
    assert "validation_error" not in mixed
    added = evaluated(tmp_path / "a.zarr", [strong_lora()], model=None, seeds=[0], prompts=["a"])
    assert added.validation_error.notnull().all()


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
    assert [one for one in told if one[0] == "sample"] == [("sample", done, 8) for done in (3, 4, 7, 8)]
    assert told[-1] == ("features", 8, 8)
    with pytest.raises(UserError, match=r"networks\.mean was"):
        evaluated(tmp_path / "a.zarr", [], **(settings | {"networks": ["other"]}))


def test_another_batch_or_device_is_said_and_not_refused(tmp_path: Path) -> None:
    shutil.copytree(two()[0], tmp_path / "a.zarr")
    with pytest.warns(UserWarning, match="batch was 8, is 2"):
        found = evaluated(tmp_path / "a.zarr", [by_hand("fera")], unrelated=["a house"], batch=2)
    assert found.adapter.values.tolist() == ["base", "strong", "merged", "fera"]


def test_held_out_pictures_that_a_run_learned_from_are_named(tmp_path: Path) -> None:
    learned = replace(base(), path="runs/mine", record={"config": {"data": str(tmp_path)}})
    with pytest.warns(UserWarning, match="runs/mine was trained on pictures of .*: its errors there say too little"):
        warn_learned(Sources(str(tmp_path)), [learned])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_learned(Sources(str(tmp_path / "others")), [learned, base()])
        warn_learned(Sources(str(tmp_path), str(tmp_path)), [learned])  # which holds some of its own out


def test_the_base_alone_is_an_evaluation(tmp_path: Path) -> None:
    found = evaluated(tmp_path / "a.zarr", ["base"], seeds=[0])
    assert found.adapter.values.tolist() == ["base"]


@pytest.mark.filterwarnings("ignore:1 prompt is longer")
def test_attributes_are_read_of_pictures_of_the_world_alone(tmp_path: Path) -> None:
    world = "red plain blue background"
    found = evaluated(tmp_path / "a.zarr", [], prompts=[world], unrelated=["a house", ""], seeds=[0])
    assert found.attribute.values.tolist() == ["size", "colour", "shape", "texture", "background"]
    assert np.isnan(found.attribute_right[0, 0]).values.tolist() == [True, False, True, False, False]
    assert found.attribute_right[0, 0, [1, 3, 4]].isin([0, 1]).all()
    assert found.attribute_right[0, 1:].isnull().all()
    assert "attribute_right" not in two()[1]


@pytest.mark.slow
def test_flow_models_and_their_adapters_are_evaluated_too(tmp_path: Path) -> None:
    found = evaluated(tmp_path / "a.zarr", [flow_lora()], model=model("sd3"), data=data() / "heldout", seeds=[0])
    assert found.adapter.values.tolist() == ["base", "flow"]
    assert not np.array_equal(found.image[0], found.image[1])
    assert (found.validation_error[0] != found.validation_error[1]).any()
    assert protocol(found)["scheduler"]["class"] == "FlowMatchEulerDiscreteScheduler"
    assert spectra.open_cube(tmp_path / "a.zarr" / "probe").attrs["family"] == "sd3"


def test_stage_counts_add_up() -> None:
    told: list[Any] = []
    counts = stage.Counts(lambda *one: told.append(one), {"a": 3, "b": 1})
    for _ in range(3):
        counts.of("a")(1)
    assert told == [("a", 1, 3), ("a", 2, 3), ("a", 3, 3)]
