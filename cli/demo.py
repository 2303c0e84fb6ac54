"""`make demo`: the whole road on the bundled model, in a few minutes on two cores.

It only calls the commands that anyone would type, shows them, and keeps what is finished: a second call, or one after
an interruption, goes on where the last one stopped. What depends on something that changed is made again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cli.common import BAD_INPUT, INTERRUPTED, bar_columns, sentence
from cli.jobs import DONE, KEPT, Children, FailedError, Job, call, run_all

# What may be tuned to keep the demo within a few minutes.
MODEL = "mini"
TASK = "style"
STEPS = 120
SEEDS = (0, 1, 2)
PROBE_PROMPTS = 12
PROBE_SEEDS = "0:4"
PROBE_STEPS = 30
AT_ONCE = 2
SETTINGS: tuple[str, ...] = ("--set", "eval_every=20")
"""Further options of `adapt train`, the same for every arm."""

OUT = Path("runs/demo")
ARMS: dict[str, tuple[str, ...]] = {
    "fera-prior": ("--method", "fera", "--prior"),
    "fera": ("--method", "fera"),
    "lora": ("--method", "lora"),
}
"""Name of an arm -> its options; the cube follows `--prior`."""

WHY = {
    "data": "Two small tasks are drawn: a style (ink hatching) and a subject, with captions and held-out pictures.",
    "probe": "The bundled model is watched while it generates: which frequency bands are decided at which step?",
    "train": (
        "Now it learns the style three ways: FeRA started from what was seen, FeRA without it, and plain LoRA with the "
        "same total rank. Equal seeds see the same pictures, noise and order, so that differences are paired."
    ),
    "report": "The runs are compared on held-out pictures, with intervals.",
}


def fingerprint(*folders: Path) -> str:
    """SHA-256 over names and bytes of all files in the folders."""
    digest = hashlib.sha256()
    for file in sorted(path for folder in folders for path in folder.rglob("*") if path.is_file()):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def write_data(folder: Path) -> None:
    """Both tasks as image folders; each is renamed into place when it is whole."""
    from spectra.zoo.tasks import TASKS, write_task

    for task in TASKS:
        scratch = folder / f".{task}.unfinished"
        shutil.rmtree(scratch, ignore_errors=True)
        write_task(task, scratch)
        shutil.rmtree(folder / task, ignore_errors=True)
        scratch.rename(folder / task)


def probe_job(out: Path, model: Path) -> Job:
    """Watch the base model on captions of the task."""
    captions = [file.read_text().strip() for file in sorted((out / "data" / TASK / "train").glob("*.txt"))]
    prompts = list(dict.fromkeys(captions))[:PROBE_PROMPTS]
    (out / "prompts.txt").write_text("\n".join(prompts) + "\n")
    cube = out / f"{Path(MODEL).name}.zarr"
    command = (
        "spectra", "probe", "--model", MODEL, "--prompts", str(out / "prompts.txt"), "--seeds", PROBE_SEEDS,
        "--steps", str(PROBE_STEPS), "--out", str(cube),
    )  # fmt: skip
    return Job("probe", command, cube, "zarr.json", _key(command, prompts, fingerprint(model)))


def train_jobs(out: Path, model: Path, probe: Job) -> list[Job]:
    """Every arm with every seed; one seed of all arms before the next, so that an early stop leaves whole pairs."""
    made = fingerprint(model, out / "data" / TASK)
    return [_train_job(out, arm, seed, made, probe) for seed in SEEDS for arm in ARMS]


def _train_job(out: Path, arm: str, seed: int, made: str, probe: Job) -> Job:
    run, options = out / f"{TASK}-{arm}-{seed}", ARMS[arm]
    prior = (str(probe.result),) if "--prior" in options else ()
    command = (
        "adapt", "train", "--model", MODEL, "--data", str(out / "data" / TASK), *options, *prior,
        "--steps", str(STEPS), "--seed", str(seed), "--threads", "1", *SETTINGS, "--out", str(run),
    )  # fmt: skip
    return Job(run.name, command, run, "run.json", _key(command, made, probe.key if prior else ""))


def _key(*parts: Any) -> str:
    """What a result depends on, the version of this software included."""
    return hashlib.sha256(json.dumps([version("spectra-adapt"), *parts]).encode()).hexdigest()


class Screen:
    """What is happening and why: bars on a terminal, a line per job elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)

    def say(self, words: str) -> None:
        """A sentence of its own."""
        self.console.print(f"\n{words}", markup=False)

    def run(self, jobs: Sequence[Job]) -> None:
        """Show the commands and the progress of the jobs while they run."""
        from rich.progress import Progress as Bars
        from rich.progress import TextColumn

        for job in jobs[: len(ARMS)]:
            self.console.print("  " + shlex.join(job.command), markup=False, style="dim", soft_wrap=True)
        if len(jobs) > len(ARMS):
            self.console.print(f"  ... and the same with seeds {', '.join(map(str, SEEDS[1:]))}", style="dim")
        live = self.console.is_terminal
        with Bars(TextColumn("{task.description}"), *bar_columns(), console=self.console, disable=not live) as bars:
            tasks = {job.name: bars.add_task(job.name, total=None, start=False, now="waiting") for job in jobs}

            def show(name: str, now: str, done: int, total: int) -> None:
                bars.start_task(tasks[name])
                bars.update(tasks[name], completed=done, total=total, now=now)
                if not live and now in (DONE, KEPT):
                    self.console.print(f"  {name}: {now}", markup=False)

            run_all(jobs, show, AT_ONCE)


def demo(out: Path, fresh: bool) -> None:
    """Data, probe, training, report."""
    from spectra.models import locate

    model, screen = locate(MODEL), Screen()
    if fresh:
        for note in out.glob(".*.key"):  # only what a demo wrote
            note.unlink()
    (out / "data").mkdir(parents=True, exist_ok=True)
    screen.say(f"1 of 4. {WHY['data']}")
    write_data(out / "data")
    screen.say(f"2 of 4. {WHY['probe']}")
    probe = probe_job(out, model)
    screen.run([probe])
    screen.say(f"3 of 4. {WHY['train']}")
    runs = train_jobs(out, model, probe)
    screen.run(runs)
    screen.say(f"4 of 4. {WHY['report']}")
    page = out / "report.html"
    compare = ("adapt", "report", *(str(run.result) for run in runs), "--cube", str(probe.result), "--out", str(page))
    found = json.loads(call((*compare, "--json"), lambda *_: None, Children()))
    print(f"\nThe report: {page.resolve()}\n")
    for words in found["sentences"][:3]:
        print(f"  - {words}")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `python -m cli.demo`."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--fresh", action="store_true", help="start over instead of keeping what is finished")
    parser.add_argument("--out", type=Path, default=OUT, help=f"where everything is written (default: {OUT})")
    given = parser.parse_args(argv)
    try:
        demo(given.out, given.fresh)
    except KeyboardInterrupt:
        print(
            "demo: stopped by the keyboard; what was finished is kept, and `make demo` goes on from there.",
            file=sys.stderr,
        )
        return INTERRUPTED
    except FailedError as error:
        print(error, file=sys.stderr)
        return error.code if error.code > 0 else BAD_INPUT
    except (ValueError, OSError) as error:
        if os.environ.get("SPECTRA_DEBUG") == "1":
            raise
        print(f"demo: {sentence(str(error))}", file=sys.stderr)
        return BAD_INPUT
    return 0


if __name__ == "__main__":
    sys.exit(main())
