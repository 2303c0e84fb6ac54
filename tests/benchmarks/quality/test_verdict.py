import re
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest

from benchmarks.quality import numbers, summary, verdict, words
from reports.statistics import Ratio
from tests.benchmarks.quality.synthetic import experiment


@cache
def said(scale: float, other: float = 1.0) -> str:
    """The verdict on an experiment in which FeRA's errors are `scale` times LoRA's and DoRA's `other` times."""
    found = numbers.collect(
        experiment(Path(mkdtemp()), {"lora": 1.0, "fera-prior": scale, "dora": other}, 2, ("mini",))
    )
    return verdict.verdict(summary.against_lora(found), summary.speeds(found, {}))


@pytest.mark.parametrize(
    ("scale", "first"),
    [
        (1.0, "**FeRA by band energies does not beat LoRA here**"),
        (1.1, "**FeRA by band energies is worse than LoRA here**"),
        (0.9, "**FeRA by band energies ends with an error 10 % below LoRA's**"),
    ],
)
def test_the_first_words_say_whether_fera_wins(scale: float, first: str) -> None:
    assert said(scale).startswith(first)


def test_other_arms_are_named_once_they_differ_after_correction() -> None:
    assert "higher are those of DoRA (1.3" in said(1.0, 1.3)
    assert "No other arm differs from LoRA after correction." in said(1.0)


def test_an_arm_of_loras_function_shows_what_chance_does(tmp_path: Path) -> None:
    found = numbers.collect(experiment(tmp_path, {"lora": 1.0, "fera-uniform": 1.2}, 2, ("mini",)))
    compared = summary.against_lora(found)
    ratios = [ratio for ratio in compared[0].each.values() if ratio is not None]
    text = verdict.chance_words(compared)
    assert f"from {min(r.value for r in ratios):.3f} to {max(r.value for r in ratios):.3f}, and 2 of 2" in text
    assert verdict.chance_words([]) == ""


def test_the_goal_is_said_to_be_missed_or_reached_with_the_number() -> None:
    missed = r"No arm reached the goal, .*: the least share, over all arms and cells, was 0\.\d\d \(0"
    assert re.search(missed, said(0.9))
    assert "The goal, LoRA's final error in 0.7 of its steps, was reached by FeRA, start from the prior" in said(0.6)
    assert "No arm reached LoRA's final error in any cell." in said(1.1, 1.3)


def test_without_runs_to_compare_there_is_no_verdict(tmp_path: Path) -> None:
    found = numbers.collect(experiment(tmp_path, {"lora": 1.0}, 2, ("mini",)))
    assert verdict.verdict(summary.against_lora(found), []).startswith("There is no verdict yet")


def test_no_difference_is_said_with_what_would_show() -> None:
    ratio = Ratio(0.99, 0.97, 1.01, 5, 32, "", p=0.3, p_corrected=0.6, error=0.01, freedom=20, family=1)
    text = words.finding(ratio, "the prior", "a random start")
    assert text.startswith("no difference found; with 80 % power, differences above 3.0 % would show")
    better = Ratio(0.9, 0.88, 0.92, 5, 32, "", p=1e-6, p_corrected=1e-5, error=0.01, freedom=20)
    assert words.finding(better, "the prior", "a random start") == "the prior has the lower error, by 10 %"
    worse = Ratio(1.25, 1.2, 1.3, 5, 32, "", p=1e-6, p_corrected=1e-5, error=0.01, freedom=20)
    alone = Ratio(1.009, 1.002, 1.015, 5, 32, "", p=0.018, p_corrected=0.054, error=0.003, freedom=20, family=4)
    assert words.finding(alone, "energies", "the clock").startswith(
        "not settled: alone it speaks for the clock, by 0.9 %, but not after correction; with 80 % power"
    )
    assert words.finding(worse, "the prior", "a random start") == "a random start has the lower error, by 20 %"


def test_steps_say_what_was_not_reached() -> None:
    from benchmarks.quality.contrasts import Steps

    assert words.steps(Steps(0.8, 0.7, 0.9, 5, 16)) == "0.80 (0.70 to 0.90)"
    assert words.steps(Steps(0.9, 0.7, np.inf, 5, 16)) == "0.90 (0.70 or more)"
    assert words.steps(Steps(np.inf, 0.9, np.inf, 5, 16)) == "not reached (0.90 at best)"
    assert words.steps(Steps(np.inf, np.inf, np.inf, 5, 16)) == "not reached"


def test_equal_rates_are_compared_over_the_cells_that_have_both() -> None:
    found = [
        summary.Swept(("mini", task), arm, errors)
        for task, arm, errors in (
            ("style", "lora", {1.0: 2.0, 2.0: 1.0}), ("style", "fera-prior", {1.0: 1.0, 2.0: np.inf}),
            ("subject", "lora", {1.0: 1.0}), ("subject", "fera-prior", {1.0: 0.5, 4.0: 1.0}),
        )
    ]  # fmt: skip
    assert "is 0.500 at 1 (2 cells), geometric" in verdict.rate_words(found)
    assert verdict.rate_words(found[:1]) == ""


def test_sweeps_that_end_at_their_best_rate_are_named() -> None:
    inside = summary.Swept(("mini", "style"), "lora", {1.0: 2.0, 2.0: 1.0, 4.0: 2.0})
    edge = summary.Swept(("mini", "style"), "ia3", {1.0: 2.0, 2.0: 1.0})
    assert verdict.sweep_words([inside]).startswith("In every cell the best rate of every arm lies inside")
    assert "`ia3` on mini, style (2)" in verdict.sweep_words([inside, edge])
