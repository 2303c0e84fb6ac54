"""The bundled model: a LoRA, its exports and the base, with the bundled network and reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest

import adapt
import spectra
from adapt.export import export
from spectra.models import load_pipeline
from tests.adapt.evaluation.kinds import peft_folder
from tests.adapt.small import write_pictures

PROMPTS = ["a large red circle on a plain blue background", "a small green square on a striped yellow background"]
UNRELATED = "a small blue square on a plain green background"


def lora(folder: Path) -> Path:
    """A LoRA that is no zero."""
    pipe: Any = load_pipeline("mini")
    return peft_folder(folder, pipe.unet, peft.LoraConfig(r=2, target_modules=["to_q", "to_v"]))


@pytest.mark.slow
def test_exports_of_a_lora_give_its_pictures_and_errors(tmp_path: Path) -> None:
    folder = lora(tmp_path / "lora")
    exports = [
        export(folder, tmp_path / form, form, model="mini", prompts=PROMPTS[:1], steps=2)
        for form in ("static-lora", "kohya")
    ]
    found = adapt.evaluate(
        [folder, *exports], model="mini", prompts=PROMPTS, unrelated=[UNRELATED], seeds=[0], steps=4, device="cpu",
        out=tmp_path / "eval.zarr", data=write_pictures(tmp_path / "ramps", 3), cache=tmp_path / "cache",
    ).load()  # fmt: skip
    assert found.adapter.values.tolist() == ["base", "lora", "static-lora", "kohya"]
    base, mine, *others = (found.sel(adapter=label) for label in found.adapter.values)
    assert np.abs(base.image.astype(int) - mine.image.astype(int)).mean() > 1
    for other in others:
        assert np.abs(other.image.astype(int) - mine.image.astype(int)).max() <= 1
        np.testing.assert_allclose(other.energy, mine.energy, rtol=1e-3)
        np.testing.assert_allclose(other.validation_error, mine.validation_error, rtol=1e-4)
    assert (mine.validation_error != base.validation_error).any()
    assert found.feature_world.shape == (4, 3, found.sizes["dim_world"])
    assert found.reference_feature_world.shape[0] == found.sizes["reference"] == 3
    assert found.attribute_right.notnull().all()
    assert spectra.open_cube(tmp_path / "eval.zarr" / "probe").sizes["run"] == 4 * 3
