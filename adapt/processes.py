"""The process that trains: accelerate, threads, chance, and what happens when it is told to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs

from adapt.config import TrainConfig
from adapt.draws import generator
from spectra.errors import UserError

PATIENCE = timedelta(hours=12)
"""How long processes wait for the first one while it encodes, draws or writes."""
_CHANCE = 3
"""Key of the stream that dropout draws from."""


class TrainingStoppedError(KeyboardInterrupt):
    """A signal ended a run between two steps; the message says what was kept.

    A KeyboardInterrupt, so that code which handles errors does not take it for one.
    """

    def __init__(self, number: int, step: int, steps: int, kept: Path | None) -> None:
        self.signal = signal.Signals(number)
        self.exit_code = 128 + number
        """130 after SIGINT, 143 after SIGTERM."""
        self.step, self.kept = step, kept
        where = f"its state is kept in {kept}, and the same command goes on from it" if kept else "nothing was kept"
        super().__init__(f"training was stopped ({self.signal.name}) after step {step} of {steps}; {where}")


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Inside, torch uses so many CPU threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def accelerated(config: TrainConfig) -> Iterator[Accelerator]:
    """An Accelerator of its own settings; those of any other one in this process are put back afterwards.

    Raises:
        UserError: a precision that the device lacks, or a batch that cannot be split over the processes.
    """
    shared = (AcceleratorState._shared_state, GradientState._shared_state)
    before = [dict(state) for state in shared]
    for state in shared:
        state.clear()
    try:
        yield _accelerator(config)
    finally:
        for state, values in zip(shared, before, strict=True):
            state.clear()
            state.update(values)


def _accelerator(config: TrainConfig) -> Accelerator:
    handlers = [InitProcessGroupKwargs(timeout=PATIENCE)]
    once = GradientAccumulationPlugin(num_steps=1)  # losses are divided here; the environment may not divide them again
    try:
        accelerator = Accelerator(
            mixed_precision=config.precision, kwargs_handlers=handlers, gradient_accumulation_plugin=once
        )
    except (ValueError, ImportError) as error:
        raise UserError(f"precision {config.precision!r} cannot be used here ({error}); choose bf16 or no") from None
    if config.precision == "fp16" and accelerator.scaler is None:
        raise UserError(f"precision 'fp16' needs a graphics card, this is {accelerator.device}; choose bf16 or no")
    if config.batch % (accelerator.num_processes * config.accumulate):
        raise UserError(
            f"the batch of {config.batch} cannot be split evenly over {accelerator.num_processes} processes and "
            f"{config.accumulate} accumulated parts; choose a multiple of their product"
        )
    return accelerator


@contextmanager
def chance(config: TrainConfig, step: int, accelerator: Accelerator) -> Iterator[None]:
    """Inside, torch's random numbers (dropout) depend on seed, step and process alone; the caller's are left alone."""
    device = accelerator.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(generator(config.seed, _CHANCE, step, accelerator.process_index).initial_seed())
        yield


@contextmanager
def signals() -> Iterator[Callable[[], int]]:
    """Inside, the first SIGINT or SIGTERM is only noted, and the second one ends the process at once.

    Yields a function that returns the number of the signal that came, or 0.  Only a program's main thread receives
    signals; elsewhere nothing changes.
    """
    came = 0
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    watched = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in watched}

    def note(number: int, frame: Any) -> None:
        nonlocal came
        came = number
        for one in watched:
            signal.signal(one, signal.SIG_DFL)

    for one in watched:
        signal.signal(one, note)
    try:
        yield lambda: came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


@contextmanager
def stoppable(step: int, steps: int, kept: Path | None) -> Iterator[None]:
    """Inside, SIGINT and SIGTERM end the work at once with a TrainingStoppedError: all that is needed was kept."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    watched = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in watched}

    def stop(number: int, frame: Any) -> None:
        raise TrainingStoppedError(number, step, steps, kept)

    for one in watched:
        signal.signal(one, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def agreed(accelerator: Accelerator, number: int) -> int:
    """The largest of the processes' numbers, so that all stop at the same step."""
    if accelerator.num_processes == 1:
        return number
    found = torch.tensor([number], device=accelerator.device)
    return int(accelerator.gather(found).max())


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was asked to do."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def sharded(accelerator: Accelerator) -> bool:
    """True if every process holds only a part of the model, so that all are needed to use it."""
    return "FSDP" in str(accelerator.distributed_type)


@contextmanager
def gathered(denoiser: Any) -> Iterator[None]:
    """Inside, the weights of a sharded model are whole tensors in every process; all of them have to come here."""
    parts = [module for module in denoiser.modules() if hasattr(module, "unshard") and hasattr(module, "reshard")]
    for part in parts:
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()


def no_sync(accelerator: Accelerator, denoiser: Any, last: bool) -> Any:
    """While gradients accumulate, processes exchange them with the last part only."""
    return nullcontext() if last else accelerator.no_sync(denoiser)
