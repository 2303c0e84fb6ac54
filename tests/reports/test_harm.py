"""Where an adapter is worse than no adapter, and which experts do nothing, though the mean error fell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import reports
from adapt.fera.health import DEAD, usage
from reports.compare import UNUSED, gates_of
from reports.page import sections_of
from reports.words import signed
from tests.reports.fixtures import write_run
from tests.reports.metrics.fixtures import evaluation, write_evaluation

NAMES = "fera-0", "lora-1"
WORSE = "At some noise levels the error is higher than that of the"


def test_the_level_at_which_all_adapters_are_worse_than_the_base_is_told_after_the_gain(tmp_path: Path) -> None:
    data = evaluation(strength=(0, 1, 0.7), prompts=4, seeds=1, unrelated=0, heldout=24, train=0, attributes=False)
    data.validation_error[1:, 0] *= 1.6
    report = reports.build(write_evaluation(tmp_path / "e.zarr", data))
    kinds = [said.kind for said in report.said]
    assert kinds.index("harm") == kinds.index("base") + 1
    (claim,) = [said.claim for said in report.said if said.kind == "harm"]
    error = data.validation_error.mean(("heldout", "draw")).values
    told = [f"{name} at 12 ({signed(float(row[0] / error[0, 0]))})" for name, row in zip(NAMES, error[1:], strict=True)]
    assert claim == f"{WORSE} base model: {'; '.join(told)}"
    assert "+" in told[0]
    (gain,) = [said.claim for said in report.said if said.kind == "base"]
    assert gain.endswith(f"are better, but at some noise levels the error of {NAMES[0]} and {NAMES[1]} is higher")


def test_adapters_that_are_worse_nowhere_are_not_said_to_be(tmp_path: Path) -> None:
    data = evaluation(strength=(0, 1, 0.7), prompts=4, seeds=1, unrelated=0, heldout=24, train=0, attributes=False)
    report = reports.build(write_evaluation(tmp_path / "e.zarr", data))
    assert not any(WORSE in said or "but at some" in said for said in report.sentences)


def changed(run: Path, name: str, values: np.ndarray) -> None:
    store = xr.open_zarr(run / "metrics.zarr", chunks=None, consolidated=False)
    kept = xr.Dataset({name: (store[name].dims, values.astype(np.float32))})
    kept.to_zarr(run / "metrics.zarr", mode="a", consolidated=False)


def test_runs_that_made_a_level_worse_say_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "lora", samples=16)
    errors = xr.open_zarr(run / "metrics.zarr", consolidated=False).validation_error.values
    assert not any(WORSE in said for said in reports.build([run]).sentences)
    errors[-1, 0] = 1.5 * errors[0, 0]
    changed(run, "validation_error", errors)
    (claim,) = [said.claim for said in reports.build([run]).said if said.kind == "harm"]
    assert claim == f"{WORSE} untrained base model: LoRA at 12 (+50 %)"


@pytest.fixture
def unused(tmp_path: Path) -> Path:
    """A run of FeRA whose last expert has gates of .03 to .11 at all levels, of a mean of one."""
    run = write_run(tmp_path / "fera", "fera", samples=8)
    shape = xr.open_zarr(run / "metrics.zarr", consolidated=False).gates.shape
    gates = np.empty(shape)
    gates[..., 2] = np.linspace(0.03, 0.11, shape[1])[:, None]
    gates[..., 0], gates[..., 1] = 2.0 - gates[..., 2], 1.0
    changed(run, "gates", gates)
    return run


def test_an_expert_that_gates_leave_out_is_named_in_warnings_and_under_its_figure(unused: Path) -> None:
    report = reports.build([unused])
    assert (
        "Hardly used on held-out pictures at any noise level (gates below 20 % of an even share): expert 2 (of 0 to 2) "
        "of FeRA without prior, seed 0."
    ) in report.warnings
    (section,) = [one for one in sections_of(report) if one.id == "gates"]
    assert section.panels[0].note == "Too thin for a name: expert 2 (at most 3.7 %)."


def test_a_report_and_a_training_call_the_same_experts_unused(unused: Path) -> None:
    (gates,) = gates_of(reports.build([unused]).arms[0])
    assert UNUSED == DEAD
    stored = xr.open_zarr(unused / "metrics.zarr", consolidated=False).gates[-1].values
    assert gates.unused == usage(stored).dead == (2,)
    assert replace(gates, share=np.full((4, 3), 1 / 3)).unused == ()
