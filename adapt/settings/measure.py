"""What is measured and drawn while and after training."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from adapt.settings.base import Count, NonNegative, Settings


class MeasureSettings(Settings):
    """Validation on a fixed grid, and pictures."""

    eval_every: Count | None = Field(None, description="validate every so many steps; default: an eighth of them")
    eval_samples: Count = Field(16, description="held-out pictures to validate on")
    eval_draws: Count = Field(2, description="noise draws for each of them")
    eval_levels: Annotated[int, Field(ge=2)] = Field(8, description="noise levels for each draw")
    ablate: bool = Field(True, description="at the end, measure what each expert does by switching it off (FeRA)")
    sample_prompts: Count = Field(8, description="held-out captions to generate pictures for")
    sample_seeds: list[Annotated[int, Field(ge=0)]] = Field([0], min_length=1, description="seeds for each caption")
    sample_steps: Count = Field(20, description="sampler steps of those pictures")
    guidance: NonNegative = Field(3.0, description="guidance scale of those pictures")
    preview_every: Count | None = Field(None, description="draw preview pictures every so many steps; default: never")
    preview_prompts: list[str] | None = Field(
        None, min_length=1, description="list of what previews show; default: held-out captions"
    )
