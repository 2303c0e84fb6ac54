"""What a path that somebody gives is: a run directory, an evaluation, or a cube. Nothing is opened to find out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from spectra.errors import UserError

Kind = Literal["run", "evaluation", "cube"]
IN_A_RUN = ("metrics.zarr", "evaluation.zarr")


@dataclass(frozen=True)
class Given:
    """Paths by what they are, each sorted and once."""

    runs: tuple[Path, ...]
    evaluations: tuple[Path, ...]
    cubes: tuple[Path, ...]


def root_attributes(path: Path) -> dict[str, Any]:
    """The attributes of a zarr store's root group; empty where it has none that can be read."""
    try:
        found = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
        return dict(found.get("attributes", {}))
    except (OSError, ValueError, AttributeError):
        return {}


def kind_of(path: Path) -> Kind:
    """What a path is, by what lies in it; what is none of the others is taken for a run, whose reader says why not."""
    if not path.is_dir() or (path / "run.json").exists() or not (path / "zarr.json").is_file():
        return "run"
    if path.name in IN_A_RUN and (path.parent / "run.json").is_file():
        raise UserError(f"{path} is part of a training run; give the run's folder, {path.parent}.")
    return "evaluation" if "protocol" in root_attributes(path) else "cube"


def sort_out(paths: Sequence[Path]) -> Given:
    """Sort paths by kind; a path that is given twice counts once."""
    by_kind: dict[Kind, list[Path]] = {"run": [], "evaluation": [], "cube": []}
    for path in sorted(set(paths)):
        by_kind[kind_of(path)].append(path)
    return Given(tuple(by_kind["run"]), tuple(by_kind["evaluation"]), tuple(by_kind["cube"]))
