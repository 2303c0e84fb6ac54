"""What is trained: arms, tasks, models, learning rates and seeds, as data.

A cell is one model on one task.  In each cell every arm first runs at several learning rates with a seed and held-out
pictures of its own (the sweep); its best rate is then trained with the final seeds and measured on other held-out
pictures.  So no number of the result was used to choose what it judges.  What was found beyond the plan is trained once
more with new seeds and measured on pictures that were not looked at before (the confirmation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

LOW_RANK = (4e-3, 8e-3, 1.6e-2)
"""Where the error of LoRA-like arms is lowest at these lengths; the sweep goes on beyond an end that is best."""


@dataclass(frozen=True)
class Arm:
    """One way to train, and the learning rates that its sweep begins with."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    rates: tuple[float, ...] = LOW_RANK
    prior: bool = False
    """Starts from what the base model does on the task's captions."""


def _fera(name: str, prior: bool = True, rates: tuple[float, ...] = LOW_RANK, **settings: Any) -> Arm:
    return Arm(name, {"method": "fera", "rank": 12, **settings}, rates, prior)


ARMS = {
    arm.name: arm
    for arm in (
        Arm("lora", {"method": "lora", "rank": 12}),
        _fera("fera-prior"),
        _fera("fera-random", prior=False),
        _fera("fera-clock", prior=False, router="clock"),
        _fera("fera-uniform", prior=False, router="uniform"),
        _fera("fera-fecl", fecl_weight=0.1),
        _fera("fera-published", prior=False, rates=(1.6e-2, 3.2e-2, 6.4e-2), fera_mode="published", fecl_weight=0.1,
              fecl_form="published"),
        Arm("dora", {"method": "dora", "rank": 12}),
        Arm("adalora", {"method": "adalora", "rank": 8}, (1.6e-2, 3.2e-2, 6.4e-2)),  # begins with 1.5 x the rank
        Arm("loha", {"method": "loha", "rank": 6}, (1.6e-2, 3.2e-2, 6.4e-2)),  # has two pairs of factors
        Arm("ia3", {"method": "ia3"}, (5e-2, 1e-1, 2e-1)),
        _fera("fera-experts2", experts=2),
        _fera("fera-experts4", experts=4),
        _fera("fera-bands2", bands=2),
        _fera("fera-bands3", bands=3),
    )
}  # fmt: skip
"""The arms in the order in which they are trained.  LoRA and FeRA have equal trainable parameters within 1 %."""


HELD_OUT = {"sweep": "tune", "final": "heldout", "confirm": "fresh"}
"""Stage of the experiment -> folder of the held-out pictures that it is measured on; no two share a picture."""


@dataclass(frozen=True)
class Design:
    """One experiment."""

    models: tuple[str, ...] = ("mini-flow", "mini")
    tasks: tuple[str, ...] = ("style", "subject")
    arms: tuple[str, ...] = tuple(ARMS)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    sweep_seeds: tuple[int, ...] = (100,)
    steps: int = 120
    batch: int = 8
    samples: int = 16
    """Held-out pictures of a measurement, at 8 noise levels with one noise each."""
    pictures: int = 12
    """Held-out captions that each final run draws."""
    probed: int = 12
    """Captions of the task that the base model is probed with."""
    stage: str = "final"
    """What the runs at the best rates are: `final` or `confirm`."""

    def settings(self) -> dict[str, Any]:
        """What all runs have in common."""
        return {
            "steps": self.steps, "batch": self.batch, "threads": 1, "eval_every": max(1, self.steps // 6),
            "eval_samples": self.samples, "eval_draws": 1, "eval_levels": 8, "checkpoint_every": self.steps,
        }  # fmt: skip


FULL = Design()
QUICK = replace(
    FULL, models=("mini-flow",), tasks=("style",), arms=("lora", "fera-prior"), seeds=(0, 1), steps=6, batch=4,
    samples=4, pictures=2, probed=2,
)  # fmt: skip
"""Minutes: proves that the road works, says nothing of the methods."""
CONFIRM = replace(FULL, arms=("lora", "loha", "fera-loha-clock"), seeds=(5, 6, 7, 8, 9), stage="confirm")
"""The best arm beyond the plan and what it has to beat, at the rates that their sweeps chose."""


@dataclass(frozen=True)
class Job:
    """One training run of the experiment."""

    model: str
    task: str
    arm: str
    rate: float
    seed: int
    stage: str
    """A name of `HELD_OUT`."""

    @property
    def folder(self) -> str:
        """Where it lies in the experiment's folder."""
        return f"{self.stage}/{self.model}/{self.task}/{self.arm}/{self.rate:g}/seed{self.seed}"


def sweep(design: Design, model: str, task: str, arm: str, rates: Sequence[float]) -> list[Job]:
    """The runs that look for the best rate of one arm in one cell."""
    return [Job(model, task, arm, rate, seed, "sweep") for rate in rates for seed in design.sweep_seeds]


def finals(design: Design, model: str, task: str, arm: str, rate: float) -> list[Job]:
    """The runs that count."""
    return [Job(model, task, arm, rate, seed, design.stage) for seed in design.seeds]


def next_rates(errors: dict[float, float], widest: int = 2) -> list[float]:
    """Rates to try besides those of `errors` (rate -> error): beyond the end that is best, by factors of two."""
    tried = sorted(errors)
    best = min(errors, key=lambda rate: errors[rate])
    if len(tried) >= 3 + widest or best not in (tried[0], tried[-1]):
        return []
    return [best / 2 if best == tried[0] else best * 2]
