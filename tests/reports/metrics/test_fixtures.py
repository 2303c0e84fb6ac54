"""The synthetic evaluation has the layout that `adapt evaluate` writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import xarray as xr

from tests.reports.metrics.fixtures import evaluation, write_evaluation

DIMS = {
    "image": ("adapter", "sample", "y", "x", "rgb"), "energy": ("adapter", "sample", "channel", "band"),
    "spectrum": ("adapter", "sample", "radius"), "status": ("adapter",),
    "attribute_right": ("adapter", "sample", "attribute"), "feature_world": ("adapter", "sample", "dim_world"),
    "text_world": ("sample", "dim_world"), "validation_error": ("adapter", "level", "heldout", "draw"),
    "band_error": ("adapter", "level", "heldout", "draw", "band"), "reference_image": ("reference", "y", "x", "rgb"),
    "reference_caption": ("reference",), "reference_part": ("reference",),
    "reference_energy": ("reference", "channel", "band"), "reference_spectrum": ("reference", "radius"),
    "reference_feature_world": ("reference", "dim_world"),
}  # fmt: skip


def test_names_and_dimensions_are_those_of_the_store(tmp_path: Path) -> None:
    stored = xr.open_zarr(write_evaluation(tmp_path / "EVAL.zarr", evaluation()), consolidated=False)
    assert {name: data.dims for name, data in stored.data_vars.items()} == DIMS
    assert {"kind", "path", "digest", "prompt", "seed", "part", "radius", "noise_level"} <= set(stored.coords)
    assert stored.attrs["format"] == 1
    protocol = json.loads(stored.attrs["protocol"])
    assert protocol["networks"][0]["name"] == "world"
    assert stored.adapter.values[0] == "base"


def test_an_evaluation_is_the_same_every_time_and_another_with_another_seed() -> None:
    assert evaluation(1, 2).identical(evaluation(1, 2))
    assert not np.array_equal(evaluation(1, 2).image, evaluation(1, 2, seed=1).image)
