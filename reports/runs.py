"""Read run directories: `run.json`, `metrics.zarr`, `evaluation.zarr`. Nothing is taken for whole unless it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from spectra.errors import UserError

Array = NDArray[np.float64]
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
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
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

    @cached_property
    def errors(self) -> Array:
        """Validation errors (eval_step, level, sample), averaged over noise draws."""
        return np.asarray(self.metrics.validation_error.mean("draw").values, np.float64)

    @cached_property
    def energies(self) -> dict[str, Array]:
        """Band energies (prompt, band) of each source: sums over channels, means over sampling seeds."""
        energy = self.evaluation.energy.sum("channel").transpose("source", "sample", "band")
        sources = [str(source) for source in self.evaluation.source.values]
        return {source: self.by_prompt(values) for source, values in zip(sources, energy.values, strict=True)}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the adapter's files as `adapt evaluate` notes it; empty where they are not there."""
        files = [self.path / "adapter" / name for name in ADAPTER]
        if not all(file.is_file() for file in files):
            return ""
        lines = "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files)
        return hashlib.sha256(lines.encode()).hexdigest()

    def by_prompt(self, values: NDArray[np.floating[Any]]) -> Array:
        """Means (prompt, ...) of values (sample, ...): pictures of one prompt are not independent of each other."""
        prompts = [str(prompt) for prompt in self.evaluation.prompt.values]
        places = [[i for i, prompt in enumerate(prompts) if prompt == one] for one in dict.fromkeys(prompts)]
        return np.stack([values[place].astype(np.float64).mean(axis=0) for place in places])


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
        raise UserError(f"{path} does not exist; give folders that `adapt train` or `adapt evaluate` wrote.")
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
