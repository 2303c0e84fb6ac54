"""What an evaluation promises: the same noise for all, whole adapters, and a store that anyone can open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import spectra
from adapt.evaluation.store import open_evaluation
from spectra.models import load_pipeline, model_hash
from tests.adapt.evaluation.kinds import PROMPTS, SEEDS, evaluated, flow_lora, merged, protocol, strong_lora, two
from tests.adapt.small import data, model


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


def test_the_base_alone_is_an_evaluation(tmp_path: Path) -> None:
    found = evaluated(tmp_path / "a.zarr", ["base"], seeds=[0])
    assert found.adapter.values.tolist() == ["base"]


@pytest.mark.slow
def test_flow_models_and_their_adapters_are_evaluated_too(tmp_path: Path) -> None:
    found = evaluated(tmp_path / "a.zarr", [flow_lora()], model=model("sd3"), data=data() / "heldout", seeds=[0])
    assert found.adapter.values.tolist() == ["base", "flow"]
    assert not np.array_equal(found.image[0], found.image[1])
    assert (found.validation_error[0] != found.validation_error[1]).any()
    assert protocol(found)["scheduler"]["class"] == "FlowMatchEulerDiscreteScheduler"
    assert spectra.open_cube(tmp_path / "a.zarr" / "probe").attrs["family"] == "sd3"
