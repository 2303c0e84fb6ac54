"""What the network is asked to predict, at which noise levels, and how errors are weighted."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from adapt.settings.base import Positive, Settings, Share


class ObjectiveSettings(Settings):
    """The loss of a step, but for FeRA's own terms."""

    timesteps: Literal["uniform", "logit_normal", "mode", "cosmap", "prior"] = Field(
        "uniform", description="spread of the training noise levels; `prior`: where the data's bands emerge"
    )
    logit_mean: float = Field(0.0, description="mean of logit_normal; above 0: noisier")
    logit_std: Positive = Field(1.0, description="deviation of logit_normal")
    mode_scale: float = Field(1.29, ge=-1.0, le=1.75, description="scale of `mode` sampling")
    shift: Positive | None = Field(None, description="shift of a flow's noise levels; default: the model's own")
    weighting: Literal["none", "min_snr", "soft_min_snr", "debiased", "sigma_sqrt", "cosmap"] = Field(
        "none", description="weight of the squared error by noise level"
    )
    gamma: Positive = Field(5.0, description="gamma of min_snr and soft_min_snr")
    caption_dropout: Share = Field(0.1, description="share of the samples trained with the empty prompt")
    ot_coupling: bool = Field(
        False, description="pair noise with pictures of a batch by optimal transport (flow models)"
    )
