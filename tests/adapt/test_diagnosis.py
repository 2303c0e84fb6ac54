"""A run that cannot become good any more is stopped with the first thing that went wrong; a good one is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from adapt.config import TrainConfig
from adapt.diagnosis import DIVERGED, OVERFLOWS, diagnose, enough_memory, kept_words, window
from adapt.history import PARTS, History
from adapt.validate import Validation
from spectra.errors import UserError

STEPS = 400


def made(**changes: Any) -> TrainConfig:
    return TrainConfig(**({"model": "m", "data": "d", "out": Path("a"), "steps": STEPS} | changes))


def history(losses: torch.Tensor | None = None) -> History:
    """A history of losses around one, that is otherwise sound."""
    found = History.empty(STEPS, torch.device("cpu"))
    found.losses[:] = torch.rand(STEPS, generator=torch.Generator().manual_seed(0)) + 0.5 if losses is None else losses
    found.noise_losses[:] = found.losses[:, None]
    found.gradient_norms[:] = 1.0
    found.learning_rates[:] = 0.25
    return found


def measured(found: History, **errors: float) -> History:
    for step, error in errors.items():
        values: dict[str, Any] = {"error": torch.full((2, 2, 2), error)}
        others = {name: None for name in Validation.__dataclass_fields__ if name != "error"}
        found.validations[int(step[1:])] = Validation(**(others | values))
    return found


def test_a_sound_run_is_left_alone() -> None:
    falling = history(torch.linspace(100, 0.01, STEPS))
    noisy = history(torch.rand(STEPS, generator=torch.Generator().manual_seed(1)) ** 8)
    for found in (history(), falling, noisy):
        assert all(diagnose(made(), measured(found, s0=1.0, s400=5.0), step) is None for step in range(STEPS + 1))


def test_the_first_step_that_is_no_number_is_named_with_its_learning_rate() -> None:
    found = history()
    found.losses[6:] = torch.nan
    found.noise_losses[6:] = torch.inf
    found.noise_losses[6:, 0] = torch.nan  # no sample there
    words = diagnose(made(), found, 10)
    assert words is not None
    assert "not a number any more at step 7 of training" in words
    assert "use a lower learning rate (lr was 0.25)" in words
    assert "every noise level" in words
    assert diagnose(made(), found, 6) is None


def test_the_noise_at_which_it_began_is_named() -> None:
    found = history()
    found.losses[3] = torch.nan
    found.noise_losses[3, 2] = torch.inf
    assert f"part 3 of {PARTS}, from clean to noisy" in str(diagnose(made(), found, 10))


def test_an_overflowing_gradient_is_named_before_the_loss() -> None:
    found = history()
    found.gradient_norms[4] = torch.inf
    found.losses[5:] = torch.nan
    assert "at step 5 of training" in str(diagnose(made(), found, 10))
    assert "its gradient was the first to overflow" in str(diagnose(made(), found, 10))
    assert "precision 'no' instead of 'bf16'" in str(diagnose(made(precision="bf16"), found, 10))


def test_single_overflows_of_fp16_are_the_scalers_business() -> None:
    found = history()
    found.gradient_norms[::2] = torch.inf
    assert diagnose(made(precision="fp16"), found, STEPS) is None
    found.gradient_norms[100 : 100 + OVERFLOWS] = torch.inf
    found.losses[100 : 100 + OVERFLOWS] = torch.nan
    assert "precision 'no' instead of 'fp16'" in str(diagnose(made(precision="fp16"), found, 100 + OVERFLOWS))


def test_a_diverging_loss_is_told_from_a_varying_one() -> None:
    size = window(made())
    found = history()
    found.noise_losses[200:] *= 1.2 * DIVERGED
    assert diagnose(made(), found, 200 + size // 4) is None  # a few bad steps are no divergence
    words = diagnose(made(), found, 200 + size)
    assert words is not None
    assert "diverges" in words
    assert "use a lower learning rate (lr was 0.25)" in words


def test_an_adapter_far_worse_than_the_base_is_stopped() -> None:
    assert "times the base's" in str(diagnose(made(), measured(history(), s0=1.0, s50=11.0), 50))
    assert "not a number at step 50" in str(diagnose(made(), measured(history(), s0=1.0, s50=float("nan")), 50))


def test_the_last_good_state_is_named_as_a_start() -> None:
    assert "start_from = 'a/state/step-000010/adapter'" in kept_words(Path("a/state/step-000010"))
    assert kept_words(None) == "nothing was kept"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_memory_that_is_used_up_says_what_to_lower(error: Exception) -> None:
    words = r"memory does not suffice for a training step; raise accumulate \(now 1\) or set checkpointing = true .*s/7"
    with pytest.raises(UserError, match=words), enough_memory(made(), "a training step", lambda: Path("s/7")):
        raise error


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"), enough_memory(made(), "a training step", lambda: None):
        raise RuntimeError("shapes do not fit")


def test_memory_that_is_used_up_advises_what_is_left_to_do() -> None:
    saving = made(batch=1, checkpointing=True)
    words = (
        r"^the device's memory does not suffice for a step; a smaller resolution or precision = 'bf16' need a new run$"
    )
    with pytest.raises(UserError, match=words), enough_memory(saving, "a step", lambda: None):
        raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def test_a_step_that_fp16_leaves_out_is_no_divergence() -> None:
    size = window(made())
    found = history()
    found.noise_losses[:] = 1.0
    found.noise_losses[2 * size + 1, 1] = torch.inf
    assert diagnose(made(precision="fp16"), found, 3 * size) is None
    found.noise_losses[2 * size :] = 2 * DIVERGED
    assert "diverges" in str(diagnose(made(precision="fp16"), found, 3 * size))
