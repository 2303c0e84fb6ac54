"""Exports of FeRA as one LoRA per expert and a schedule of gates: evaluated as they are played."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from adapt.evaluation.adapters import find
from adapt.evaluation.attaching import check_fit
from adapt.fera.ablation import edited_gates
from adapt.methods import load_adapters
from adapt.task import prepare
from adapt.validate import make_grid, validate
from spectra.errors import UserError
from spectra.models import load_pipeline
from tests.adapt.evaluation.kinds import evaluated, routed, scheduled
from tests.adapt.small import config, data, model


def compared(out: Path, router: str, form: str = "scheduled-loras") -> xr.Dataset:
    """The base, FeRA and its export; two samples in two batches, so that a schedule is played twice.

    Of the sixteen noise levels of the schedule, the pictures go through four.
    """
    pair = [routed(router), scheduled(router, form)]
    return evaluated(out, pair, prompts=["a red circle"], data=data() / "heldout", steps=4, batch=1)


def missed(found: xr.Dataset) -> tuple[xr.DataArray, float]:
    """How far the export is from FeRA, as shares of what FeRA changes: errors (level,), and pictures."""
    shares = []
    for values, over in ((found.validation_error, ("heldout", "draw")), (found.image.astype(float), None)):
        base, fera, export = values
        shares.append(np.abs(export - fera).mean(over) / np.abs(base - fera).mean(over))
    return shares[0], float(shares[1])


def test_with_a_clock_the_schedule_has_the_pictures_and_errors_of_fera(tmp_path: Path) -> None:
    found = compared(tmp_path / "a.zarr", "clock")
    assert found.kind.values.tolist() == ["base", "fera", "scheduled-loras"]
    assert found.adapter.values.tolist()[2] == scheduled("clock").name
    _, fera, export = (found.isel(adapter=i) for i in range(3))
    assert np.abs(export.image.astype(int) - fera.image.astype(int)).max() <= 1
    np.testing.assert_allclose(export.energy, fera.energy, rtol=1e-5)
    errors, _ = missed(found)
    assert errors.max() < 0.002  # measured: 0.0002, between the levels of the schedule


@pytest.mark.slow
def test_one_weight_for_all_levels_misses_what_the_schedule_has(tmp_path: Path) -> None:
    errors, pictures = missed(compared(tmp_path / "a.zarr", "clock", "static-lora"))
    assert errors.min() > 0.05  # measured: 0.08 to 0.40
    assert pictures > 0.2  # measured: 0.63


@pytest.mark.slow
def test_how_far_a_schedule_is_from_gates_that_follow_latents(tmp_path: Path) -> None:
    errors, pictures = missed(compared(tmp_path / "a.zarr", "energy"))
    assert 0.01 < errors[3:].mean() < 0.1  # measured: 0.05
    assert errors[:3].mean() > 0.5  # measured: 0.97; encoded pictures are not what untrained weights draw in the end
    assert 0.05 < pictures < 0.4  # measured: 0.21


def test_errors_of_each_level_are_those_of_fera_with_the_gates_of_that_level(tmp_path: Path) -> None:
    export = scheduled("energy")
    found = evaluated(tmp_path / "a.zarr", [export], data=data() / "heldout", seeds=[0], prompts=["a"])
    task = prepare(config(tmp_path / "run", eval_samples=16, eval_levels=8, method="full"), torch.device("cpu"))
    load_adapters(task.pipe, routed("energy"))
    expected, grid = [], make_grid(task)
    for level, gates in enumerate(gates_at(export, found.log_snr.values)):
        with edited_gates(task.denoiser, gates.expand_as):
            expected.append(validate(task, grid).error[level])
    np.testing.assert_allclose(found.validation_error[1], torch.stack(expected), rtol=1e-4)


def gates_at(export: Path, log_snr: Any) -> torch.Tensor:
    """Gates (level, expert) of a schedule, read from its file."""
    saved = json.loads((export / "gates.json").read_text())
    columns = [np.interp(log_snr, saved["log_snr"], column) for column in zip(*saved["gates"], strict=True)]
    return torch.tensor(np.stack(columns, -1), dtype=torch.float32)


def changed(**values: Any) -> Callable[[Path], None]:
    """Other values in a schedule."""

    def write(folder: Path) -> None:
        file = folder / "gates.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return write


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def left_out(name: str) -> Callable[[Path], None]:
    """A schedule without one of its parts."""

    def write(folder: Path) -> None:
        file = folder / "gates.json"
        file.write_text(json.dumps({key: value for key, value in json.loads(file.read_text()).items() if key != name}))

    return write


def torn(folder: Path) -> None:
    (folder / "gates.json").write_text("{")


def files(first: object, second: object = "expert1.safetensors") -> Callable[[Path], None]:
    return changed(adapters={"expert0": first, "expert1": second, "expert2": "expert2.safetensors"})


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "gates": (changed(gates=[[1.0]]), "it has gates of 1 steps and 1 experts, and levels of 2 steps and 3 experts"),
    "no gates": (left_out("gates"), "it has no gates; export the adapter again"),
    "empty": (changed(gates=[]), "it has gates of 0 steps and 0 experts"),
    "ragged": (changed(gates=[[1.0, 0.0, 0.0], [1.0]]), "its gates have different lengths"),
    "no levels": (left_out("timestep"), "it has no timestep"),
    "up and down": (changed(log_snr=[0.0, 1.0, 0.5]), "its log_snr does not run in one direction"),
    "times": (changed(timestep=[5, 9, 3]), "its timestep does not run in one direction"),
    "below": (changed(timestep=[5, -1]), "its timestep goes beyond 0 to 1e"),
    "far": (changed(log_snr=[-1e9, 0]), "its log_snr goes beyond -"),
    "shorter": (changed(timestep=[5]), "have different lengths"),
    "experts": (changed(experts=["expert0"]), "its adapters are not one file for each expert"),
    "twice named": (changed(experts=["expert0", "expert0", "expert1"]), "it names an expert twice"),
    "one file": (files("expert1.safetensors"), "it names one file for two experts"),
    "list": (changed(adapters=["expert0", "expert1", "expert2"]), "its adapters are not one file for each expert"),
    "outside": (files("../../../etc/passwd"), "is no plain file name, and only files of its own folder are read"),
    "whole path": (files("/etc/passwd"), "is no plain file name"),
    "number": (files(1), "its file for expert0, 1, is no plain file name"),
    "nan": (changed(log_snr=[float("nan"), 0.0]), "its log_snr is no list of numbers"),
    "words": (changed(log_snr="high", gates=["low"]), "its log_snr is no list of numbers"),
    "format": (changed(format=2), "it is of format 2, and this version reads 1"),
    "no json": (torn, "it is no JSON; export"),
    "file": (without("expert1.safetensors"), r"expert1\.safetensors cannot be read"),
    "no schedule": (
        without("gates.json"),
        r"copy has no gates\.json, by which its experts are mixed; .* export .* again",
    ),
    "pickle": (
        changed(adapters={"expert0": "a.bin", "expert1": "b.bin", "expert2": "c.bin"}),
        "is pickled, and pickled weights are not read",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_export_is_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    damage, words = DAMAGES[name]
    damage(shutil.copytree(scheduled("clock", steps=2), tmp_path / "copy"))
    with pytest.raises(UserError, match=words) as refused:
        find(tmp_path / "copy")
    assert not any(raw in str(refused.value) for raw in ("Error", "shape", "\n"))


@pytest.mark.parametrize("kept", ["export.json", "expert0.safetensors"])
def test_an_export_is_known_by_its_facts_or_its_experts(kept: str, tmp_path: Path) -> None:
    shutil.copytree(scheduled("clock", steps=2), tmp_path / "copy")
    for name in {"export.json", "expert0.safetensors"} - {kept}:
        (tmp_path / "copy" / name).unlink()
    without("gates.json")(tmp_path / "copy")
    with pytest.raises(UserError, match=r"has no gates\.json"):
        find(tmp_path / "copy")


def test_another_schedule_or_another_expert_gives_another_digest(tmp_path: Path) -> None:
    export = scheduled("clock", steps=2)
    for name in ("schedule", "expert"):
        shutil.copytree(export, tmp_path / name)
    changed(log_snr=[-1.0, 1.0])(tmp_path / "schedule")
    shutil.copy(export / "expert1.safetensors", tmp_path / "expert" / "expert0.safetensors")
    assert len({find(path).digest for path in (export, tmp_path / "schedule", tmp_path / "expert")}) == 3


def test_an_export_of_another_family_is_refused_in_a_sentence() -> None:
    with pytest.raises(UserError, match="StableDiffusion3Pipeline has no layer that its experts adapt"):
        check_fit(load_pipeline(model("sd3")), find(scheduled("clock", steps=2)))
