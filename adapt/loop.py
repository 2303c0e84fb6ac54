"""The one training loop, for every method, objective and model family.

Where its parts are: one step, and all that moves, in `trainer`; what is written down of it in `history`; when to give
up in `diagnosis`; signals, devices and several processes in `processes`; the run directory in `state`, its checkpoints
in `checkpoint` (their contents in `checkpoint_tree`, when to save in `checkpoint_keeper`, whether a run may go on in
`checkpoint_settings`); and what a finished run says in `record`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors import SafetensorError

from adapt import processes, record, state
from adapt.card import write_card
from adapt.checkpoint import newest
from adapt.checkpoint_keeper import Keeper
from adapt.checkpoint_settings import check_resolved, check_settings, resolved
from adapt.closing_pictures import evaluate
from adapt.config import TrainConfig
from adapt.diagnosis import diagnose, enough_memory, enough_to_begin, kept_words
from adapt.history import History
from adapt.optimisers import check_package, peak_rate, rate
from adapt.previews import draw_previews
from adapt.processes import TrainingStoppedError
from adapt.task import Progress, Task, prepare, silent
from adapt.trackers import check_trackers, measured, tracked
from adapt.trainer import Trainer, draws_of, save_adapter
from adapt.validate import Grid, make_grid
from spectra.errors import UserError

__all__ = ["History", "RunResult", "TrainingStoppedError", "Watch", "draws_of", "fit", "rate", "train"]

CHECK_EVERY = 10
"""Steps between two looks at the losses: each look waits for the device."""
Watch = Callable[[Mapping[str, float]], None]
"""Told named numbers now and then: `loss`, `loss/noise_1_of_4` ..., `gradient_norm`, `lr`, `validation/error` ..."""


@dataclass(frozen=True)
class RunResult:
    """A finished run: where it lies and what `run.json` says."""

    path: Path
    record: dict[str, Any]
    error_before: float
    """Mean validation error of the base."""
    error_after: float
    """Mean validation error with the trained adapter."""
    unused_experts: str = ""
    """What to do about experts that the gates hardly use; empty where there are none."""


def train(
    config: TrainConfig | Mapping[str, Any], progress: Progress | None = None, watch: Watch | None = None
) -> RunResult:
    """Train an adapter and write its run directory; an interrupted run goes on where it was saved.

    Equal seeds give every method the same pictures, captions dropped, noise and timesteps in the same order.  On a CPU
    a run that was interrupted ends with the same bits as one that was not.

    Args:
        config: everything that decides the run; a mapping of settings will do.
        progress: called with (phase, done, total); phases are `encode`, `train`, `validate`, `sample`.
        watch: told losses and measurements while the run goes on.

    Raises:
        UserError: anything that the person can mend, a loss that is no longer a number included.
        TrainingStoppedError: SIGINT or SIGTERM came; what was reached is kept.
    """
    config = config if isinstance(config, TrainConfig) else TrainConfig(**config)
    progress, begun = progress or silent, time.perf_counter()
    check_trackers(config)
    check_package(config)
    with (
        processes.threads(config.threads),
        processes.accelerated(config) as accelerator,
        _home(config, accelerator) as home,
    ):
        keeper = Keeper.open(home, accelerator, config.keep_checkpoints, begun)
        task = _prepared(config, keeper, progress)
        with tracked(accelerator, config, home.folder, keeper.step):
            history = fit(task, accelerator, progress, keeper, watch)
        whole = record.describe(task, history)
        with processes.stoppable(keeper.step, config.steps, keeper.kept):
            _write_results(task, history, keeper, progress)
        if accelerator.is_main_process:
            whole |= {"seconds_total": keeper.seconds, "finished": datetime.now(UTC).isoformat()}
            write_card(home.folder / state.ADAPTER, whole)
            state.publish(home, whole)
        accelerator.wait_for_everyone()
    errors = whole["validation"]
    return RunResult(config.out, whole, errors["before"], errors["after"], record.unused_experts(history))


@contextmanager
def _home(config: TrainConfig, accelerator: Accelerator) -> Iterator[state.Home]:
    """The place of the run, for the first process alone; what has kept no state leaves nothing behind."""
    if not accelerator.is_main_process:
        yield state.Home(config.out, config.out)
        return
    home = state.claim(config.out, overwrite=config.overwrite, resume=config.resume)
    with state.held(home.folder):
        try:
            if state.is_finished(home.folder):  # by another process, since the place was claimed
                raise UserError(f"{config.out} was finished by another process this moment; it is kept as it is")
            yield home
        except (OSError, SafetensorError) as error:
            if (problem := state.unwritable(error, home.folder)) is None:
                raise
            kept = newest(home.states, check=False).path
            on = f"; {kept} is whole: make room and give the same command again" if kept else ""
            raise UserError(f"cannot write {problem}{on}") from error
        finally:
            state.give_up(home.folder)


def _prepared(config: TrainConfig, keeper: Keeper, progress: Progress) -> Task:
    """The task; the first process encodes the data while the others wait.  Settings are compared with those saved."""
    accelerator, folder = keeper.accelerator, keeper.home.folder
    saved = state.read_begun(folder) if keeper.kept else None
    if saved:
        check_settings(saved, config, config.out)
    with accelerator.main_process_first(), enough_to_begin(config):
        task = prepare(config, accelerator.device, progress)
    parameters = sum(p.numel() for p in task.denoiser.parameters())
    now = resolved(task, peak_rate(config, parameters))
    if saved:
        check_resolved(saved, now, config.out)
        now["run"] = saved["run"]
    if accelerator.is_main_process:
        state.begin(folder, now)
    return task


def _write_results(task: Task, history: History, keeper: Keeper, progress: Progress) -> None:
    """Everything of a finished run but its record, by the first process; a sharded model needs them all to draw."""
    folder, main = keeper.home.folder, keeper.accelerator.is_main_process
    together = main or processes.sharded(keeper.accelerator)
    with enough_memory(task.config, "the measurement of the experts", lambda: keeper.kept):
        experts = record.ablated(task) if together else None
    with processes.gathered(task.denoiser):
        if main:
            numbers = record.metrics(task, history, experts)
            state.place(folder, "metrics.zarr", lambda partial: numbers.to_zarr(partial, consolidated=False))
            state.place(folder, state.ADAPTER, lambda partial: save_adapter(task, partial))
    if together:
        with enough_memory(task.config, "the pictures of the finished run", lambda: keeper.kept):
            drawn = evaluate(task, progress)
    if main:
        state.place(folder, "evaluation.zarr", lambda partial: drawn.to_zarr(partial, consolidated=False))


def fit(
    task: Task,
    accelerator: Accelerator,
    progress: Progress = silent,
    keeper: Keeper | None = None,
    watch: Watch | None = None,
) -> History:
    """Train the task's adapter in place, measuring it on the way, at step 0 (the base) and at the end included.

    With a keeper, its newest state is where training begins, and states are saved; without one nothing is written.
    Afterwards the task's denoiser is what was measured last.
    """
    with enough_memory(task.config, "the start of training", lambda: keeper.kept if keeper else None):
        trainer = Trainer.of(task, accelerator)
        if keeper is not None:
            keeper.restore(trainer)
    try:
        with processes.signals() as came:
            _Course(trainer, make_grid(task), progress, keeper, watch, came).run()
    finally:
        trainer.finish()
    return trainer.history


@dataclass
class _Course:
    """The course of a training: stretches of steps, and pauses to measure, save and draw."""

    trainer: Trainer
    grid: Grid
    progress: Progress
    keeper: Keeper | None
    watch: Watch | None
    came: Callable[[], int]
    """Number of the signal that came, or 0."""

    @property
    def config(self) -> TrainConfig:
        return self.trainer.task.config

    @property
    def kept(self) -> Path | None:
        return self.keeper.kept if self.keeper else None

    def run(self) -> None:
        config = self.config
        if self.trainer.step:
            self.progress("train", self.trainer.step, config.steps)
        while True:
            self._pause()
            if self.trainer.step == config.steps:
                return
            with enough_memory(config, "a training step", lambda: self.kept):
                self._stretch(min(every - self.trainer.step % every + self.trainer.step for every in self._periods()))

    def _periods(self) -> list[int]:
        config = self.config
        every = [config.steps, config.validate_every, self._checkpoint_every, config.preview_every]
        return [one for one in every if one is not None]

    @property
    def _checkpoint_every(self) -> int:
        return self.config.checkpoint_every or self.config.validate_every

    def _pause(self) -> None:
        """Measure, save and draw if it is time; a signal stops it before what takes long."""
        trainer, config = self.trainer, self.config
        step, last = trainer.step, trainer.step == config.steps
        self._stop_if_asked()
        if (step % config.validate_every == 0 or last) and step not in trainer.history.validations:
            self.progress("validate", step, config.steps)
            with enough_memory(config, "the measurement on held-out pictures", lambda: self.kept):
                trainer.measure(self.grid)
            self._tell(measured(trainer.history.validations[step]))
            self._check()
        if self.keeper and (step % self._checkpoint_every == 0 or last):
            self.keeper.save(trainer)
        self._stop_if_asked()
        if config.preview_every and step % config.preview_every == 0:
            self._preview()
            self._stop_if_asked()

    def _stretch(self, stop: int) -> None:
        """Steps up to `stop`, timed on a device that has finished what came before."""
        trainer, device = self.trainer, self.trainer.accelerator.device
        processes.synchronise(device)
        begin, start = time.perf_counter(), trainer.step
        while trainer.step < stop:
            trainer.advance()
            self.progress("train", trainer.step, self.config.steps)
            look = trainer.step % CHECK_EVERY == 0 or trainer.step == stop
            if look:
                self._tell(trainer.history.recent(start, trainer.step))
                self._check()
                start = trainer.step
            if trainer.step < stop and (look or trainer.accelerator.num_processes == 1):
                self._stop_if_asked(begin)
        processes.synchronise(device)
        trainer.history.seconds += time.perf_counter() - begin

    def _check(self) -> None:
        """UserError where the losses say that nothing good will come."""
        problem = diagnose(self.config, self.trainer.history, self.trainer.step)
        if problem:
            raise UserError(f"{problem}; {kept_words(self.kept)}")

    def _stop_if_asked(self, begin: float | None = None) -> None:
        """Save and raise TrainingStoppedError if a signal came; `begin` is when the present stretch began."""
        trainer = self.trainer
        number = processes.agreed(trainer.accelerator, self.came())
        if not number:
            return
        if begin is not None:
            trainer.history.seconds += time.perf_counter() - begin
        self._check()  # a state that is no good is not kept
        if self.keeper:
            self.keeper.save(trainer)
        raise TrainingStoppedError(number, trainer.step, self.config.steps, self.kept)

    def _tell(self, values: Mapping[str, float]) -> None:
        if self.watch:
            self.watch(values)
        if self.trainer.accelerator.trackers:
            self.trainer.accelerator.log(dict(values), step=self.trainer.step)

    def _preview(self) -> None:
        """Pictures of the adapter as it is, by the first process; a sharded model needs them all."""
        trainer, main = self.trainer, self.trainer.accelerator.is_main_process
        if self.keeper and (main or processes.sharded(trainer.accelerator)):
            folder = self.keeper.home.folder / state.PREVIEWS if main else None
            with enough_memory(self.config, "the preview pictures", lambda: self.kept), trainer.averaged():
                draw_previews(trainer.task, trainer.step, folder)
        trainer.accelerator.wait_for_everyone()
