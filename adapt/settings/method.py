"""Which adapter is trained, and how FeRA is set up."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from adapt.settings.base import Count, Natural, NonNegative, PathLike, Positive, Settings, Share

MethodName = Literal["fera", "lora", "dora", "adalora", "loha", "lokr", "oft", "ia3", "full"]


class MethodSettings(Settings):
    """The adapter; from `prior` on all is FeRA's alone, but that any method's noise levels may follow a prior."""

    method: MethodName = Field("fera", description="adapter to train; `full` trains every weight of the denoiser")
    rank: Count = Field(12, description="total rank; FeRA splits it over its experts, OFT has blocks of that size")
    alpha: Positive | None = Field(
        None, description="the update is scaled by alpha / rank; default: the rank, and 1 in published mode"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the adapter's input")
    targets: list[str] | None = Field(
        None,
        min_length=1,
        description='endings of layer names (`*` is any one part), or ["attention"]; default: by denoiser class',
    )
    start_from: PathLike | None = Field(None, description="run or adapter folder of the same method to go on from")
    text_encoder: bool = Field(False, description="train a LoRA of the text encoders too, with the same rank")

    prior: PathLike | None = Field(None, description="probed cube (.zarr) or saved prior (.json) that FeRA starts from")
    prior_data: PathLike | None = Field(
        None, description="cube of `spectra probe --data` that a prior from a cube learns from too"
    )
    fera_mode: Literal["exact", "published"] = Field(
        "exact", description="`published`: the semantics of the paper's code"
    )
    experts: Count = Field(3, description="experts of FeRA")
    expert: Literal["lora", "ia3", "dora", "loha"] = Field(
        "lora",
        description="kind of FeRA's experts; loha has twice the weights of lora at equal rank",
    )
    shared_rank: Natural = Field(0, description="part of the rank that is always on, beside the routed experts")
    router: Literal["energy", "energy+snr", "energy+clock", "clock", "uniform"] = Field(
        "energy",
        description="what the gates follow: band energies, also relative to the noise, the noise level, nothing",
    )
    router_start: Literal["prior", "random"] = Field(
        "prior", description="`random` keeps a prior's bands and scaling only"
    )
    router_lr: Positive = Field(1.0, description="learning rate of the router, as a multiple of lr")
    bands: Count | None = Field(None, description="number of frequency bands; default: the prior's, else 4")
    tau: Positive | None = Field(None, description="temperature of the gates; default: the prior's, else 0.7")
    tau_end: Positive | None = Field(None, description="temperature at the end of training; default: it stays")
    overlap: Positive | None = Field(None, description="softness of a prior's start; default: the prior's own")
    balance_weight: NonNegative = Field(
        0.0,
        description="weight of the term that keeps every expert in use; needs several pictures in each part of a batch",
    )
    fecl_weight: NonNegative = Field(0.0, description="weight of FeRA's consistency loss")
    fecl_form: Literal["safe", "published"] = Field("safe", description="`published`: without stop-gradient and floor")
    fecl_every: Count = Field(1, description="apply that loss on every k-th step")
    fecl_share: Share = Field(1.0, description="share of the batch that it is applied to")
    fecl_warmup: Share = Field(0.1, description="share of the steps over which its weight rises")
