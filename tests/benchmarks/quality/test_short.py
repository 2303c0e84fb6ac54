from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import xarray as xr

from benchmarks.quality import drawn, numbers, short, summary
from benchmarks.quality.design import Job
from tests.benchmarks.quality.synthetic import errors, experiment, write_final

STEPS = "In how many of LoRA's steps is its final error reached (the goal: 0.7)?"


@cache
def data() -> xr.Dataset:
    return numbers.collect(experiment(Path(mkdtemp()), {"lora": 1.0, "fera-prior": 0.6, "fera-random": 1.0}))


def lines(found: xr.Dataset) -> dict[str, str]:
    text = short.in_short(found, summary.answers(found), summary.speeds(found, {}))
    return dict(line.removeprefix("- **").split("** ", 1) for line in text.splitlines())


def test_every_question_has_a_line_and_those_without_runs_say_so() -> None:
    found = lines(data())
    assert list(found)[: short.ASKED] == [question.words for question in summary.QUESTIONS[: short.ASKED]]
    assert len(found) == short.ASKED + 3
    assert found["Is a start from the prior better than a random one?"].startswith("The prior has the lower error")
    assert found["Does the consistency loss help?"] == "Not answered yet: the runs are missing."
    assert "the goal is met on mini-flow, style" in found[STEPS]


def test_without_the_main_arm_nothing_is_answered(tmp_path: Path) -> None:
    few = numbers.collect(experiment(tmp_path, {"lora": 1.0, "dora": 1.0}, 2, ("mini",)))
    assert set(lines(few).values()) == {"Not answered yet: the runs are missing."}


def test_spectra_are_compared_over_cells_and_the_bands_that_differ_are_named(tmp_path: Path) -> None:
    for model in ("mini", "mini-flow"):
        for arm, energy in (("lora", 2.0), ("fera-prior", 1.5)):
            for seed in range(3):
                noise = 1 + 1e-4 * np.random.default_rng([seed, len(arm)]).random()
                write_final(
                    tmp_path, Job(model, "style", arm, 0.008, seed, "final"), errors(seed), energy=energy * noise
                )
    found = numbers.collect(tmp_path)
    where = short.there(found)
    whole = drawn.closer_over(found, where, "fera-prior", "lora")
    assert len(where) == 2
    assert whole.value == pytest.approx(np.log(1.5 / 2), abs=1e-3)
    said = short.of_spectrum(found)
    assert said.startswith("closer, taken alone")
    assert "band 0 (-0.288" in said
    assert "band 1 (-0.288" in said


def test_right_attributes_are_compared_with_another_arm_and_with_the_base() -> None:
    where = [("mini", "subject"), ("mini-flow", "subject")]
    assert drawn.right_over(data(), where, "fera-prior", "lora").value == 0
    assert drawn.right_over(data(), where, "fera-prior", "base").value == pytest.approx(-0.5 / 4)
