from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality import gating, numbers
from benchmarks.quality.design import Job
from tests.benchmarks.quality.synthetic import errors, write_final

CELL = ("mini", "style")


def test_equal_gates_use_every_expert_and_do_not_part() -> None:
    found = gating.use(np.ones((2, 5, 3)))
    assert (found.experts, found.parting) == (3, 0)
    assert found.effective == pytest.approx(3)
    assert found.least == pytest.approx(1 / 3)


def test_a_dead_expert_is_seen() -> None:
    found = gating.use(np.tile([1.5, 1.5, 0.0], (2, 5, 1)))
    assert found.effective == pytest.approx(2)
    assert found.least == 0


def test_a_sharp_split_by_noise_level_parts_completely_and_uses_all() -> None:
    found = gating.use(np.eye(3)[None])
    assert found.parting == 1
    assert found.effective == pytest.approx(3)


def test_arms_without_gates_have_no_row(tmp_path: Path) -> None:
    write_final(tmp_path, Job(*CELL, "lora", 0.008, 0, "final"), errors(0))
    write_final(tmp_path, Job(*CELL, "fera-experts2", 0.008, 0, "final"), errors(0), gates=2)
    data = numbers.collect(tmp_path)
    assert gating.of_arm(data, CELL, "lora", 1) is None
    kept = gating.of_arm(data, CELL, "fera-experts2", 1)
    assert kept is not None
    assert kept.experts == 2
