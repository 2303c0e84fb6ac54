"""What a person sees of what takes long: a bar (with the loss by noise level), or lines for a log file."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from cli.common import PHASES, Progress, bar_columns, json_line, progress_bar

Watch = Callable[[Mapping[str, float]], None]
NOISE = "loss/noise_"
EVERY = 30.0
"""Seconds between two lines of a log, where nothing better than time says when there is something to say."""


@dataclass
class Words:
    """The last numbers that training told, in words."""

    loss: str = ""
    error: str = ""
    begun: float = field(default_factory=time.monotonic)

    def hear(self, values: Mapping[str, float]) -> None:
        """Take in numbers of training steps, or of a measurement."""
        if "loss" in values:
            by_noise = " ".join(_short(value) for name, value in values.items() if name.startswith(NOISE))
            self.loss = f"loss {_short(values['loss'])}" + (f" ({by_noise} from clean to noisy)" if by_noise else "")
        if "validation/error" in values:
            self.error = f"held-out error {_short(values['validation/error'])}"

    def line(self, done: int, total: int) -> str:
        """One line for a log."""
        parts = [f"step {done} of {total}", self.error, self.loss, f"{time.monotonic() - self.begun:.0f} s"]
        return ", ".join(part for part in parts if part)


def _short(value: float) -> str:
    return f"{value:.3g}"


@contextmanager
def training_bar(what: str) -> Iterator[tuple[Progress, Watch]]:
    """A bar on stderr if that is a terminal, else one line there for each measurement on held-out pictures.

    With SPECTRA_PROGRESS=lines each step is one JSON line instead, for programs that show their own bar.
    """
    if os.environ.get("SPECTRA_PROGRESS") == "lines":
        yield json_line, lambda values: None
        return
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines()
        return
    from rich.progress import Progress as Bars
    from rich.progress import TextColumn

    words = Words()
    with Bars(TextColumn("{task.description}", markup=False), *bar_columns(), console=console, transient=True) as bars:
        task = bars.add_task(what, total=None, now="loading the model")

        def progress(phase: str, done: int, total: int) -> None:
            now = ", ".join(part for part in (words.loss, words.error) if part) if phase == "train" else ""
            bars.update(task, completed=done, total=total, now=now or PHASES.get(phase, phase))

        yield progress, words.hear


def _lines() -> tuple[Progress, Watch]:
    words = Words()
    place = [0, 0]

    def progress(phase: str, done: int, total: int) -> None:
        if phase in ("train", "validate"):
            place[:] = done, total

    def watch(values: Mapping[str, float]) -> None:
        words.hear(values)
        if "validation/error" in values:
            print(words.line(*place), file=sys.stderr, flush=True)

    return progress, watch


@contextmanager
def logged_bar(what: str) -> Iterator[Progress]:
    """As `progress_bar`, and where stderr is no terminal, a line there every `EVERY` seconds."""
    from rich.console import Console

    if os.environ.get("SPECTRA_PROGRESS") == "lines" or Console(stderr=True).is_terminal:
        with progress_bar(what) as progress:
            yield progress
    else:
        yield _now_and_then(what)


def _now_and_then(what: str) -> Progress:
    begun = last = time.monotonic()

    def progress(phase: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= EVERY:
            last = now
            words = f"{what}: {PHASES.get(phase, phase)}, {done} of {total}, {now - begun:.0f} s"
            print(words, file=sys.stderr, flush=True)

    return progress
