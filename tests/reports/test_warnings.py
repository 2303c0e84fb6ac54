"""Warnings: what differs between runs, cubes and evaluations, what is pooled, and what no adapter is to blame for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

import reports
from reports.base import read_base
from reports.warnings import loss, losses, pooled, samplers
from spectra.analysis import discretisation
from spectra.cube import open_cube
from tests.reports.fixtures import write_cube, write_run
from tests.reports.metrics.fixtures import evaluation, write_evaluation

SCHEDULER = {
    "class": "DDIMScheduler", "prediction_type": "epsilon", "set_alpha_to_one": True, "clip_sample": False,
    "thresholding": False, "timestep_spacing": "trailing",
}  # fmt: skip
FACTS = {"scheduler": json.dumps(SCHEDULER)}


def built(*paths: Path, cube: Path | None = None) -> list[str]:
    return list(reports.build(list(paths), cube).warnings)


def test_a_cube_of_several_settings_is_not_pooled(tmp_path: Path) -> None:
    guidance = [1.0] * 4 + [7.5] * 8
    base = read_base(write_cube(tmp_path / "c.zarr", runs=12, guidance=guidance))
    assert base.runs == 8
    assert base.guidance == (7.5,)
    (said,) = pooled(base)
    assert "guidance_scale=7.5" in said
    assert "left out are guidance_scale=1" in said
    whole = open_cube(tmp_path / "c.zarr")
    np.testing.assert_allclose(base.coherence[:-1], whole.coherence[4:].mean("run").values[:-1], rtol=1e-5)


def test_a_cube_of_one_setting_is_whole(tmp_path: Path) -> None:
    base = read_base(write_cube(tmp_path / "c.zarr", runs=6))
    assert (base.runs, base.left_out) == (6, ())


def test_what_the_sampler_loses_is_said_to_be_nobodys_fault(tmp_path: Path) -> None:
    cube = write_cube(tmp_path / "c.zarr", runs=6, facts=FACTS)
    base = read_base(cube)
    expected = discretisation(open_cube(cube)).kept.values
    assert base.kept is not None
    np.testing.assert_allclose(base.kept, np.where(expected < 0.1, np.nan, expected))
    said = loss(base)
    assert "no adapter is to blame" in said
    for band in np.flatnonzero(np.abs(base.kept - 1) > 0.05):
        assert f"{100 * expected[band]:.0f} % in band {band}" in said
    assert loss(replace(base, kept=np.array([1.0, 1.01, 0.97, 1.0]))) == ""


def test_of_several_stores_each_sampler_that_loses_something_else_is_named(tmp_path: Path) -> None:
    data = evaluation(adapters=1, prompts=3, seeds=1, unrelated=0, heldout=4, train=0, attributes=False, networks=())
    stores = [write_evaluation(tmp_path / f"{name}.zarr", data) for name in ("ten", "twenty", "again")]
    for store, steps in zip(stores, (11, 21, 21), strict=True):
        write_cube(store / "probe", runs=4, steps=steps, facts=FACTS)
    alone, ten, twenty = (loss(read_base(store / "probe")) for store in (stores[0], *stores[:2]))
    assert [said for said in built(stores[0]) if "to blame" in said] == [alone]
    assert [said for said in built(*stores) if "to blame" in said] == [f"again and twenty: {twenty}", f"ten: {ten}"]


def test_a_store_whose_sampler_loses_nothing_is_not_named(tmp_path: Path) -> None:
    base = read_base(write_cube(tmp_path / "c.zarr", runs=6, facts=FACTS))
    still = replace(base, kept=np.ones(4))
    assert losses({"a": base, "b": still}) == [f"a: {loss(base)}"]
    assert losses({"b": still}) == losses({}) == []


def test_energy_that_no_gaussian_sample_can_have_says_nothing_of_the_sampler(tmp_path: Path) -> None:
    path = write_cube(tmp_path / "c.zarr", runs=6, steps=8, facts=FACTS)
    for name in ("spectrum", "energy"):
        array = zarr.open_group(path, mode="r+")[name]
        array[...] = array[...] * 1e6  # type: ignore[index, operator]
    base = read_base(path)
    assert base.kept is not None
    assert np.isnan(base.kept).all()
    assert loss(base) == ""


def test_a_cube_that_does_not_say_its_scheduler_has_no_such_number(tmp_path: Path) -> None:
    base = read_base(write_cube(tmp_path / "c.zarr", runs=4))
    assert base.kept is None
    assert "scheduler" in base.kept_why


def test_different_steps_and_schedulers_are_warned_of(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", samples=4, config={"sample_steps": 20})
    cube = write_cube(tmp_path / "c.zarr", runs=4, facts=FACTS)
    said = built(run, cube)
    assert any("Numbers of sampling steps differ" in text and "c.zarr 30" in text for text in said)
    same = write_run(tmp_path / "b", samples=4, config={"sample_steps": 30})
    assert not any("sampling steps differ" in text for text in built(same, cube))


def test_arms_whose_pictures_were_made_in_other_ways_are_warned_of(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / m, m, samples=4, config={"sample_steps": s, "guidance": g})
        for m, s, g in (("lora", 20, 1.0), ("fera", 30, 3.0))
    ]
    said = " ".join(built(*runs))
    assert "different sampling steps: LoRA 20; FeRA without prior 30" in said
    assert "different guidance" in said


def test_nothing_differs_between_nothing() -> None:
    assert samplers([], None, []) == []


def test_one_held_out_sample_has_no_interval_of_width_zero(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / m, m, samples=1, effect=e) for m, e in (("lora", 0.5), ("fera", 0.4))]
    report = reports.build(runs)
    pair = report.pairs[0]
    for ratio in (pair.error, pair.steps, *pair.levels, *pair.energy):
        assert not ratio.bounded
        assert not ratio.holds
    assert any("one held-out sample" in said for said in report.warnings)
    assert "one value without an interval" in report.sentences[0]


@pytest.mark.parametrize("samples", [2, 4])
def test_with_few_samples_of_one_seed_steps_have_no_interval(tmp_path: Path, samples: int) -> None:
    runs = [write_run(tmp_path / m, m, samples=samples, effect=e) for m, e in (("lora", 0.5), ("fera", 0.4))]
    report = reports.build(runs)
    assert np.isfinite(report.pairs[0].steps.value)
    assert not report.pairs[0].steps.bounded
    assert any("too few validation samples" in said for said in report.sentences)
    assert any(f"Few held-out samples: {samples}" in said for said in report.warnings)


def test_a_cube_that_is_not_shown_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", samples=4)
    shown, other = (write_cube(tmp_path / f"{n}.zarr", runs=4, facts=f) for n, f in (("c", {}), ("d", FACTS)))
    said = " ".join(built(run, other, cube=shown))
    assert "The cube d.zarr is not shown" in said
    assert "scheduler differ" in said


def test_one_learning_rate_per_method_is_said_to_be_no_tuned_comparison(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / m, m, samples=4) for m in ("lora", "fera")]
    assert any("one learning rate" in text for text in built(*runs))
    more = write_run(tmp_path / "more", samples=4, config={"lr": 0.1}, effect=0.7)
    assert not any("one learning rate" in text for text in built(*runs, more))
