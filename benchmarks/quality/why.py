"""Why routing helps as much as it does: `python -m benchmarks.quality.why --runs runs/quality --seeds 0`.

`adapt.instruments.examine` looks into final runs of a few arms, and a row of a small CSV keeps what bears on one
question: do noise levels ask for different things, does the adapter give them different things, and would gates that
knew less do as well?  Half a minute a run; runs that the CSV has are not looked at again.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from benchmarks.quality import command, words
from benchmarks.quality.control import best_finals
from benchmarks.quality.design import FULL
from benchmarks.quality.extra import ARMS
from benchmarks.quality.numbers import Place
from benchmarks.quality.run import OUT as RUNS

RESULT = Path("benchmarks/results/quality_why.csv")
CHOSEN = ("lora", "fera-prior", "fera-random", "fera-clock", "fera-clock-prior")
KEYS = ("model", "task", "arm", "rate", "seed")
SAMPLES, DRAWS = 8, 2
"""Held-out pictures and noise draws of each that are looked at, at every noise level of the validation."""
QUIET = 0.2
"""Below this mean gate at every noise level an expert counts as unused; gates have mean one."""
MEASURES = {
    "near": "gradients, neighbouring levels",
    "far": "gradients, distant levels",
    "top_band": "gradient in the top band",
    "update_ends": "update, cleanest to noisiest",
    "gate_range": "range of gates",
    "quiet": "unused experts",
    "effects": "experts alike",
    "clock": "gates that are a clock",
    "level_mean": "error, clock's gates",
    "other_picture": "error, another picture's gates",
    "uniform": "error, uniform gates",
}
"""Measure -> heading of its column; `summarise` says what they are."""


def summarise(found: xr.Dataset) -> dict[str, float]:
    """A few numbers of what `examine` found; those of FeRA alone are missing for other methods.

    near, far: mean cosine, free of noise, between the gradients of neighbouring noise levels, and of levels at least
    half of the axis apart (1: they ask for the same; below 0: what one asks for harms the other).  top_band: share of
    the gradient with respect to the prediction that is in the highest octave, mean over levels.  update_ends: cosine of
    the gated updates at the cleanest and the noisiest level.  gate_range: largest less smallest mean gate along the
    levels, mean over experts.  quiet: experts whose mean gate is below `QUIET` at every level.  effects: mean cosine of
    what two experts do to the prediction.  clock: share of the variance of the gates that lies between noise levels.
    level_mean, other_picture, uniform: error with such gates in place of the router's, over the error with its own.
    """
    energy = found.gradient_energy.transpose("level", "band").values
    agreement = found.gradient_agreement.transpose("level", "level2").values
    apart = np.abs(np.subtract.outer(*2 * [np.arange(len(agreement))]))
    kept = {
        "near": float(np.nanmean(agreement[apart == 1])),
        "far": float(np.nanmean(agreement[apart >= len(agreement) / 2])),
        "top_band": float((energy[:, -1] / energy.sum(1)).mean()),
    }
    if "gates" not in found:
        return kept
    gates = found.gates.transpose("level", "expert").values
    effects = found.effect_cosine.transpose("level", "expert", "expert2").values
    pairs = np.triu_indices(gates.shape[1], 1)
    parts = found.gate_variance.transpose("source", "expert").values.sum(1)
    error = found.error_by_gates.mean(("level", "sample"))
    return kept | {
        "update_ends": float(found.update_cosine[0, -1]),
        "gate_range": float(np.ptp(gates, axis=0).mean()),
        "quiet": float((gates.max(0) < QUIET).sum()),
        "effects": float(np.nanmean(effects[:, *pairs])),
        "clock": float(parts[found.source.values.tolist().index("level")] / parts.sum()) if parts.sum() else np.nan,
        **{name: float(error.sel(gating=name) / error.sel(gating="own")) for name in error.gating.values[1:].tolist()},
    }


def look(runs: Path, place: Place, cache: Path) -> dict[str, Any]:
    """The row of one final run."""
    from adapt.instruments import examine

    data = runs / "data" / place.task
    found = examine(
        place.folder, eval_samples=SAMPLES, eval_draws=DRAWS, data=data / "train", heldout=data / "heldout", cache=cache
    )
    return {key: getattr(place, key) for key in KEYS} | summarise(found)


def read(path: Path = RESULT) -> list[dict[str, Any]]:
    """The rows that there are; none where nothing was looked at.  A number that a method lacks is NaN."""
    if not path.is_file():
        return []
    with path.open() as file:
        return [{k: v if k in KEYS[:3] else float(v or "nan") for k, v in row.items()} for row in csv.DictReader(file)]


def write(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Rows as CSV, by model, task, arm and seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([*KEYS, *MEASURES])
        for row in sorted(rows, key=place_of):
            numbers = (float(row.get(name, np.nan)) for name in MEASURES)
            table.writerow([*place_of(row), *("" if np.isnan(x) else f"{x:.4g}" for x in numbers)])


def place_of(row: dict[str, Any]) -> tuple[str, str, str, float, int]:
    """Which run a row is of."""
    return row["model"], row["task"], row["arm"], float(row["rate"]), int(row["seed"])


def examined(runs: Path, models: Sequence[str], arms: Sequence[str], seeds: Sequence[int], out: Path) -> int:
    """Look into all finished final runs of the arms at their best rates that `out` lacks; how many it has then."""
    rows = read(out)
    known = {place_of(row) for row in rows}
    for model in models:
        for task in FULL.tasks:
            for place in best_finals(runs, model, arms, seeds, task):
                if (place.model, place.task, place.arm, place.rate, place.seed) not in known:
                    rows.append(look(runs, place, runs / "cache"))
                    write(rows, out)
                    print(f"{place.model} {place.task} {place.arm} seed {place.seed}", flush=True)
    return len(rows)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Means over training seeds, a row for each arm in each cell."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for model in FULL.models:
        for task in FULL.tasks:
            for arm in ARMS:
                found = [row for row in rows if (row["model"], row["task"], row["arm"]) == (model, task, arm)]
                if found:
                    groups[model, task, arm] = found
    shown = [
        [words.cell_name(key[:2]), f"`{key[2]}`", str(len(found)), *(mean(found, name) for name in MEASURES)]
        for key, found in groups.items()
    ]
    return words.table(["cell", "arm", "seeds", *MEASURES.values()], shown)


def mean(rows: Sequence[dict[str, Any]], name: str) -> str:
    """A measure, mean over rows."""
    value = float(np.mean([row[name] for row in rows]))
    digits = 3 if name in ("level_mean", "other_picture", "uniform") else 2
    return "-" if np.isnan(value) else f"{value:.{digits}f}"


def main() -> int:
    """Entry point."""
    parser = command.parser(__doc__)
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder that `benchmarks.quality.run` wrote")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--models", nargs="+", choices=FULL.models, default=list(FULL.models))
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(CHOSEN))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="training seeds")
    given = parser.parse_args()

    def work() -> None:
        count = examined(given.runs, given.models, given.arms, given.seeds, given.out)
        print(f"{given.out}: {count} runs")

    return command.ended("quality.why", work)


if __name__ == "__main__":
    sys.exit(main())
