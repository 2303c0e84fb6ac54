"""The configuration of a training run: strict, complete, and the same in Python, TOML and on the command line."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from adapt.settings import (
    DataSettings,
    MeasureSettings,
    MethodSettings,
    ObjectiveSettings,
    OptimiseSettings,
    RunSettings,
)
from spectra.errors import UserError

LEARNING_RATES: dict[str, tuple[float, float]] = {
    "fera": (8e-3, 1e-4),
    "lora": (8e-3, 1e-4),
    "dora": (8e-3, 1e-4),
    "adalora": (2e-2, 5e-4),
    "loha": (2e-2, 2e-4),
    "lokr": (3e-2, 5e-4),
    "oft": (1e-2, 1e-4),
    "ia3": (3e-2, 3e-3),
    "full": (1e-3, 1e-5),
}
"""Peak learning rates by method: for denoisers of fewer than `SMALL` parameters, and for larger ones.

The small ones suit the bundled `mini` (style task).  LoRA's were looked at over 120 steps, one seed: its error fell
from 4e-3 to 1.2e-2 and diverged at 2.4e-2.  Those of the other methods come from runs of 20 steps with 4 pictures
each, one seed and rank 12 (LoHa, LoKr and AdaLoRA: between rates that were run), which say what learns and does not
diverge, and not which rate is best: at 8e-3 these three were far behind LoRA.  The large ones are customary or guessed
from these ratios, and were not tuned here.
"""
SMALL = 50_000_000


_NAMES = list(MethodSettings.model_fields)
FERA_ONLY = _NAMES[_NAMES.index("prior") :]
"""Settings that mean nothing to other methods."""
FOR_TIMESTEPS = ("prior", "prior_data")
"""Those of them that any method may have where its noise levels follow the prior."""


_DREAMBOOTH = ("class_data", "class_caption")
NEEDS: dict[str, tuple[tuple[str, ...], tuple[Any, ...]]] = {
    "logit_mean": (("timesteps",), ("logit_normal",)), "logit_std": (("timesteps",), ("logit_normal",)),
    "mode_scale": (("timesteps",), ("mode",)), "gamma": (("weighting",), ("min_snr", "soft_min_snr")),
    "bucket_step": (("buckets",), ()), "class_weight": (_DREAMBOOTH, ()), "class_count": (("class_caption",), ()),
    "prior_data": (("prior",), ()), "overlap": (("prior",), ()), "router_start": (("prior",), ()),
    "fecl_form": (("fecl_weight",), ()), "fecl_every": (("fecl_weight",), ()), "fecl_share": (("fecl_weight",), ()),
    "fecl_warmup": (("fecl_weight",), ()), "preview_prompts": (("preview_every",), ()), "project": (("trackers",), ()),
}  # fmt: skip
"""Settings that say nothing by themselves -> the settings of which one has to be given, and its values, if not any."""


def learning_rate(method: str, parameters: int) -> float:
    """The default peak learning rate of a method for a denoiser with so many parameters."""
    small, large = LEARNING_RATES[method]
    return small if parameters < SMALL else large


class TrainConfig(
    MeasureSettings, ObjectiveSettings, OptimiseSettings, MethodSettings, DataSettings, RunSettings
):  # the last part comes first in the list of settings
    """Everything that decides a training run; its parts are in `adapt.settings`.

    Raises:
        UserError: an unknown setting (with the nearest known one), a missing one, or a value out of range.
    """

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UserError("; ".join(_sentence(dict(found)) for found in error.errors())) from None

    @model_validator(mode="after")
    def _fits_together(self) -> TrainConfig:
        self._check_fera()
        if self.method == "fera" and self.expert != "ia3":
            self._check_rank()
        if self.prior is not None and self.prior.suffix not in (".zarr", ".json"):
            raise ValueError(f"prior {str(self.prior)!r} is neither a probed cube (.zarr) nor a saved prior (.json)")
        return self

    def _check_fera(self) -> None:
        """ValueError where a setting of FeRA is given to another method."""
        free = FOR_TIMESTEPS if self.timesteps == "prior" else ()
        fields = type(self).model_fields
        given = [name for name in FERA_ONLY if getattr(self, name) != fields[name].default and name not in free]
        if self.method != "fera" and given:
            raise ValueError(f"{given[0]} belongs to FeRA; leave it out, or choose method 'fera'")

    def _check_rank(self) -> None:
        """ValueError where the experts cannot share the rank evenly, one or more each."""
        routed, always = self.rank - self.shared_rank, f", of which {self.shared_rank} is always on,"
        if routed < self.experts:
            raise ValueError(f"rank {self.rank}{always * bool(self.shared_rank)} leaves less than 1 for each expert")
        if routed % self.experts and self.shared_rank:
            raise ValueError(f"rank {self.rank}{always} cannot be split evenly over {self.experts} experts")
        if routed % self.experts:
            raise ValueError(f"rank {self.rank} is not a multiple of the {self.experts} experts that share it")

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

    def unused(self) -> list[str]:
        """What was set and has no effect, in sentences; no error, so that one setting at a time can be left out."""
        fields = type(self).model_fields
        found = []
        for name, (wanted, values) in NEEDS.items():
            given = [getattr(self, one) for one in wanted]
            works = any(value in values if values else bool(value) for value in given)
            if getattr(self, name) != fields[name].default and not works:
                need = " or ".join(f"{one} = {value!r}" for one in wanted for value in values) or " or ".join(wanted)
                found.append(f"{name} is set and has no effect without {need}")
        return found

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
