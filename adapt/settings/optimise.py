"""How weights move: steps, learning rate, optimizer, precision."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from adapt.settings.base import Count, NonNegative, Positive, Settings, Share


class OptimiseSettings(Settings):
    """The optimizer and what it costs."""

    steps: Count = Field(400, description="optimizer steps")
    batch: Count = Field(16, description="pictures a step, over all processes and accumulated parts")
    accumulate: Count = Field(1, description="parts that a batch is computed in, to save memory")
    lr: Positive | None = Field(None, description="peak learning rate; default: by method and size")
    lr_schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="course after the warm-up")
    warmup: Share = Field(0.05, description="share of the steps over which the learning rate rises")
    optimizer: Literal["adamw", "adamw8bit", "prodigy", "adafactor", "sgd"] = Field(
        "adamw", description="what moves the weights; others than adamw need their packages"
    )
    weight_decay: NonNegative = Field(0.0, description="weight decay")
    clip: Positive = Field(1.0, description="largest norm of the gradient")
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="decay of a moving average of the weights, which is then measured and saved"
    )
    seed: Annotated[int, Field(ge=0)] = Field(0, description="decides adapter start, data order, noise and timesteps")
    precision: Literal["no", "bf16", "fp16"] = Field("no", description="mixed precision of the training steps")
    checkpointing: bool = Field(False, description="recompute activations in the backward pass, to save memory")
    compile: bool = Field(False, description="compile the repeated blocks of the denoiser")
    threads: Count | None = Field(None, description="CPU threads; default: torch's own choice")
