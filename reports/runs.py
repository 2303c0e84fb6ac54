"""Read run directories: `run.json`, `metrics.zarr`, `evaluation.zarr`. Nothing is taken for whole unless it is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from spectra.errors import UserError

FORMAT = 1
RECORD = (
    "name", "method", "prior", "model", "model_hash", "data", "seed", "steps", "config", "trainable_parameters",
    "seconds_train", "peak_memory_mib", "versions", "command",
)  # fmt: skip
METRICS = {"validation_error": ("eval_step", "level", "sample", "draw")}
EVALUATION = {
    "image": ("source", "sample", "y", "x", "rgb"),
    "energy": ("source", "sample", "channel", "band"),
    "spectrum": ("source", "sample", "radius"),
}
SOURCES = ("base", "adapter", "reference")


@dataclass(frozen=True)
class Run:
    """One finished training run."""

    path: Path
    record: dict[str, Any]
    metrics: xr.Dataset = field(repr=False)
    evaluation: xr.Dataset = field(repr=False)

    @property
    def seed(self) -> int:
        """The training seed."""
        return int(self.record["seed"])

    @property
    def config(self) -> dict[str, Any]:
        """The run's configuration as it was written."""
        return dict(self.record["config"])


def read_record(path: Path) -> dict[str, Any]:
    """The checked contents of `path/run.json`."""
    file = path / "run.json"
    if not file.is_file() and (path / "config.json").is_file():
        raise UserError(
            f"{path} is an unfinished run: give its `adapt train` again, which goes on from its last state."
        )
    if not file.is_file():
        raise UserError(
            f"{path} is not a finished training run: it has no run.json; give folders that `adapt train` wrote."
        )
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as JSON ({error}); train this run again.") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise UserError(f"{file} is not of run format {FORMAT}; it was written by another version or program.")
    if record.get("status") != "complete":
        raise UserError(
            f"{path} is incomplete: its status is {record.get('status')!r}; finish the training or leave it out."
        )
    missing = [key for key in RECORD if key not in record]
    if missing or not isinstance(record["config"], dict):
        raise UserError(
            f"{file} is incomplete: it lacks {', '.join(missing) or 'a config table'}; train this run again."
        )
    return record


def read_store(path: Path, needed: Mapping[str, tuple[str, ...]]) -> xr.Dataset:
    """A zarr store in memory, with every variable of `needed` present, of the dimensions named, and finite."""
    if not path.is_dir():
        raise UserError(f"{path.parent} is incomplete: it has no {path.name}; train this run again.")
    try:
        data: xr.Dataset = xr.open_zarr(path, chunks=None, consolidated=False).load()
    except Exception as error:
        raise UserError(
            f"{path} cannot be read as a zarr store ({type(error).__name__}); train this run again."
        ) from None
    for name, dims in needed.items():
        if name not in data or set(data[name].dims) != set(dims):
            raise UserError(f"{path} is incomplete: it has no {name}({', '.join(dims)}); train this run again.")
        if 0 in data[name].shape:
            raise UserError(f"{path} is empty: {name} has no values; train this run again.")
        data[name] = data[name].transpose(*dims)
    return data


def read_run(path: Path) -> Run:
    """Read and check one run directory; UserError says what is wrong with it."""
    if not path.exists():
        raise UserError(f"{path} does not exist; give folders that `adapt train` wrote.")
    record = read_record(path)
    metrics = read_store(path / "metrics.zarr", METRICS)
    evaluation = read_store(path / "evaluation.zarr", EVALUATION)
    if "gates" in metrics:
        metrics["gates"] = metrics.gates.transpose("eval_step", "level", "sample", "expert")
    absent = [source for source in SOURCES if source not in evaluation.source.values]
    if absent:
        raise UserError(
            f"{path} has no {absent[0]} arm in evaluation.zarr; evaluate it with the base model and references."
        )
    if int(metrics.eval_step.values[0]) != 0:
        raise UserError(f"{path} has no base arm: its validation error before training (step 0) is missing.")
    for name, values in (("validation_error", metrics.validation_error), ("energy", evaluation.energy)):
        if not np.isfinite(values.values).all() or (values.values < 0).any():
            raise UserError(f"{path} holds a {name} that is not a finite positive number; the training went wrong.")
    return Run(path, record, metrics, evaluation)


def same(runs: Sequence[Run], key: str, what: str) -> None:
    """UserError unless all runs agree on `key` of their record."""
    first = runs[0]
    for run in runs[1:]:
        if run.record[key] != first.record[key]:
            raise UserError(
                f"{first.path} and {run.path} are of different {what} ({first.record[key]} and {run.record[key]}); "
                f"a report compares runs of one model on one data set."
            )


def same_grid(runs: Sequence[Run]) -> None:
    """UserError unless all runs were validated on the same grid: the untrained model has one error, cell by cell."""
    first = runs[0].metrics.validation_error[0]
    for run in runs[1:]:
        other = run.metrics.validation_error[0]
        if other.shape != first.shape or not np.allclose(other, first, rtol=0.05, atol=1e-4):
            raise UserError(
                f"{runs[0].path} and {run.path} were validated on different grids, as their errors before training "
                f"differ; train them with the same data and evaluation settings."
            )


def same_pictures(runs: Sequence[Run]) -> None:
    """UserError unless all runs generated for the same prompts and seeds, with bands and sizes that agree."""
    first = runs[0].evaluation
    for run in runs[1:]:
        other = run.evaluation
        alike = all(other[v].shape[1:] == first[v].shape[1:] for v in EVALUATION)
        alike = alike and all((other[c].values == first[c].values).all() for c in ("prompt", "seed"))
        if not alike:
            raise UserError(
                f"{runs[0].path} and {run.path} generated for different prompts, seeds or bands; "
                f"evaluate them with the same settings."
            )


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Read runs that may be compared with one another: same model, data, validation grid and prompts."""
    if not paths:
        raise UserError("there are no runs to report on; give at least one folder that `adapt train` wrote.")
    runs = [read_run(path) for path in sorted(set(paths))]
    same(runs, "model_hash", "models")
    same(runs, "data", "data sets")
    same_grid(runs)
    same_pictures(runs)
    return runs
