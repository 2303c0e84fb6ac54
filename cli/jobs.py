"""Commands as jobs: run a few at a time, follow their progress, keep what is finished, leave no process behind."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cli.common import PHASES, Progress


@dataclass(frozen=True)
class Job:
    """One command: its words, what it writes, and everything that its result depends on."""

    name: str
    command: tuple[str, ...]
    result: Path
    whole: str
    """A file inside `result` that is there only when the result is whole."""
    key: str

    @property
    def note(self) -> Path:
        """Where the key of a finished result is kept, beside the result."""
        return self.result.with_name(f".{self.result.name}.key")

    @property
    def finished(self) -> bool:
        """True if the result is there and was made by this very command from the same inputs."""
        return (self.result / self.whole).is_file() and self.note.is_file() and self.note.read_text() == self.key


Show = Callable[[str, str, int, int], None]
"""Called as `show(job name, what is being done, done, total)`."""
DONE, KEPT = "done", "done before, kept"


class FailedError(Exception):
    """A command that did not end well: its exit code and its last words."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code


def run_job(job: Job, show: Show, children: Children) -> None:
    """Run a command unless its result is there already; its progress goes to `show`."""
    if job.finished:
        return show(job.name, KEPT, 1, 1)
    job.note.unlink(missing_ok=True)
    shutil.rmtree(job.result, ignore_errors=True)
    call(job.command, lambda phase, done, total: show(job.name, PHASES.get(phase, phase), done, total), children)
    job.note.write_text(job.key)
    show(job.name, DONE, 1, 1)


def call(command: Sequence[str], progress: Progress, children: Children) -> str:
    """Run one of our commands with one thread; return its stdout. Raises FailedError."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "SPECTRA_PROGRESS": "lines"}
    program = [sys.executable, "-m", "cli", *command]
    with children.started(program, environment) as child:
        out: list[str] = []
        reader = threading.Thread(target=lambda: out.append(child.stdout.read() if child.stdout else ""))
        reader.start()
        words = [line for line in child.stderr or () if not _told(line, progress)]
        reader.join()
        code = child.wait()
    if code:
        raise FailedError(code, "".join(words).strip() or f"{shlex.join(command)} ended with code {code}")
    return "".join(out)


def _told(line: str, progress: Progress) -> bool:
    """Pass a progress line on; False for any other line."""
    try:
        step = json.loads(line)
        progress(step["phase"], step["done"], step["total"])
    except (ValueError, TypeError, KeyError):
        return False
    return True


class Children:
    """The processes that are running, so that none outlives the demo."""

    def __init__(self) -> None:
        self.running: list[subprocess.Popen[str]] = []

    def started(self, program: Sequence[str], environment: dict[str, str]) -> subprocess.Popen[str]:
        """Start a process."""
        pipe = subprocess.PIPE
        child = subprocess.Popen(
            program, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, env=environment
        )
        self.running.append(child)
        return child

    def stop(self) -> None:
        """End those that still run."""
        for child in self.running:
            if child.poll() is None:
                child.send_signal(signal.SIGINT)  # so that it removes what it left unfinished


def run_all(jobs: Sequence[Job], show: Show, at_once: int) -> None:
    """Run the jobs, `at_once` at a time; the first failure ends them all."""
    children = Children()
    with ThreadPoolExecutor(at_once) as pool:
        waiting = [pool.submit(run_job, job, show, children) for job in jobs]
        try:
            for job in waiting:
                job.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            children.stop()
            raise
