"""The numbers of an experiment: from a folder of runs, however incomplete, to one small Dataset.

Every table and figure of the results is made from this Dataset alone, so that whoever has it (a megabyte, in git) can
do the statistics again without training anything.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from benchmarks.quality.extra import ARMS
from benchmarks.quality.run import FAILED, error_of
from spectra.errors import UserError

Array = NDArray[np.float64]
Cell = tuple[str, str]
"""A model and a task."""

SOURCES = ("base", "adapter", "reference")
EXPERTS = 4
"""Most experts of any arm; arms with fewer have no numbers in the last places."""


@dataclass(frozen=True)
class Place:
    """Where a run of the experiment lies, and so which it is."""

    folder: Path
    model: str
    task: str
    arm: str
    rate: float
    seed: int


def places(runs: Path, stage: str) -> Iterator[Place]:
    """Folders of a stage (`sweep`, `final` or `confirm`) that hold a finished or a failed run, in a fixed order."""
    for folder in sorted((runs / stage).glob("*/*/*/*/seed*")):
        model, task, arm, rate, seed = folder.parts[-5:]
        if arm in ARMS and ((folder / "run.json").is_file() or (folder / FAILED).is_file()):
            yield Place(folder, model, task, arm, float(rate), int(seed.removeprefix("seed")))


def collect(runs: Path) -> xr.Dataset:
    """All finished runs: finals with their errors, pictures and gates along `run`, those of the sweep along `trial`.

    Raises:
        UserError: there is no finished final run.
    """
    data = finished(runs, "final")
    if data is None:
        raise UserError(
            f"{runs} holds no finished final run; run `python -m benchmarks.quality.run --out {runs}` first"
        )
    return data.assign(trials(runs))


def finished(runs: Path, stage: str) -> xr.Dataset | None:
    """The finished runs of a stage, along `run`; None where there are none."""
    there = [place for place in places(runs, stage) if (place.folder / "run.json").is_file()]
    read = [read_final(place) for place in there]
    return xr.concat(read, "run", join="outer", coords="minimal", compat="override") if read else None


def trials(runs: Path) -> dict[str, Any]:
    """The sweep, one row a run: which it is and its final error, infinite where it failed."""
    found = list(places(runs, "sweep"))
    columns: dict[str, Any] = {
        f"trial_{name}": ("trial", [getattr(place, name) for place in found])
        for name in ("model", "task", "arm", "rate", "seed")
    }
    return columns | {"trial_error": ("trial", np.array([error_of(place.folder) for place in found], np.float64))}


def read_final(place: Place) -> xr.Dataset:
    """What is kept of a final run.

    error(level, sample) at the end, curve(eval_step, sample) over levels, energy(source, picture, band) over channels,
    attribute_right(source, picture, attribute), gate(moment, level, expert) at the start and the end of training.
    """
    record = json.loads((place.folder / "run.json").read_text())
    metrics, drawn = open_store(place.folder / "metrics.zarr"), open_store(place.folder / "evaluation.zarr")
    errors = metrics.validation_error.mean("draw").transpose("eval_step", "level", "sample").values.astype(np.float32)
    prompts = [str(prompt) for prompt in drawn.prompt.values]
    names = {name: getattr(place, name) for name in ("model", "task", "arm", "rate", "seed")}
    facts = {"parameters": record["trainable_parameters"], "seconds": record["seconds_train"]}
    variables: dict[str, Any] = {
        "error": (("level", "sample"), errors[-1]),
        "curve": (("eval_step", "sample"), errors.mean(1)),
        "log_snr": ("level", metrics.log_snr.values.astype(np.float32)),
        "energy": (("source", "picture", "band"), per_source(drawn.energy.sum("channel"), "band")),
        "prompt": ("picture", np.array([prompts.index(prompt) for prompt in prompts], np.int16)),
        "gate": (("moment", "level", "expert"), gates(metrics)),
    }
    coords: dict[str, Any] = {"eval_step": metrics.eval_step.values, "source": list(SOURCES)}
    if "attribute_right" in drawn:
        right = per_source(drawn.attribute_right, "attribute")
        variables["attribute_right"] = (("source", "picture", "attribute"), right)
        coords["attribute"] = [str(name) for name in drawn.attribute.values]
    return xr.Dataset(variables | {name: ((), value) for name, value in (names | facts).items()}, coords)


def per_source(values: xr.DataArray, last: str) -> NDArray[np.float32]:
    """Values (source, picture, last) with the sources in one order."""
    ordered = values.sel(source=list(SOURCES)).transpose("source", "sample", last)
    return np.asarray(ordered.values, np.float32)


def gates(metrics: xr.Dataset) -> NDArray[np.float32]:
    """Mean gates (moment, level, expert) over samples at the start and the end of training; NaN for arms without."""
    found = np.full((2, metrics.sizes["level"], EXPERTS), np.nan, np.float32)
    if "gates" in metrics:
        means = metrics.gates.transpose("eval_step", "level", "sample", "expert").values[[0, -1]].mean(2)
        found[..., : means.shape[-1]] = means
    return found


def open_store(path: Path) -> xr.Dataset:
    """A zarr store, read when its variables are used."""
    data: xr.Dataset = xr.open_zarr(path, chunks=None, consolidated=False)
    return data


def save(numbers: xr.Dataset, path: Path) -> None:
    """Write the Dataset with one compressed chunk a variable, in place of what was there."""
    shutil.rmtree(path, ignore_errors=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    encoding = {name: {"chunks": var.shape} for name, var in numbers.variables.items() if var.ndim}
    retyped(numbers, "U", np.dtypes.StringDType()).to_zarr(path, mode="w", consolidated=False, encoding=encoding)


def load(path: Path) -> xr.Dataset:
    """The Dataset that `save` wrote, in memory."""
    if not path.is_dir():
        raise UserError(f"{path} does not exist; give --runs, a folder of runs, to make it")
    return retyped(open_store(path).load(), "T", np.dtype(np.str_))


def retyped(data: xr.Dataset, kind: str, dtype: np.dtype[Any]) -> xr.Dataset:
    """Texts of one kind as another: zarr knows those of any length, comparisons are quick with a fixed one."""
    names = [name for name, var in data.variables.items() if var.dtype.kind == kind]
    changed = {name: (data[name].dims, np.array(data[name].values.tolist(), dtype)) for name in names}
    coords = {name: value for name, value in changed.items() if name in data.coords}
    return data.assign({k: v for k, v in changed.items() if k not in coords}).assign_coords(coords)


def cells(numbers: xr.Dataset) -> list[Cell]:
    """The cells that have final runs, in the order of the design."""
    from benchmarks.quality.design import FULL

    there = set(zip(numbers.model.values.tolist(), numbers.task.values.tolist(), strict=True))
    return [(model, task) for model in FULL.models for task in FULL.tasks if (model, task) in there]


def arms_of(numbers: xr.Dataset) -> list[str]:
    """The arms with final runs in some cell, in the order of the design."""
    there = set(numbers.arm.values.tolist())
    return [arm for arm in ARMS if arm in there]


def sweep_of(numbers: xr.Dataset, cell: Cell, arm: str) -> dict[float, float]:
    """Rate -> mean error over the seeds of the sweep, by ascending rate."""
    here = matching(numbers, "trial_", cell, arm)
    rates, errors = numbers.trial_rate.values[here], numbers.trial_error.values[here]
    return {float(rate): float(errors[rates == rate].mean()) for rate in np.unique(rates)}


def matching(numbers: xr.Dataset, prefix: str, cell: Cell, arm: str) -> NDArray[np.int64]:
    """Positions of the runs of one arm in one cell, among the finals (no prefix) or in the sweep (`trial_`)."""
    model, task, arms = (numbers[f"{prefix}{name}"].values for name in ("model", "task", "arm"))
    return np.flatnonzero((model == cell[0]) & (task == cell[1]) & (arms == arm))


def rows_of(numbers: xr.Dataset, cell: Cell, arm: str) -> NDArray[np.int64]:
    """Positions along `run` of an arm's final runs at its best rate, by ascending seed."""
    rows = matching(numbers, "", cell, arm)
    rates = numbers.rate.values
    if len(set(rates[rows].tolist())) > 1:
        swept = sweep_of(numbers, cell, arm)
        best = min(set(rates[rows].tolist()), key=lambda rate: swept.get(rate, np.inf))
        rows = rows[rates[rows] == best]
    return np.asarray(rows[np.argsort(numbers.seed.values[rows])], np.int64)


def common(numbers: xr.Dataset, cell: Cell, arms: Sequence[str]) -> list[NDArray[np.int64]]:
    """Rows of each arm for the training seeds that all of them have, paired by seed."""
    found = [rows_of(numbers, cell, arm) for arm in arms]
    seeds = set.intersection(*({int(s) for s in numbers.seed.values[rows]} for rows in found))
    return [np.array([row for row in rows if int(numbers.seed.values[row]) in seeds], np.int64) for rows in found]


def curve_of(numbers: xr.Dataset, rows: NDArray[np.int64]) -> tuple[Array, Array]:
    """Steps at which some runs were evaluated (evaluations,) and their learning curves (run, evaluations, sample).

    Arms with a length of their own are evaluated at steps at which others are not.
    """
    found = numbers.curve.isel(run=rows).dropna("eval_step", how="all").dropna("sample", how="all")
    ordered = found.transpose("run", "eval_step", "sample").values
    return np.asarray(found.eval_step.values, np.float64), np.asarray(ordered, np.float64)


def values_of(numbers: xr.Dataset, name: str, rows: NDArray[np.int64]) -> Array:
    """A variable at some runs, (run, ...), without the padding that other runs made necessary."""
    part = numbers[name].isel(run=rows)
    for dim in part.dims[1:]:
        part = part.dropna(dim, how="all")
    return np.asarray(part.values, np.float64)
