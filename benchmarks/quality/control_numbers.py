"""The numbers of the second stage (`benchmarks.quality.control`), and what the page says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from benchmarks.quality import words
from benchmarks.quality.control import SEEDS, TASK, store_of
from benchmarks.quality.design import FULL
from benchmarks.quality.drawn import Difference, difference
from benchmarks.quality.extra import ARMS
from benchmarks.quality.numbers import Array, Cell
from benchmarks.quality.summary import REFERENCE

BASE = "base"
FEATURES = "feature_world"
MEASURES = {
    "similarity": ("asked", "likeness to the subject"),
    "right": ("asked", "text heard, with the subject"),
    "right_ordinary": ("unrelated", "text heard, ordinary prompts"),
    "drift": ("unrelated", "drift on ordinary prompts"),
}
"""What the page shows: measure -> part of the prompts, and its heading."""


def collect(runs: Path) -> dict[str, Any]:
    """Variables along `drawing` (a model with an adapter or none) and `drawn` (a prompt and a noise); {} if none."""
    import adapt

    found = [
        reduced(adapt.open_evaluation(store_of(runs, model)), model)
        for model in FULL.models if store_of(runs, model).is_dir()
    ]  # fmt: skip
    if not found:
        return {}
    every: xr.Dataset = xr.concat(found, "drawing", data_vars="minimal", coords="minimal", compat="override")
    return {str(name): every[name] for name in every.data_vars}


def reduced(store: xr.Dataset, model: str) -> xr.Dataset:
    """What is kept of an evaluation store: which drawing it is, and four numbers of every picture."""
    names = [split_label(str(label)) for label in store.adapter.values]
    right = store.attribute_right.mean("attribute").transpose("adapter", "sample").values
    features = store[FEATURES].transpose("adapter", "sample", ...).values.astype(np.float64)
    held = (store.reference_part == "heldout").values
    real = store[f"reference_{FEATURES}"].values[held].astype(np.float64)
    made = unit(features)
    variables: dict[str, Any] = {
        "drawing_model": ("drawing", [model] * len(names)),
        "drawing_arm": ("drawing", [arm for arm, _ in names]),
        "drawing_seed": ("drawing", [seed for _, seed in names]),
        "drawn_part": ("drawn", [str(part) for part in store.part.values]),
        "drawn_right": (("drawing", "drawn"), right.astype(np.float32)),
        "drawn_similarity": (("drawing", "drawn"), (made @ unit(real).T).mean(-1).astype(np.float32)),
        "drawn_drift": (("drawing", "drawn"), (1 - (made * made[:1]).sum(-1)).astype(np.float32)),
    }
    return xr.Dataset(variables)


def split_label(label: str) -> tuple[str, int]:
    """Arm and training seed of a drawing's label; the base has no seed, -1."""
    arm, _, seed = label.partition(" seed ")
    return arm, int(seed) if seed else -1


def unit(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Features of length one."""
    return np.asarray(features / np.linalg.norm(features, axis=-1, keepdims=True))


def values(data: xr.Dataset, model: str, arm: str, measure: str) -> tuple[list[int], Array]:
    """Training seeds of an arm, and a measure (seeds, pictures) on the part of the prompts that it is about."""
    here = ((data.drawing_model == model) & (data.drawing_arm == arm)).values
    part = (data.drawn_part == MEASURES[measure][0]).values
    rows = np.flatnonzero(here)[np.argsort(data.drawing_seed.values[here])]
    found = data[f"drawn_{measure.removesuffix('_ordinary')}"].values[rows][:, part].astype(np.float64)
    return [int(seed) for seed in data.drawing_seed.values[rows]], found


def gap(data: xr.Dataset, model: str, arm: str, measure: str) -> Difference | None:
    """A measure of an arm less that of LoRA, paired by training seed and picture; None with fewer than two seeds."""
    (mine, own), (theirs, other) = (values(data, model, one, measure) for one in (arm, REFERENCE))
    both = [seed for seed in mine if seed in theirs]
    if len(both) < 2:
        return None
    table = own[[mine.index(seed) for seed in both]] - other[[theirs.index(seed) for seed in both]]
    cell: Cell = (model, TASK)
    return difference({cell: float(table.mean())}, {cell: table})


def section(data: xr.Dataset) -> str:
    """What the page says of new prompts; empty where nothing was drawn."""
    if "drawing_model" not in data:
        return ""
    parts = data.drawn_part.values.tolist()
    asked, other = (parts.count(part) // len(SEEDS) for part in ("asked", "unrelated"))
    rows = [row for model in dict.fromkeys(data.drawing_model.values.tolist()) for row in rows_of_model(data, model)]
    heads = ["model", "pictures of", *(head for _, heading in MEASURES.values() for head in (heading, "less LoRA's"))]
    intro = (
        f"The final adapters drew {asked} prompts of the subject on backgrounds that no training caption has, and "
        f"{other} ordinary prompts of the world without the subject, from {len(SEEDS)} noises each, beside the base "
        "from the same noise. Likeness is the mean cosine to the held-out pictures on the bundled feature network; "
        "text heard is the share of named attributes that the bundled reader finds; drift is one less the cosine "
        "between the features of a picture and of the base's of the same prompt and noise (0: the same picture)."
    )
    return f"{intro}\n\n{words.table(heads, rows)}"


def rows_of_model(data: xr.Dataset, model: str) -> list[list[str]]:
    """A row for the base and for each arm that drew."""
    there = set(data.drawing_arm.values[(data.drawing_model == model).values].tolist())
    return [row(data, model, arm) for arm in (BASE, *ARMS) if arm in there]


def row(data: xr.Dataset, model: str, arm: str) -> list[str]:
    """Every measure of one arm, and how far it is from LoRA's."""
    found = [model, "base model" if arm == BASE else words.named(arm)]
    for measure in MEASURES:
        apart = None if arm in (BASE, REFERENCE) else gap(data, model, arm, measure)
        mean = round(float(values(data, model, arm, measure)[1].mean()), 3) + 0.0  # no -0.000
        found += [f"{mean:.3f}", words.difference(apart) if apart else "-"]
    return found
