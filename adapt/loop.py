"""The one training loop, for every method, objective and model family."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from adapt import record, state
from adapt.config import TrainConfig, learning_rate
from adapt.draws import Draws, draw
from adapt.evaluate import evaluate
from adapt.step import fecl_weight, step_loss
from adapt.task import Progress, Task, prepare, silent
from adapt.validate import Validation, make_grid, validate
from spectra.errors import UserError

CHECK_EVERY = 10
"""Steps between two looks at whether the loss is still a number: each look waits for the device."""


@dataclass(frozen=True)
class RunResult:
    """A finished run: where it lies and what `run.json` says."""

    path: Path
    record: dict[str, Any]
    error_before: float
    """Mean validation error of the base."""
    error_after: float
    """Mean validation error with the trained adapter."""


@dataclass
class History:
    """What was measured while training."""

    losses: Tensor
    """(steps,)"""
    validations: dict[int, Validation] = field(default_factory=dict)
    """Training steps done -> measurement."""
    seconds: float = 0.0
    """Time in training steps alone."""


def train(config: TrainConfig, progress: Progress | None = None) -> RunResult:
    """Train an adapter and write its run directory, whole or not at all.

    Equal seeds give every method the same pictures, captions dropped, noise and timesteps in the same order.

    Args:
        config: everything that decides the run.
        progress: called with (phase, done, total); phases are `encode`, `train`, `validate`, `sample`.

    Raises:
        UserError: anything that the person can mend, a loss that is no longer a number included.
    """
    progress, begun = progress or silent, time.perf_counter()
    with _threads(config.threads), _accelerator(config) as accelerator:
        main = accelerator.is_main_process
        target: AbstractContextManager[Path | None]
        target = state.run_directory(config.out, overwrite=config.overwrite) if main else nullcontext()
        with target as folder:
            task = prepare(config, accelerator.device, progress)
            history = fit(task, accelerator, progress)
            whole = record.describe(task, history.seconds)
            if folder is not None:
                record.metrics(task, history.losses, history.validations).to_zarr(
                    folder / "metrics.zarr", consolidated=False
                )
                task.method.save(task.denoiser, folder / state.ADAPTER)
                evaluate(task, progress).to_zarr(folder / "evaluation.zarr", consolidated=False)
                whole |= {"seconds_total": time.perf_counter() - begun, "finished": datetime.now(UTC).isoformat()}
                state.write_record(folder, whole)
    errors = [float(found.error.mean()) for found in history.validations.values()]
    return RunResult(config.out, whole, errors[0], errors[-1])


def fit(task: Task, accelerator: Accelerator, progress: Progress = silent) -> History:
    """Train the task's adapter in place, measuring it on the way, at step 0 (the base) and at the end included."""
    config, grid = task.config, make_grid(task)
    parameters = [p for p in task.denoiser.parameters() if p.requires_grad]
    peak = config.lr or learning_rate(config.method, sum(p.numel() for p in task.denoiser.parameters()))
    optimizer = torch.optim.AdamW(
        parameters,
        lr=peak,
        betas=(0.9, 0.99),
        weight_decay=config.weight_decay,
        fused=accelerator.device.type in ("cpu", "cuda"),
    )
    denoiser, optimizer = accelerator.prepare(task.denoiser, optimizer)
    history = History(torch.zeros(config.steps, device=accelerator.device))

    for step in range(config.steps + 1):
        if step % config.validate_every == 0 or step == config.steps:
            task.denoiser.eval()
            progress("validate", step, config.steps)
            history.validations[step] = validate(task, grid)
            _check(history.losses[:step], history.validations[step])
        if step == config.steps:
            break
        start = time.perf_counter()
        task.denoiser.train()
        for group in optimizer.param_groups:
            group["lr"] = peak * rate(step, config.steps, config.warmup)
        loss = step_loss(task, denoiser, draws_of(task, step, accelerator), fecl_weight(config, step))
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(parameters, config.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        history.losses[step] = loss.detach()
        if step % CHECK_EVERY == 0:
            _check(history.losses[: step + 1])
        history.seconds += time.perf_counter() - start
        progress("train", step + 1, config.steps)
    accelerator.unwrap_model(denoiser, keep_fp32_wrapper=False)
    return history


def draws_of(task: Task, step: int, accelerator: Accelerator) -> Draws:
    """This process's part of what chance decides in a step."""
    config, parts = task.config, accelerator.num_processes
    if config.batch % parts:
        raise UserError(f"the batch of {config.batch} cannot be split evenly over {parts} processes; choose a multiple")
    whole = draw(config.seed, step, config.batch, len(task.train), task.shape, config.caption_dropout)
    return whole.part(accelerator.process_index, parts)


def rate(step: int, steps: int, warmup: float) -> float:
    """Share of the peak learning rate: a linear rise over `warmup` of the steps, then a half cosine to zero."""
    rise = warmup * steps
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1.0, steps - rise)))


def _check(losses: Tensor, validation: Validation | None = None) -> None:
    """UserError where a loss or a validation error is not finite."""
    wrong = (~losses.isfinite()).nonzero()
    if len(wrong) or not (validation is None or bool(validation.error.isfinite().all())):
        step = int(wrong[0]) + 1 if len(wrong) else len(losses)
        raise UserError(f"the loss is not a number any more at step {step} of training; use a lower learning rate (lr)")


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _accelerator(config: TrainConfig) -> Iterator[Accelerator]:
    """An Accelerator that leaves no settings behind for the next run of this process."""
    try:
        yield Accelerator(mixed_precision=config.precision)
    finally:
        AcceleratorState._reset_state()
