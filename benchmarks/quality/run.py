"""Run the experiment: `python -m benchmarks.quality.run --out runs/quality --workers 2`, or `--quick` for minutes.

Every finished run is kept, so that the same command goes on after an interruption; several processes, also on several
machines that share the folder, share the work: each run is claimed by a lock that ends with its owner.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from benchmarks.quality import command
from benchmarks.quality.design import CONFIRM, FULL, HELD_OUT, QUICK, Design, Job, finals, next_rates, sweep
from benchmarks.quality.extra import ARMS
from spectra.errors import UserError

OUT = Path("runs/quality")
FRESH_SEED = 8
"""Of the pictures of the confirmation; the tasks' own is 7."""
FAILED = "failed.json"
"""Beside a run that ended with an error, such as a learning rate at which it diverged: its sentence."""


def error_of(folder: Path) -> float | None:
    """Final validation error of a finished run; infinite where it failed, None where it was not run yet."""
    if (folder / FAILED).is_file():
        return float("inf")
    if not (folder / "run.json").is_file():
        return None
    return float(json.loads((folder / "run.json").read_text())["validation"]["after"])


def sweep_errors(out: Path, design: Design, model: str, task: str, arm: str) -> dict[float, float] | list[Job]:
    """Rate -> mean error over the sweep's seeds when the sweep is complete; else the runs that are missing."""
    rates = list(ARMS[arm].rates)
    while True:
        found = {
            rate: [error_of(out / job.folder) for job in sweep(design, model, task, arm, [rate])] for rate in rates
        }
        missing = [job for job in sweep(design, model, task, arm, rates) if error_of(out / job.folder) is None]
        if missing:
            return missing
        means = {rate: sum(one for one in errors if one is not None) / len(errors) for rate, errors in found.items()}
        more = next_rates(means)
        if not more:
            return means
        rates += more


def best_rate(errors: dict[float, float]) -> float:
    """The rate of the lowest error."""
    return min(errors, key=lambda rate: errors[rate])


def open_jobs(out: Path, design: Design) -> Iterator[Job]:
    """Runs that can be started now, the arms that matter most first."""
    for arm in design.arms:
        for model in design.models:
            for task in design.tasks:
                found = sweep_errors(out, design, model, task, arm)
                jobs = found if isinstance(found, list) else finals(design, model, task, arm, best_rate(found))
                yield from (job for job in jobs if error_of(out / job.folder) is None)


def config_of(job: Job, design: Design, out: Path) -> dict[str, Any]:
    """The settings of one run."""
    arm, data = ARMS[job.arm], out / "data" / job.task
    settings = design.settings() | arm.settings | {
        "model": job.model, "data": str(data / "train"), "heldout": str(data / HELD_OUT[job.stage]),
        "out": str(out / job.folder), "lr": job.rate, "seed": job.seed, "overwrite": True,
        "sample_prompts": 1 if job.stage == "sweep" else design.pictures,
    }  # fmt: skip
    return settings | ({"prior": str(out / "probes" / f"{job.model}-{job.task}.zarr")} if arm.prior else {})


def train_one(job: Job, design: Design, out: Path) -> None:
    """Train, or leave word of why it cannot be."""
    import adapt

    folder = out / job.folder
    try:
        adapt.train(config_of(job, design, out))
    except UserError as error:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / FAILED).write_text(json.dumps({"error": str(error)}))


def work(out: Path, design: Design) -> None:
    """Claim one run after the other until none is left that nobody works on."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    while job := claim(out, design):
        found, lock = job
        with lock:
            if error_of(out / found.folder) is None:
                print(f"{found.folder}", flush=True)
                train_one(found, design, out)
                print(f"{found.folder} {error_of(out / found.folder):.5f}", flush=True)
        lock.release(force=True)


def claim(out: Path, design: Design) -> tuple[Job, FileLock] | None:
    """The first open run that no other process holds, and its lock."""
    for job in open_jobs(out, design):
        place = out / "locks" / (job.folder.replace("/", "_") + ".lock")
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place)
        try:
            lock.acquire(blocking=False)
            return job, lock
        except Timeout:
            continue
    return None


def write_data(out: Path, design: Design) -> None:
    """The pictures of every task."""
    for task in design.tasks:
        write_split(task, out / "data" / task)
        write_fresh(task, out / "data" / task)


def write_split(task: str, folder: Path) -> None:
    """The task's own pictures; of those held out even ones count, odd ones are for the sweep."""
    from spectra.zoo.tasks import write_task

    if (folder / "tune").is_dir():
        return
    scratch = folder.with_name(f".{task}")
    shutil.rmtree(scratch, ignore_errors=True)
    write_task(task, scratch)
    (scratch / "tune").mkdir()
    for file in sorted((scratch / "heldout").iterdir()):
        if int(file.stem) % 2:
            file.rename(scratch / "tune" / file.name)
    scratch.rename(folder)


def write_fresh(task: str, folder: Path) -> None:
    """Held-out pictures of a seed of their own, for the confirmation."""
    from spectra.zoo.tasks import write_task

    if (folder / "fresh").is_dir():
        return
    scratch = folder / ".fresh"
    shutil.rmtree(scratch, ignore_errors=True)
    write_task(task, scratch, FRESH_SEED)
    (scratch / "heldout").rename(folder / "fresh")
    shutil.rmtree(scratch)


def write_probes(out: Path, design: Design) -> None:
    """What the base models do on captions of the tasks: the priors of the arms that have one."""
    import spectra

    for model in design.models:
        for task in design.tasks:
            store = out / "probes" / f"{model}-{task}.zarr"
            if store.exists():
                continue
            files = sorted((out / "data" / task / "train").glob("*.txt"))
            prompts = list(dict.fromkeys(file.read_text().strip() for file in files))[: design.probed]
            scratch = store.with_name(f"{store.stem}-unfinished.zarr")
            shutil.rmtree(scratch, ignore_errors=True)
            spectra.probe(model, prompts, range(4), 30, scratch)
            scratch.rename(store)


def check_design(out: Path, design: Design) -> None:
    """UserError where the folder holds an experiment of other settings."""
    note, words = out / "design.json", json.dumps(asdict(design) | {"arms": {a: asdict(ARMS[a]) for a in design.arms}})
    note.parent.mkdir(parents=True, exist_ok=True)
    old = json.loads(note.read_text()) if note.is_file() else None
    new = json.loads(words)
    ignored = {"arms", "models", "tasks", "seeds", "stage"}
    if old and {k: v for k, v in old.items() if k not in ignored} != {k: v for k, v in new.items() if k not in ignored}:
        raise UserError(f"{out} holds an experiment with other settings; choose another folder with --out")
    if old and any(new["arms"][a] != arm for a, arm in old["arms"].items() if a in new["arms"]):
        raise UserError(f"{out} holds arms with other settings; choose another folder with --out")
    if old:
        new["arms"] = old["arms"] | new["arms"]
    note.write_text(json.dumps(new, indent=1))


def run(out: Path, design: Design, workers: int) -> None:
    """The whole experiment."""
    check_design(out, design)
    write_data(out, design)
    with FileLock(out / ".probes.lock"):
        write_probes(out, design)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(out, design)) for _ in range(workers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise UserError("a worker ended early; its last words are above, and the same command goes on")


def designed(given: argparse.Namespace) -> Design:
    """The design that the options make."""
    chosen: dict[str, Any] = {f.name: tuple(v) for f in fields(Design) if (v := getattr(given, f.name, None))}
    return replace(QUICK if given.quick else CONFIRM if given.confirm else FULL, **chosen)


def main() -> int:
    """Entry point."""
    parser = command.parser(__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    parser.add_argument("--quick", action="store_true", help="two arms for six steps, in minutes")
    parser.add_argument("--confirm", action="store_true", help="what was found, with new seeds, on new pictures")
    parser.add_argument("--models", nargs="+", choices=FULL.models)
    parser.add_argument("--tasks", nargs="+", choices=FULL.tasks)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int)
    given = parser.parse_args()
    return command.ended("quality", lambda: run(given.out, designed(given), given.workers))


if __name__ == "__main__":
    sys.exit(main())
