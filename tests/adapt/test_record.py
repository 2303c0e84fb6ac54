"""What a run says of itself when it ends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adapt.history import History
from adapt.loop import RunResult
from adapt.record import unused_experts
from adapt.validate import Validation
from cli.training import _report_training

GATES = (2.2, 0.77, 0.03), (1.9, 1.0, 0.1)
"""Mean gates of three experts, at two noise levels; the last is hardly used."""


def ended(*gates: tuple[float, ...]) -> History:
    history = History.empty(3, torch.device("cpu"))
    error = torch.ones(len(gates), 4, 2)
    history.validations[0] = Validation(error, torch.ones(len(gates), 4, 3), error)
    history.validations[3] = Validation(error, torch.tensor(gates)[:, None].expand(-1, 4, -1), error)
    return history


def test_an_expert_that_ends_unused_is_named() -> None:
    said = unused_experts(ended(*GATES))
    assert said.startswith("expert 2 (of 0 to 2) is hardly used at any noise level (below 20% of an even share)")
    assert unused_experts(ended(GATES[0], (1.0, 1.0, 1.0))) == ""
    assert unused_experts(ended((float("nan"),) * 3)) == ""


def test_methods_without_experts_have_none_that_are_unused() -> None:
    history = History.empty(3, torch.device("cpu"))
    assert unused_experts(history) == ""
    history.validations[0] = Validation(torch.ones(2, 4, 2), None, torch.ones(2, 4, 2, 3))
    assert unused_experts(history) == ""


def test_the_closing_lines_of_a_training_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    record = {"trainable_parameters": 10, "seconds_train": 1.0, "seconds_total": 2.0}
    result = RunResult(Path("run"), record, 2.0, 1.0, unused_experts(ended(*GATES)))
    _report_training(result, as_json=False)
    assert "Experts: expert 2 (of 0 to 2) is hardly used" in capsys.readouterr().out
    _report_training(replace(result, unused_experts=""), as_json=False)
    assert "Experts" not in capsys.readouterr().out
