"""What a training step of each arm costs beside LoRA's: `python -m benchmarks.quality.cost --runs runs/quality`.

All arms of a model train in one process and take turns, a few steps each, who begins rotates; the ratio of an arm is
the median over rounds of its time over LoRA's in the same round.  Whole steps are timed, as `adapt train` takes them:
reading the batch, forward, backward, optimizer and what the method adds.  Needs an idle machine and under 4 minutes.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.parts.clock import by_turns, seconds
from benchmarks.quality import command
from benchmarks.quality.design import FULL, Job
from benchmarks.quality.extra import ARMS
from benchmarks.quality.run import OUT as RUNS
from benchmarks.quality.run import config_of, write_data, write_probes
from spectra.errors import UserError

RESULT = Path("benchmarks/results/quality_cost.json")
REFERENCE = "lora"
ROUNDS, STEPS, WARM = 10, 3, 2
"""Rounds, steps of each arm in a round, and steps before the first that are not timed."""


def trainers(runs: Path, model: str, arms: list[str], scratch: Path, stack: ExitStack) -> dict[str, Any]:
    """A trainer at step 0 for each arm, every one with its own copy of the model."""
    from adapt import processes
    from adapt.config import TrainConfig
    from adapt.task import prepare
    from adapt.trainer import Trainer

    made: dict[str, Any] = {}
    accelerator = None
    for arm in arms:
        job = Job(model, FULL.tasks[0], arm, ARMS[arm].rates[0], 0, "sweep")
        config = TrainConfig(**(config_of(job, FULL, runs) | {"out": str(scratch / model / arm)}))
        if accelerator is None:
            stack.enter_context(processes.threads(config.threads))
            accelerator = stack.enter_context(processes.accelerated(config))
        made[arm] = Trainer.of(prepare(config, accelerator.device), accelerator)
    return made


def take_turns(made: dict[str, Any], rounds: int = ROUNDS, steps: int = STEPS) -> dict[str, np.ndarray]:
    """Seconds of a step of each arm, by round; who goes first rotates."""
    for trainer in made.values():
        for _ in range(WARM):
            trainer.advance()

    def taken(name: str) -> float:
        return seconds(lambda: [made[name].advance() for _ in range(steps)]) / steps

    return by_turns(list(made), rounds, taken)


def ratios(times: dict[str, np.ndarray], reference: str = REFERENCE) -> dict[str, dict[str, Any]]:
    """Arm -> median and quartiles of its time over the reference's in the same round, and its median milliseconds."""
    found = {}
    for name, own in times.items():
        paired = own / times[reference]
        found[name] = {
            "ratio": float(np.median(paired)), "quartiles": [float(q) for q in np.quantile(paired, (0.25, 0.75))],
            "milliseconds": float(np.median(own) * 1e3), "rounds": len(own),
        }  # fmt: skip
    return found


def measure(runs: Path, models: list[str], arms: list[str], rounds: int = ROUNDS) -> dict[str, Any]:
    """Ratios of every arm, by model, and where they were measured."""
    write_data(runs, FULL)
    write_probes(runs, FULL)
    found: dict[str, Any] = {}
    for model in models:
        with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
            made = trainers(runs, model, arms, Path(scratch), stack)
            found[model] = ratios(take_turns(made, rounds))
    versions = {name: version(name) for name in ("torch", "peft", "diffusers")}
    return {
        "what": "median over rounds of seconds of a training step over LoRA's in the same round",
        "batch": FULL.batch, "threads": 1, "rounds": rounds, "steps_a_round": STEPS,
        "machine": platform.machine(), "system": platform.system(), "versions": versions, "models": found,
    }  # fmt: skip


def read(path: Path = RESULT) -> dict[str, dict[str, float]]:
    """Model -> arm -> ratio; empty where nothing was measured."""
    if not path.is_file():
        return {}
    found = json.loads(path.read_text())["models"]
    return {model: {arm: float(one["ratio"]) for arm, one in arms.items()} for model, arms in found.items()}


def work(given: argparse.Namespace) -> None:
    """Measure, write, print."""
    if REFERENCE not in given.arms:
        raise UserError(f"ratios are to {REFERENCE}; name it among --arms")
    if not 1 <= given.rounds <= (FULL.steps - WARM) // STEPS:
        raise UserError(f"--rounds is between 1 and {(FULL.steps - WARM) // STEPS}")
    found = measure(given.runs, given.models, given.arms, given.rounds)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    for model, arms in found["models"].items():
        for arm, one in arms.items():
            print(f"{model:10} {arm:18} {one['ratio']:.3f} of LoRA's step ({one['milliseconds']:.0f} ms)")


def main() -> int:
    """Entry point."""
    parser = command.parser(__doc__)
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of the experiment, for its data and priors")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--models", nargs="+", choices=FULL.models, default=list(FULL.models))
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(FULL.arms))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    return command.ended("quality.cost", lambda: work(given))


if __name__ == "__main__":
    sys.exit(main())
