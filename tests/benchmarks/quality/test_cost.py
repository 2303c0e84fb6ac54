import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality import cost


class Slow:
    """A trainer whose steps take a time of their own on a clock that only steps move."""

    now = 0.0

    def __init__(self, name: str, seconds: float, order: list[str]) -> None:
        self.name, self.seconds, self.order = name, seconds, order

    def advance(self) -> None:
        Slow.now += self.seconds
        self.order.append(self.name)


def test_arms_take_turns_and_every_step_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr("benchmarks.parts.clock.time.perf_counter", lambda: Slow.now)
    made = {"lora": Slow("lora", 1.0, order), "fera": Slow("fera", 1.5, order), "dora": Slow("dora", 2.0, order)}
    times = cost.take_turns(made, rounds=3, steps=2)
    assert {name: found.tolist() for name, found in times.items()} == {
        "lora": [1.0] * 3, "fera": [1.5] * 3, "dora": [2.0] * 3
    }  # fmt: skip
    timed = order[cost.WARM * 3 :]
    assert timed[::6] == ["lora", "fera", "dora"]  # another one begins each round
    assert sorted(timed) == sorted(["lora", "fera", "dora"] * 6)


def test_a_ratio_is_the_median_of_paired_ones_so_that_a_slow_round_does_not_count() -> None:
    times = {"lora": np.array([1.0, 10.0, 1.0]), "fera": np.array([1.2, 12.0, 3.0])}
    found = cost.ratios(times)
    assert found["fera"]["ratio"] == pytest.approx(1.2)
    assert found["lora"]["ratio"] == 1


def test_measured_ratios_are_read_back_and_none_are_invented(tmp_path: Path) -> None:
    assert cost.read(tmp_path / "none.json") == {}
    (tmp_path / "cost.json").write_text(json.dumps({"models": {"mini": {"dora": {"ratio": 1.5}}}}))
    assert cost.read(tmp_path / "cost.json") == {"mini": {"dora": 1.5}}


def test_a_reference_that_is_not_timed_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["cost", "--arms", "dora"])
    assert cost.main() == 2
    assert "ratios are to lora" in capsys.readouterr().err
