"""What the parts of a run's configuration have in common: strict, frozen, and types with their limits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _to_path(value: object) -> object:
    return Path(value).expanduser() if isinstance(value, str) else value


def _to_text(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


PathLike = Annotated[Path, BeforeValidator(_to_path)]
Source = Annotated[str, Field(min_length=1), BeforeValidator(_to_text)]
"""A folder, a file, a pattern of files or a name on the hub."""
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


class Settings(BaseModel):
    """One part of a configuration: unknown names and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=(), allow_inf_nan=False)
