"""The best arm beyond the plan is tested with runs of its own, and the page says what that found."""

from __future__ import annotations

from pathlib import Path

from benchmarks.quality import confirmed, numbers
from benchmarks.quality.design import CONFIRM, Job
from tests.benchmarks.quality.synthetic import errors, write_final


def confirm(out: Path, best: float, rival: float = 0.95) -> str:
    """The sentence on runs whose errors are these shares of LoRA's."""
    for model in CONFIRM.models:
        for arm, scale in (("lora", 1.0), ("loha", rival), ("fera-loha-clock", best)):
            for seed in CONFIRM.seeds:
                final = errors(seed, scale * (1 + 1e-3 * (seed % 3)))
                write_final(out, Job(model, "style", arm, 0.008, seed, "confirm"), final)
    confirmed.renew(out, out / "c.zarr")
    sentence, tables = confirmed.section(confirmed.read(out / "c.zarr"), {})
    assert "| `fera-loha-clock` / `lora` | **" in tables
    return sentence


def test_the_best_arm_is_said_to_beat_both_or_none(tmp_path: Path) -> None:
    assert "lower than LoRA's (ratio 0.500" in (won := confirm(tmp_path / "a", 0.5))
    assert "lower than LoHa's (ratio 0.526" in won
    assert "the goal of 0.7 of LoRA's steps is reached on mini" in won
    lost = confirm(tmp_path / "b", 0.99)
    assert "higher than LoHa's (ratio 1.042" in lost
    assert "though it is not lower on mini-flow, style (1.042 of LoHa's" in lost
    assert "though" not in won
    assert "is reached nowhere" in lost


def test_arms_and_pairs_are_those_that_are_trained() -> None:
    assert {arm for pair in confirmed.PAIRS for arm in pair} == set(CONFIRM.arms)


def test_there_is_no_section_without_runs(tmp_path: Path) -> None:
    confirmed.renew(tmp_path, tmp_path / "c.zarr")
    assert confirmed.section(confirmed.read(tmp_path / "c.zarr"), {}) == ("", "")


def test_runs_of_the_confirmation_are_no_final_runs(tmp_path: Path) -> None:
    write_final(tmp_path, Job("mini", "style", "lora", 0.008, 5, "confirm"), errors(5))
    assert numbers.finished(tmp_path, "final") is None
