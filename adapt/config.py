"""The configuration of a training run: strict, complete, and the same in Python, TOML and on the command line."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from spectra.errors import UserError

MethodName = Literal["fera", "lora"]

LEARNING_RATES: dict[str, tuple[float, float]] = {"lora": (8e-3, 1e-4), "fera": (8e-3, 1e-4)}
"""Peak learning rates by method: for denoisers of fewer than `SMALL` parameters, and for larger ones.

The small ones suit the bundled `mini` (style task, 120 steps, one seed: LoRA's error fell from 4e-3 to 1.2e-2 and
diverged at 2.4e-2); the large ones are customary and were not tuned here.
"""
SMALL = 50_000_000


def learning_rate(method: str, parameters: int) -> float:
    """The default peak learning rate of a method for a denoiser with so many parameters."""
    small, large = LEARNING_RATES[method]
    return small if parameters < SMALL else large


def _to_path(value: object) -> object:
    return Path(value).expanduser() if isinstance(value, str) else value


PathLike = Annotated[Path, BeforeValidator(_to_path)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class TrainConfig(BaseModel):
    """Everything that decides a training run.

    Raises:
        UserError: an unknown setting (with the nearest known one), a missing one, or a value out of range.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=(), allow_inf_nan=False)

    model: str = Field(min_length=1, description="bundled name, alias, folder or hub id of the pipeline")
    data: PathLike = Field(description="folder of captioned pictures, or one with `train` and `heldout` inside")
    out: PathLike = Field(description="run directory to write; must not exist")
    heldout: PathLike | None = Field(
        None, description="captioned pictures to measure on; default: beside or out of `data`"
    )
    method: MethodName = Field("fera", description="adapter to train")
    prior: PathLike | None = Field(None, description="probed cube (.zarr) or saved prior (.json) that FeRA starts from")

    steps: Count = Field(400, description="optimizer steps")
    batch: Count = Field(16, description="pictures a step, over all processes")
    lr: Annotated[float, Field(gt=0)] | None = Field(
        None, description="peak learning rate; default: by method and size"
    )
    warmup: Share = Field(0.05, description="share of the steps over which the learning rate rises")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="AdamW's weight decay")
    clip: Annotated[float, Field(gt=0)] = Field(1.0, description="largest norm of the gradient")
    rank: Count = Field(12, description="total rank; FeRA splits it over its experts")
    experts: Count = Field(3, description="experts of FeRA")
    targets: list[str] | None = Field(
        None, min_length=1, description="endings of layer names; default: by denoiser class"
    )
    caption_dropout: Share = Field(0.1, description="share of the samples trained with the empty prompt")
    timesteps: Literal["uniform", "logit_normal"] = Field("uniform", description="spread of the training noise levels")
    min_snr: Annotated[float, Field(gt=0)] | None = Field(
        None, description="gamma of min-SNR weighting (denoising models)"
    )
    fecl_weight: Annotated[float, Field(ge=0)] = Field(0.0, description="weight of FeRA's consistency loss")
    fecl_every: Count = Field(1, description="apply that loss on every k-th step")
    fecl_warmup: Share = Field(0.1, description="share of the steps over which its weight rises")
    seed: Annotated[int, Field(ge=0)] = Field(0, description="decides adapter start, data order, noise and timesteps")

    eval_every: Count | None = Field(None, description="validate every so many steps; default: an eighth of them")
    eval_samples: Count = Field(16, description="held-out pictures to validate on")
    eval_draws: Count = Field(2, description="noise draws for each of them")
    eval_levels: Annotated[int, Field(ge=2)] = Field(8, description="noise levels for each draw")
    sample_prompts: Count = Field(8, description="held-out captions to generate pictures for")
    sample_seeds: list[Annotated[int, Field(ge=0)]] = Field([0], min_length=1, description="seeds for each caption")
    sample_steps: Count = Field(20, description="sampler steps of those pictures")
    guidance: Annotated[float, Field(ge=0)] = Field(3.0, description="guidance scale of those pictures")

    precision: Literal["no", "bf16", "fp16"] = Field("no", description="mixed precision of the training steps")
    threads: Count | None = Field(None, description="CPU threads; default: torch's own choice")
    cache: PathLike | None = Field(None, description="folder of the encoding cache; default: the user's")
    overwrite: bool = Field(False, description="replace `out` if it is a finished run")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UserError("; ".join(_sentence(dict(found)) for found in error.errors())) from None

    @model_validator(mode="after")
    def _fits_together(self) -> TrainConfig:
        if self.method == "fera" and self.rank % self.experts:
            raise ValueError(f"rank {self.rank} is not a multiple of the {self.experts} experts that share it")
        for name in ("prior", "fecl_weight"):
            if self.method != "fera" and getattr(self, name):
                raise ValueError(f"{name} belongs to FeRA; leave it out, or choose method 'fera'")
        if self.prior is not None and self.prior.suffix not in (".zarr", ".json"):
            raise ValueError(f"prior {str(self.prior)!r} is neither a probed cube (.zarr) nor a saved prior (.json)")
        return self

    @classmethod
    def from_toml(cls, path: Path | str, **overrides: Any) -> TrainConfig:
        """Read a TOML file of settings; `overrides` win over it.  Paths are relative to the working directory."""
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"cannot read the configuration {path}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"the configuration {path} is not TOML: {error}") from None
        return cls(**(values | overrides))

    @property
    def validate_every(self) -> int:
        """Steps between two validations."""
        return self.eval_every or max(1, self.steps // 8)

    def record(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        return self.model_dump(mode="json")


def _sentence(error: dict[str, Any]) -> str:
    """One of pydantic's findings in words."""
    name = ".".join(str(part) for part in error["loc"] if not str(part).startswith("function-"))
    kind, given = error["type"], error.get("input")
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(name, TrainConfig.model_fields, n=1, cutoff=0.5)
        return f"unknown setting {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    if kind == "missing":
        return f"the setting {name!r} is missing"
    if kind == "value_error":
        return str(error["ctx"]["error"])
    if kind == "too_short":
        return f"the setting {name!r} should not be an empty list"
    message = error["msg"].removeprefix("Input ").replace("a valid integer", "a whole number").replace("valid ", "")
    return f"the setting {name!r} {message}, got {given!r}"
