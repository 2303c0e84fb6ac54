"""What could not have shown is said so, and no sentence makes more of silence or of one training than there is."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import reports
from reports import Ratio, Report
from reports.evaluation_sections import measure_section
from reports.evaluation_words import sides
from reports.evidence import UNCORRECTED, family, others, quiet, uncorrected, would_show
from reports.metrics.results import Comparison
from reports.metrics.wording import said
from reports.training_words import would_show as runs_would_show
from spectra.analysis.statistics import Estimate
from tests.reports.fixtures import write_run
from tests.reports.metrics.fixtures import evaluation, write_evaluation

NONE = "no difference of any size that matters could have shown: too few"


def silent(resolution: float, kind: str = "ratio", name: str = "x") -> Comparison:
    found = Estimate(1.0, 0.5, 2.0, 4, "t", "x")
    plain = (name, "b", "a", found, kind, 0.8, 1.0, False, resolution, "", "lower", None, name, "prompts")
    return Comparison(*plain)  # type: ignore[arg-type]


def test_a_ratio_above_ten_times_is_nothing_that_a_study_could_have_shown() -> None:
    assert would_show(silent(1.3e6)) == f"{NONE} prompts"
    assert would_show(silent(8.9)) == "with n = 4 prompts you could see differences above 890 %"
    assert would_show(silent(9.0)) == f"{NONE} prompts"
    assert would_show(silent(math.inf, "difference")) == f"{NONE} prompts"
    assert would_show(silent(40.0, "difference")).endswith("above 40")
    assert said(silent(1.3e6), "prompts", 3, "holm").words.endswith(f"{NONE} prompts")


def test_single_attributes_and_bands_among_the_comparisons_are_said() -> None:
    named = [
        silent(0.1, name=name) for name in ("validation_error", "attribute_right", "attribute_shape", "band_ratio_0")
    ]
    assert family(named[:2]) == "p by Holm’s correction over 2 comparisons"
    assert family(named[:3]).endswith("over 3 comparisons, single attributes included")
    assert family(named).endswith("over 4 comparisons, single attributes and bands included")


def test_an_interval_that_excludes_no_difference_without_a_corrected_p_is_not_corrected(few: Report) -> None:
    inside = silent(0.1, name="validation_error")
    outside = replace(inside, difference=Estimate(0.8, 0.7, 0.9, 4, "t", "x"), p_corrected=0.07)
    assert uncorrected([inside]) == uncorrected([replace(outside, holds=True)]) == []
    assert uncorrected([inside, outside]) == [UNCORRECTED]
    (found,) = few.evaluations
    for compared, times in ((inside, 0), (outside, 1)):
        of = replace(found, among=(), to_base=(replace(compared, a=found.adapters[0], b="base"),))
        sentence, section = sides(of, of.to_base, "base"), measure_section(of, "")
        assert sentence is not None
        assert section is not None
        assert sentence.support.count(UNCORRECTED) == times
        assert " ".join(section.notes).count(UNCORRECTED[1:]) == times


def test_runs_that_could_show_nothing_say_so() -> None:
    vague = Ratio(1.1, 0.01, 90.0, 1, 2, "x", p=0.8, error=3.0, freedom=1.0)
    assert runs_would_show(vague) == f"; {NONE} repeats (1 seed × 2 samples)"
    assert "above" in runs_would_show(replace(vague, error=0.01, freedom=30.0))


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Two unrelated prompts whose drifts have little to do with each other, and four adapters of which one is best."""
    data = evaluation(strength=(0, 1, 0.9, 0.8), prompts=4, seeds=1, unrelated=2, heldout=30, train=0, attributes=False)
    drawn, place = data.feature_world.values, np.flatnonzero(data.part.values == "unrelated")
    drawn[1:, place] = np.random.default_rng(0).normal(size=drawn[1:, place].shape)
    return reports.build(write_evaluation(tmp_path_factory.mktemp("few") / "e.zarr", data))


def test_what_no_two_numbers_can_differ_by_is_no_resolution(few: Report) -> None:
    drift = [c for c in few.evaluations[0].among if c.name == "drift_world"]
    assert [c.resolution for c in drift] == [math.inf] * 3
    assert all(c.words.endswith(f"{NONE} prompts") for c in drift)


def test_the_best_is_not_said_to_harm_nothing_where_nothing_could_show(few: Report) -> None:
    main = few.said[0].claim
    assert main.startswith("fera-0 is the best of 3 adapters by validation error; no difference found in ")
    assert "of which hardly any could have shown" in main
    assert "worse than none" not in " ".join(few.sentences)


def test_measures_in_which_nothing_was_found_are_counted_with_those_that_could_not_show() -> None:
    main = replace(silent(0.1), name="error", holds=True)
    rest = [silent(0.5, name="y"), silent(50.0, name="z")]
    assert others([main, *rest], "error") == (
        "; no difference found in any of 2 other measures, in 1 of which none could have shown"
    )
    assert others([main, rest[0], replace(silent(0.1, name="z"), holds=True)], "error") == (
        "; no difference found in 1 of 2 other measures"
    )
    assert quiet([main, *rest]) == "no difference found in 2 of 3 measures (in 1 of these none could have shown)"


def test_what_only_a_huge_difference_could_have_shown_is_hardly_counted_as_quiet() -> None:
    main, fine = replace(silent(0.1), name="error", holds=True), silent(0.5, name="y")
    huge = replace(silent(190.0, "difference", "frechet"), half=100.0)
    assert (huge.blind, huge.coarse, fine.coarse) == (False, True, False)
    assert quiet([main, fine, huge]) == (
        "no difference found in 2 of 3 measures (in 1 of these hardly any could have shown)"
    )
    assert others([main, fine, huge, silent(50.0, name="z")], "error").endswith(
        "in any of 3 other measures, in 2 of which hardly any could have shown"
    )
    assert not replace(huge, half=200.0).coarse
    assert not replace(huge, holds=True).coarse


def test_a_drift_that_may_be_nothing_is_not_sure(few: Report) -> None:
    (drift,) = [one.claim for one in few.said if one.kind == "drift"]
    assert "how far adapters move away from the base model is not sure" in drift
    assert "e measured drift on 2 unrelated prompts: how far it goes is not sure." in few.warnings


def test_adapters_of_a_store_are_one_training_each(few: Report, tmp_path: Path) -> None:
    (said_so,) = [text for text in few.warnings if "is one training" in text]
    assert said_so.startswith("Each adapter of e is one training: what holds for these adapters says nothing of other")
    alone = evaluation(adapters=1, prompts=3, seeds=1, unrelated=0, heldout=6, train=0)
    report = reports.build(write_evaluation(tmp_path / "one.zarr", alone))
    assert not any("is one training" in text for text in report.warnings)


def test_one_run_helped_in_this_run_and_several_helped(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / f"{method}{seed}", method, seed=seed, effect=effect, samples=12)
        for method, effect in (("lora", 0.46), ("fera", 0.40)) for seed in range(2)
    ]  # fmt: skip
    assert reports.build(runs[::2]).sentences[0].startswith("FeRA without prior helped in this run: its final")
    assert reports.build(runs).sentences[0].startswith("FeRA without prior helped: its final")
