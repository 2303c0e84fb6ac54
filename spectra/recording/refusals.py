"""Pipelines whose steps are no trajectory of one tensor at one noise level, and why.

They are refused before anything is generated: their numbers would look like any other's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from spectra.errors import UserError

GIVEN = "is given its first frame and steps only those after it, which would be taken for all"
SECTIONS = "generates its video section by section, each from new noise"
COPIES = "steps copies of its scheduler, one per frame, each frame at a noise level of its own"
TOKENS = "steps each token at a noise level of its own"


def _token_replace(pipe: Any) -> str:
    return GIVEN if pipe.transformer.config.image_condition_type == "token_replace" else ""


def _expanded(pipe: Any) -> str:
    return GIVEN if pipe.config.expand_timesteps else ""


# Solvers that have to start at the beginning, and a relative that does not.
BEGINNERS = {"PNDMScheduler": "DDIMScheduler", "LMSDiscreteScheduler": "EulerDiscreteScheduler"}

# By the beginnings of class names; a function looks at the pipeline and says why not, if so.
REFUSED: dict[str, str | Callable[[Any], str]] = {
    **dict.fromkeys(("LTXImageToVideo", "LTX2ImageToVideo", "SanaImageToVideo", "Kandinsky5I2V"), GIVEN),
    "HunyuanVideoImageToVideo": _token_replace,
    "WanImageToVideo": _expanded,
    **dict.fromkeys(("HunyuanVideoFramepack", "WanAnimate", "LTXI2VLong"), SECTIONS),
    "SkyReelsV2DiffusionForcing": COPIES,
    **dict.fromkeys(("LTXCondition", "LTX2Condition"), TOKENS),
}


def check_recordable(pipe: Any) -> None:
    """Raise UserError if what this pipeline steps cannot be recorded."""
    for base in type(pipe).__mro__:
        reasons = [reason for prefix, reason in REFUSED.items() if base.__name__.startswith(prefix)]
        for reason in reasons:
            if words := reason if isinstance(reason, str) else reason(pipe):
                raise UserError(f"{type(pipe).__name__} {words}: it cannot be recorded; try its text-to-video pipeline")


def check_start(scheduler: Any, timestep: Any) -> None:
    """Raise UserError for a solver that begins in the middle of a schedule as if it had come from its beginning.

    PNDM repeats its warm-up there and LMS weighs slopes that it has not seen: from then on their states hold other
    amounts of noise than their timesteps say.
    """
    names = {base.__name__ for base in type(scheduler).__mro__}
    other = next((better for name, better in BEGINNERS.items() if name in names), "")
    if other and float(timestep) != float(scheduler.timesteps[0]):
        raise UserError(
            f"{type(scheduler).__name__} goes wrong where it starts in the middle of its schedule: its states have not "
            f"the noise of their timesteps; change pictures with {other}"
        )


def check_step(given: Mapping[str, Any]) -> None:
    """Raise UserError if a scheduler is asked to step tokens at levels of their own."""
    if given.get("per_token_timesteps") is not None:
        raise UserError(f"the pipeline {TOKENS}, so its states have no common one: they cannot be recorded")
