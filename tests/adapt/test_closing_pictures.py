"""Pictures before and after, at the same prompts and seeds."""

from __future__ import annotations

from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image

from adapt import closing_pictures as evaluation
from adapt.loop import train
from adapt.methods import load_adapter
from adapt.task import prepare
from datasets_cache import encode
from spectra.bands import FilterBank, radial_spectrum
from spectra.errors import UserError
from spectra.families import family_of
from spectra.models import call_defaults, load_pipeline
from tests.adapt.small import config, data, encodings, finished, model

CASES = [("lora", "sd"), ("fera", "sd"), ("lora", "sd3"), ("fera", "sd3")]


def opened(path: Path) -> xr.Dataset:
    found: xr.Dataset = xr.open_zarr(path / "evaluation.zarr", consolidated=False).load()
    return found


@pytest.mark.parametrize(("method", "family"), CASES)
def test_arms_are_what_the_pipeline_draws_with_and_without_the_adapter(method: str, family: str) -> None:
    run = finished(method, family)
    found = opened(run.path)
    pipe = load_pipeline(model(family))
    for source in ("base", "adapter"):
        if source == "adapter":
            load_adapter(family_of(pipe).denoiser(pipe), run.path / "adapter")
        drawn = pipe(
            prompt=found.prompt.values.tolist(), generator=[torch.Generator().manual_seed(int(s)) for s in found.seed],
            num_inference_steps=2, guidance_scale=3.0, output_type="np", **call_defaults(pipe),
        ).images  # fmt: skip
        difference = np.abs(found.image.sel(source=source).values.astype(int) - (drawn * 255).round().astype(int))
        assert difference.max() <= 1
    arms = found.image.sel(source=["base", "adapter"]).values
    assert not np.array_equal(arms[0], arms[1])


def test_the_reference_is_the_heldout_picture_of_the_caption() -> None:
    found = opened(finished("lora").path)
    for i, prompt in enumerate(found.prompt.values):
        name = next(path.stem for path in (data() / "heldout").glob("*.txt") if path.read_text().strip() == prompt)
        with Image.open(data() / "heldout" / f"{name}.png") as picture:
            np.testing.assert_array_equal(found.image.sel(source="reference")[i], np.asarray(picture))


def test_energies_are_those_of_the_latents() -> None:
    found = opened(finished("lora").path)
    encoded = encode(data() / "heldout", load_pipeline(model("sd")), encodings()).latents([0, 1])
    bank = FilterBank.octaves(4, (16, 16))
    reference = found.sel(source="reference")
    np.testing.assert_allclose(reference.energy, bank.energies(encoded), rtol=1e-5)
    np.testing.assert_allclose(reference.spectrum, radial_spectrum(encoded, 16).sum(1), rtol=1e-5)
    assert found.energy.dims == ("source", "sample", "channel", "band")
    assert found.energy.shape == (3, 2, 4, 4)
    assert np.isfinite(found.energy).all()


def test_every_seed_is_drawn_for_every_caption_the_same_on_every_run(tmp_path: Path) -> None:
    first, second = (
        opened(train(config(tmp_path / name, sample_seeds=[3, 5], cache=tmp_path / f"cache-{name}")).path)
        for name in ("a", "b")
    )  # separate caches, so that nothing is shared
    assert first.seed.values.tolist() == [3, 5, 3, 5]
    assert first.prompt.values.tolist() == ["ramp 1 0"] * 2 + ["ramp 1 1"] * 2
    xr.testing.assert_identical(first, second)
    base = first.image.sel(source="base").values
    assert not np.array_equal(base[0], base[1])


def test_runs_on_one_model_share_the_pictures_of_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    whole = evaluation.generate

    def counted(pipe: object, prompts: list[str], seeds: list[int], **settings: object) -> torch.Tensor:
        drawn.append(len(prompts))
        return whole(pipe, prompts, seeds, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluation, "generate", counted)
    runs = [train(config(tmp_path / m, method=m, cache=tmp_path / "cache")).path for m in ("lora", "fera")]
    assert drawn == [2, 2, 2]  # base and adapter, then the adapter alone
    np.testing.assert_array_equal(*(opened(run).image.sel(source="base") for run in runs))


def test_the_reader_is_asked_only_about_pictures_of_the_world() -> None:
    world = "a large red circle on a plain blue background"
    images = np.zeros((3, 1, 64, 64, 3), np.uint8)
    assert evaluation.attributes_right(images, ["a photo of a red car"]) == {}
    assert evaluation.attributes_right(images[:, :, :32, :32], [world]) == {}
    from spectra.zoo import reader

    if not reader.WEIGHTS.exists():
        pytest.skip("the reader's weights are not in this tree")
    assert set(evaluation.attributes_right(images, [world])) == set(reader.ATTRIBUTES)


@pytest.mark.parametrize(("method", "family"), CASES)
def test_the_first_sample_says_what_was_foreseen_of_it_on_the_way(method: str, family: str) -> None:
    """Two steps: the last prediction of a sampler that ends at no noise is the finished sample."""
    found = opened(finished(method, family).path)
    assert "x0_left_out" not in found.attrs
    assert found.x0_source.values.tolist() == ["base", "adapter"]
    assert found.x0_step.values.tolist() == [0, 1]
    assert found.x0_noise_level[0] > found.x0_noise_level[1] > 0
    assert found.x0_image.dims == ("x0_source", "x0_step", "y", "x", "rgb")
    arms = found.sel(source=["base", "adapter"]).isel(sample=0)
    last = found.isel(x0_step=-1)
    assert np.abs(last.x0_image.values.astype(int) - arms.image.values.astype(int)).max() <= 1
    np.testing.assert_allclose(last.x0_energy, arms.energy.sum("channel"), rtol=1e-3)
    assert not np.array_equal(found.x0_image[0], found.x0_image[1])


def test_a_scheduler_without_a_rule_for_x0_leaves_it_out_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from adapt import x0_steps

    def refuse(*_: object) -> object:
        raise UserError("Odd has no known rule for x0 and eps")

    monkeypatch.setattr(x0_steps, "schedule_of", refuse)
    the = prepare(config(Path("unused"), cache=Path(mkdtemp())), torch.device("cpu"))
    found = evaluation.evaluate(the)
    assert found.attrs["x0_left_out"] == "Odd has no known rule for x0 and eps"
    assert not [name for name in found.variables if str(name).startswith("x0_")]
    assert {"image", "energy", "spectrum"} <= set(found.data_vars)


def test_runs_on_one_model_share_what_the_base_foresaw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from adapt import x0_steps

    asked: list[str] = []
    whole = x0_steps.foresee

    def counted(pipe: object, prompt: str, seed: int, **settings: object) -> x0_steps.Foreseen:
        asked.append(prompt)
        return whole(pipe, prompt, seed, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(x0_steps, "foresee", counted)
    the = prepare(config(tmp_path / "run", cache=tmp_path / "cache"), torch.device("cpu"))
    first, second = evaluation.evaluate(the), evaluation.evaluate(the)
    assert asked == ["ramp 1 0"] * 3  # base and adapter, then the adapter alone
    xr.testing.assert_identical(first, second)
