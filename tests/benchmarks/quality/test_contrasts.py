from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from benchmarks.quality import contrasts, numbers
from benchmarks.quality.design import Job
from reports.statistics import crossed
from tests.benchmarks.quality.synthetic import errors, experiment, write_final

CELL = ("mini", "style")
SCALES = {"lora": 1.0, "fera-prior": 0.9, "fera-random": 1.25}


@cache
def data() -> xr.Dataset:
    return numbers.collect(experiment(Path(mkdtemp()), SCALES))


@pytest.mark.parametrize(("arm", "scale"), [("fera-prior", 0.9), ("fera-random", 1.25)])
def test_the_ratio_of_a_cell_is_that_of_the_mean_errors(arm: str, scale: float) -> None:
    a, b = contrasts.tables(data(), CELL, arm, "lora")
    found = contrasts.in_cell(data(), CELL, arm, "lora")
    assert found is not None
    assert found.value == pytest.approx(a.mean() / b.mean(), rel=1e-12)
    assert found.low < scale < found.high
    assert (found.seeds, found.samples) == (3, 4)


def test_the_ratio_over_cells_is_the_geometric_mean() -> None:
    each = [contrasts.in_cell(data(), cell, "fera-prior", "lora") for cell in numbers.cells(data())]
    found = contrasts.over_cells(data(), "fera-prior", "lora")
    assert found is not None
    assert found.value == pytest.approx(stats.gmean([one.value for one in each if one]), rel=1e-9)
    assert found.low < 0.9 < found.high


def test_a_single_cell_pooled_is_the_cell() -> None:
    alone = contrasts.in_cell(data(), CELL, "fera-prior", "lora")
    found = contrasts.over_cells(data(), "fera-prior", "lora", [CELL])
    assert alone is not None
    assert found is not None
    for end in ("value", "low", "high", "p", "error", "freedom"):
        assert getattr(found, end) == pytest.approx(getattr(alone, end), rel=1e-9)


def test_variances_of_tasks_add_and_models_of_one_task_are_averaged_first() -> None:
    rng = np.random.default_rng(0)
    style, subject, other = (rng.normal(size=(5, 6)) for _ in range(3))
    alone = [crossed(part) for part in (style, subject)]
    error, freedom = contrasts.mean_of_cells({("mini", "style"): style, ("mini", "subject"): subject})
    variances = np.array([e**2 / 4 for e, _ in alone])
    assert error == pytest.approx(np.sqrt(variances.sum()))
    assert freedom == pytest.approx(
        variances.sum() ** 2 / sum(v**2 / f for v, (_, f) in zip(variances, alone, strict=True))
    )
    both = contrasts.mean_of_cells({("mini", "style"): style, ("mini-flow", "style"): other})
    assert both == pytest.approx(crossed((style + other) / 2))


def test_models_that_err_alike_on_the_same_pictures_do_not_count_twice() -> None:
    part = np.random.default_rng(1).normal(size=(5, 6))
    twice = contrasts.mean_of_cells({("mini", "style"): part, ("mini-flow", "style"): part})
    assert twice == pytest.approx(crossed(part))


def test_pooled_intervals_cover_the_truth_as_often_as_they_promise() -> None:
    rng, truth, hits, trials = np.random.default_rng(2), 1.02, 0, 400
    for _ in range(trials):
        found = {}
        for task in ("style", "subject"):
            pictures = rng.normal(size=12)  # shared by the models: how much harder a picture is for one of the arms
            for model in ("mini", "mini-flow"):
                base = np.exp(0.2 * rng.normal(size=(1, 12)) + 0.05 * rng.normal(size=(5, 12)))
                apart = 0.01 * rng.normal(size=(5, 1)) + 0.02 * pictures + 0.02 * rng.normal(size=(5, 12))
                found[model, task] = (base * (truth + apart), base)
        ratio = contrasts.pooled(found, "")
        hits += ratio.low <= truth <= ratio.high
    assert 0.91 <= hits / trials <= 0.985


def test_steps_are_where_a_straight_curve_crosses() -> None:
    noise = 1 + 1e-6 * np.random.default_rng(0).normal(size=(3, 1, 5))
    curve = np.array([2.0, 1.0, 0.5])[None, :, None] * noise
    target = np.full((3, 5), 0.8) * noise[:, 0]
    found = contrasts.crossing(np.array([0.0, 50.0, 100.0]), curve, target, 100)
    assert found.value == pytest.approx(0.7, abs=1e-3)  # 50 + 50 * (1 - 0.8) / (1 - 0.5)
    assert found.low == pytest.approx(found.high, abs=1e-3)


def test_a_curve_that_stays_above_never_gets_there() -> None:
    curve = np.array([2.0, 1.5, 1.2])[None, :, None] * np.ones((3, 1, 5))
    found = contrasts.crossing(np.array([0.0, 50.0, 100.0]), curve, np.ones((3, 5)), 100)
    assert (found.value, found.low, found.high) == (np.inf, np.inf, np.inf)


def test_an_arm_that_may_be_as_good_has_an_open_end() -> None:
    rng = np.random.default_rng(3)
    last = 1 + 0.1 * rng.normal(size=(5, 8))
    curve = np.stack([last + 1, last + 0.2, last], axis=1)
    found = contrasts.crossing(np.array([0.0, 50.0, 100.0]), curve, 1 + 0.1 * rng.normal(size=(5, 8)), 100)
    assert found.low < 1
    assert found.high == np.inf


def test_curves_are_compared_at_equal_steps_though_one_arm_was_measured_at_others(tmp_path: Path) -> None:
    for arm, scale, steps in (("lora", 1.0, (0, 60, 120)), ("lora-short", 0.9, (0, 30, 84))):
        for seed in range(2):
            write_final(tmp_path, Job(*CELL, arm, 0.008, seed, "final"), errors(seed, scale), steps=steps)
    steps, found = contrasts.along_training(numbers.collect(tmp_path), CELL, "lora-short", "lora")
    assert steps.tolist() == [0, 30, 84]
    lora = [3.0, 2.5, 2 - 24 / 60]  # in straight lines from 3 to 2 to 1 times the final error
    np.testing.assert_allclose([one.value for one in found], [0.9 * 3 / 3, 0.9 * 2 / 2.5, 0.9 / lora[-1]], rtol=1e-5)


def test_the_error_of_a_budget_is_read_off_the_curve() -> None:
    a, b = contrasts.budget_tables(data(), CELL, "fera-prior", "lora", 0.75)
    final, _ = contrasts.tables(data(), CELL, "fera-prior", "lora")
    np.testing.assert_allclose(
        a, 1.5 * final, rtol=1e-5
    )  # the curve falls from 2 to 1 times the end in its second half
    cheap, _ = contrasts.budget_tables(data(), CELL, "fera-prior", "lora", 1.3)
    np.testing.assert_allclose(cheap, final, rtol=1e-5)
    np.testing.assert_allclose(b, contrasts.tables(data(), CELL, "fera-prior", "lora")[1], rtol=1e-5)


def test_arms_with_one_common_seed_are_not_compared(tmp_path: Path) -> None:
    few = numbers.collect(experiment(tmp_path, {"lora": 1.0, "fera-prior": 0.9}, 1, ("mini",)))
    assert contrasts.in_cell(few, CELL, "fera-prior", "lora") is None
    assert contrasts.over_cells(few, "fera-prior", "lora") is None


def test_steps_are_the_same_whether_or_not_an_arm_of_another_length_was_run(tmp_path: Path) -> None:
    for arm, scale, steps in (("lora", 1.0, (0, 60, 120)), ("fera-prior", 0.9, (0, 60, 120)),
                              ("lora-short", 1.0, (0, 60, 84))):  # fmt: skip
        for seed in range(2):
            write_final(tmp_path, Job(*CELL, arm, 0.008, seed, "final"), errors(seed, scale), steps=steps)
    found = contrasts.steps_to_reach(numbers.collect(tmp_path), CELL, "fera-prior", "lora")
    assert found.value == pytest.approx(0.5 + 0.5 * (1.8 - 1) / 0.9, abs=1e-4)
