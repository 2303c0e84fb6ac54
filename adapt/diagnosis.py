"""Why a run cannot go on: losses that are no numbers any more, or that diverge, and memory that is used up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from adapt.config import TrainConfig
from adapt.history import PARTS, History
from adapt.state import ADAPTER
from spectra.errors import UserError

DIVERGED = 10.0
"""A run has diverged when its mean error of late is so many times the best one before, or its validation error so many
times the base's.  Errors of one step vary much more, means over `window` steps by about a factor of two."""
SAMPLES, LEAST_STEPS = 320, 20
"""A mean is taken over so many samples, and over so many steps at least."""
EXHAUSTED = ("out of memory", "can't allocate memory", "STATUS_ALLOC_FAILED")
"""Parts of what torch and the libraries below it say when memory is used up."""
OVERFLOWS = 50
"""With fp16 a step is left out when its gradient overflows; so many in a row mean that it will not get better."""


def window(config: TrainConfig) -> int:
    """Steps over which losses are averaged before they are compared."""
    return max(LEAST_STEPS, -(-SAMPLES // config.batch))


def diagnose(config: TrainConfig, history: History, step: int) -> str | None:
    """What is wrong after `step` steps, and what to do, as a clause; None if nothing is.  Waits for the device."""
    found = _no_number(config, history, step) or _bad_weights(history, step, config) or _diverged(config, history, step)
    return found or _worse_than_base(history, config)


def _no_number(config: TrainConfig, history: History, step: int) -> str | None:
    """The first step whose loss or gradient is not finite, and where in it that began."""
    wrong = ~history.losses[:step].isfinite()
    if config.precision != "fp16":  # there the scaler looks for overflows and leaves such steps out
        wrong |= ~history.gradient_norms[:step].isfinite()
    elif step < OVERFLOWS or not bool(wrong[-OVERFLOWS:].all()):
        return None
    if not bool(wrong.any()):
        return None
    first = int(wrong.nonzero()[0])
    return (
        f"the loss is not a number any more at step {first + 1} of training ({_where(history, first)}); "
        f"use a lower learning rate (lr was {float(history.learning_rates[first]):.3g}){_precision(config)}"
    )


def _where(history: History, step: int) -> str:
    """Which number of a step is the first that is not finite: an error at some noise, the loss, the gradient."""
    parts = history.noise_losses[step].isinf().nonzero()[:, 0].tolist()
    known = int((~history.noise_losses[step].isnan()).sum())
    if bool(history.losses[step].isfinite()):
        return f"the loss was {float(history.losses[step]):.3g}, its gradient was the first to overflow"
    if 0 < len(parts) < known:
        return f"first where the noise is in part {parts[0] + 1} of {PARTS}, from clean to noisy"
    return "the prediction overflowed at every noise level" if parts else "the terms added to the error overflowed"


def _precision(config: TrainConfig) -> str:
    return "" if config.precision == "no" else f", or precision 'no' instead of {config.precision!r}"


def _bad_weights(history: History, step: int, config: TrainConfig) -> str | None:
    """A validation error that is not finite, where the training losses were."""
    for at, one in history.validations.items():
        if not bool(one.error.isfinite().all()):
            return (
                f"the validation error is not a number at step {at} of training; use a lower learning rate (lr)"
                f"{_precision(config)}"
            )
    return None


def _diverged(config: TrainConfig, history: History, step: int) -> str | None:
    """Mean errors over windows: the last one against the best one before."""
    size = window(config)
    if step < 2 * size:
        return None
    errors = history.noise_losses[step % size : step].nanmean(1)  # without the terms that are added to the error
    errors = errors.where(errors.isfinite(), torch.nan)  # steps that fp16 leaves out
    means = errors.reshape(-1, size).nanmean(1).nan_to_num(nan=torch.inf)
    best, last = float(means[:-1].min()), float(means[-1])
    if last <= DIVERGED * best or last == torch.inf:
        return None
    return (
        f"training diverges: the mean error over the {size} steps up to {step} is {last:.3g}, {last / best:.0f} times "
        f"the best one before; use a lower learning rate (lr was {float(history.learning_rates[step - 1]):.3g})"
    )


def _worse_than_base(history: History, config: TrainConfig) -> str | None:
    """The newest measurement against the base's."""
    errors = {step: float(one.error.mean()) for step, one in history.validations.items()}
    if 0 not in errors or max(errors) == 0:
        return None
    base, now = errors[0], errors[max(errors)]
    if now <= DIVERGED * base:
        return None
    return (
        f"training diverges: at step {max(errors)} the validation error is {now:.3g}, {now / base:.0f} times the "
        "base's; use a lower learning rate (lr)"
    )


def kept_words(kept: Path | None) -> str:
    """What is left of a run that cannot go on."""
    if kept is None:
        return "nothing was kept"
    start = str(kept / ADAPTER)
    return f"the last good state is {kept}, whose adapter can start another run (start_from = {start!r})"


@contextmanager
def enough_memory(config: TrainConfig, what: str, kept: Callable[[], Path | None]) -> Iterator[None]:
    """Turn memory that is used up inside into a sentence that says what to lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _exhausted(error):
            raise
        state = kept()
        on = f"give the same command again: it goes on from {state}" if state else "begin again"
        told = [f"{' or '.join(levers)} and {on}"] if (levers := _levers(config)) else []
        told += [f"a smaller {'batch, a smaller ' * (config.batch > 1)}resolution or precision = 'bf16' need a new run"]
        raise UserError(f"the device's memory does not suffice for {what}; {'; '.join(told)}") from error


@contextmanager
def enough_to_begin(config: TrainConfig) -> Iterator[None]:
    """The same before training begins, where other things help."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _exhausted(error):
            raise
        raise UserError(
            f"the device's memory does not suffice to open {config.model} and encode its data; end what else uses "
            "that memory, or choose a smaller resolution or model; what was encoded is in the cache"
        ) from error


def _exhausted(error: Exception) -> bool:
    return isinstance(error, MemoryError) or any(words in str(error) for words in EXHAUSTED)


def _levers(config: TrainConfig) -> list[str]:
    """Settings that save memory and may change on the way."""
    levers = [f"raise accumulate (now {config.accumulate})"] if config.accumulate < config.batch else []
    return levers + ([] if config.checkpointing else ["set checkpointing = true"])
