"""Where a run is kept, and what survives an interruption."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from adapt.settings.base import Count, PathLike, Settings


class RunSettings(Settings):
    """The model, the run directory, its checkpoints and its trackers."""

    model: str = Field(min_length=1, description="bundled name, alias, folder or hub id of the pipeline")
    out: PathLike = Field(description="run directory to write; a finished one is not replaced")
    overwrite: bool = Field(False, description="replace `out` if it is a finished run")
    checkpoint_every: Count | None = Field(
        None, description="save the state of the run every so many steps; default: with each validation"
    )
    keep_checkpoints: Count = Field(1, description="how many states are kept")
    resume: bool = Field(True, description="go on from the newest state if the run was interrupted")
    trackers: list[Literal["tensorboard", "wandb"]] = Field(
        [], description='where to log beside the run directory, such as ["tensorboard"]'
    )
    project: str = Field("adapt", min_length=1, description="project name for the trackers")
