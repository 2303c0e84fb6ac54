"""What experts do when they are switched off, in words and tables, from what runs keep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import reports
from reports.figures import PAPER
from reports.panels import experts
from reports.switching import about_experts, apart, effects_of, expert_table, shares
from reports.training_sections import gates_section
from tests.reports.fixtures import add_experts, add_steps, write_run


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> reports.Report:
    root = tmp_path_factory.mktemp("experts")
    run = add_steps(add_experts(write_run(root / "fera", "fera", True, samples=6)))
    return reports.build([run, write_run(root / "lora", samples=6)])


def test_shares_are_sums_of_effects_over_levels(report: reports.Report) -> None:
    fera = next(arm for arm in report.arms if arm.method == "fera")
    (one,) = effects_of(fera)
    stored = fera.runs[0].metrics.expert_effect.mean("sample").sum("level").transpose("expert", "band").values
    np.testing.assert_allclose(shares(one), stored / stored.sum(axis=1, keepdims=True), rtol=1e-5)
    distances = [np.abs(shares(one)[i] - shares(one)[j]).sum() / 2 for i, j in ((0, 1), (0, 2), (1, 2))]
    assert apart(one) == pytest.approx(np.mean(distances))
    assert apart(one) > 0.9


def test_one_sentence_says_of_all_arms_how_far_apart_their_experts_are(tmp_path: Path) -> None:
    made = [
        add_experts(write_run(tmp_path / f"{prior}{seed}", "fera", prior, seed, samples=6), seed=seed)
        for prior in (False, True)
        for seed in range(2 + prior)
    ]
    arms = reports.build(made).arms
    found = [one for arm in arms for one in effects_of(arm)]
    said = about_experts(found)
    assert len(found) == 5
    for label, ones in (("FeRA without prior", found[:2]), ("FeRA with prior", found[2:])):
        ends = [f"{end(apart(one) for one in ones):.2f}" for end in (min, max)]
        assert f"{label} {' to '.join(dict.fromkeys(ends))}" in said.claim
    section = gates_section(arms)
    assert section is not None
    assert section.said == (said,)


def test_the_table_says_which_expert_changes_which_band(report: reports.Report) -> None:
    (one,) = effects_of(next(arm for arm in report.arms if arm.method == "fera"))
    rows = expert_table([one]).rows
    assert [row[0] for row in rows] == [f"FeRA with prior, seed 0, expert {e}" for e in range(3)]
    assert [row[1 + e] for e, row in enumerate(rows)] == ["94 %"] * 3


def test_cells_count_only_after_correction(report: reports.Report) -> None:
    (one,) = effects_of(next(arm for arm in report.arms if arm.method == "fera"))
    assert one.p is not None
    assert one.p.shape == (8, 3, 4)
    row = expert_table([one]).rows[0]
    assert row[-1] == "16 / 16 of 32"  # helps at the four noisiest of eight levels in all four bands, harms below


def test_marks_are_those_that_the_table_counts(tmp_path: Path, drawn: list[Figure]) -> None:
    run = add_experts(write_run(tmp_path / "fera", "fera", True, samples=6))
    with xr.open_zarr(run / "metrics.zarr", chunks=None, consolidated=False) as store:
        error = store.expert_error.load()
    noise = np.random.default_rng(0).normal(size=error.shape) * float(np.abs(error).max()) / 20
    xr.Dataset({"expert_error": error + noise.astype(np.float32)}).to_zarr(
        run / "metrics.zarr", mode="a", consolidated=False
    )
    section = gates_section(reports.build([run]).arms)
    assert section is not None
    counted = [row[-1] for row in section.tables[-1].rows]
    marked = [f"{filled} / {hollow} of {filled + hollow + dots}" for filled, hollow, dots in map(faces, drawn[-1].axes)]
    assert marked == counted
    assert all(min(faces(axes)) > 0 for axes in drawn[-1].axes)
    assert "a small dot is where neither can be said" in " ".join(section.notes)


def faces(axes: Axes) -> tuple[int, int, int]:
    """How many points are filled, hollow, and small dots."""
    found = [line for line in axes.lines if line.get_marker() not in ("None", "", None)]
    dots = sum(line.get_marker() == experts.DOT for line in found)
    hollow = sum(line.get_markerfacecolor() == PAPER for line in found)
    return len(found) - dots - hollow, hollow, dots


def test_the_page_shows_experts_and_the_steps_of_x0(report: reports.Report) -> None:
    page = report.to_html()
    assert 'id="gates"' in page
    assert "each expert switched off" in page
    assert 'id="steps"' in page
    found = report.to_dict()["arms"][1]["experts"][0]
    assert np.shape(found["effect"]) == (8, 3, 4)


def test_runs_without_it_have_neither(tmp_path: Path) -> None:
    page = reports.build([write_run(tmp_path / "fera", "fera", samples=4)]).to_html()
    assert "switched off" not in page
    assert 'id="steps"' not in page
