"""The second stage on the subject task: `python -m benchmarks.quality.control --runs runs/quality`.

The final adapters of a few arms draw what they were not trained on, beside the base model, from the same noise: the
subject on backgrounds that no training caption has, and ordinary prompts of the world, in which the subject has no
place.  The first ask whether the subject is kept and the text still heard, the second whether the model still draws
everything else.  One store of `adapt.evaluate` for each model; a repeated call goes on where it was.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.quality import command
from benchmarks.quality.design import FULL
from benchmarks.quality.extra import ARMS
from benchmarks.quality.numbers import Place, places
from benchmarks.quality.run import OUT as RUNS
from benchmarks.quality.run import best_rate, error_of
from spectra.errors import UserError

CHOSEN = ("lora", "fera-prior", "fera-random", "fera-published")
TASK = "subject"
SUBJECTS, ORDINARY = 10, 10
"""Prompts of each kind."""
SEEDS = (500, 501)
"""Of the initial noise; each prompt is drawn from each."""
STEPS, GUIDANCE = 20, 3.0
"""As the final runs draw."""


def captions(folder: Path) -> set[str]:
    """The captions of an image folder."""
    return {file.read_text().strip() for file in folder.glob("*.txt")}


def unseen_subjects(train: Path, count: int = SUBJECTS, seed: int = 0) -> list[str]:
    """Prompts of the subject with a texture and a colour behind it that no training caption puts together.

    Raises:
        UserError: the training captions leave fewer than `count` combinations.
    """
    from spectra.zoo.world import COLOURS, TEXTURES

    known = captions(train)
    every = [f"a zog on a {texture} {colour} background" for texture in TEXTURES for colour in COLOURS]
    free = [prompt for prompt in every if prompt not in known]
    if len(free) < count:
        raise UserError(f"{train} leaves {len(free)} backgrounds without the subject; {count} are asked for")
    order = np.random.default_rng(seed).permutation(len(free))[:count]
    return [free[i] for i in order]


def ordinary(count: int = ORDINARY, seed: int = 1) -> list[str]:
    """Captions of the world as the base model was trained on them."""
    from spectra.zoo.world import random_scene

    rng = np.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found.setdefault(random_scene(rng).caption)
    return list(found)


def best_finals(runs: Path, model: str, arms: Sequence[str], seeds: Sequence[int], task: str = TASK) -> list[Place]:
    """Finished final runs of the arms on a task, each arm at the best rate of its sweep."""
    found = [
        place for place in places(runs, "final")
        if (place.model, place.task) == (model, task) and place.arm in arms and place.seed in seeds
        and (place.folder / "run.json").is_file()
    ]  # fmt: skip
    swept = {arm: errors_by_rate(runs, model, arm, task) for arm in {place.arm for place in found}}
    best = {arm: best_rate(errors) if errors else None for arm, errors in swept.items()}
    kept = [place for place in found if best[place.arm] in (place.rate, None)]
    return sorted(kept, key=lambda place: (list(arms).index(place.arm), place.seed))


def errors_by_rate(runs: Path, model: str, arm: str, task: str = TASK) -> dict[float, float]:
    """Rate -> mean error of the sweep on a task."""
    here = [place for place in places(runs, "sweep") if (place.model, place.task, place.arm) == (model, task, arm)]
    errors: dict[float, list[float]] = {}
    for place in here:
        error = error_of(place.folder)
        errors.setdefault(place.rate, []).append(np.inf if error is None else error)
    return {rate: float(np.mean(found)) for rate, found in errors.items()}


def label(place: Place) -> str:
    """The name of a run in the store."""
    return f"{place.arm} seed {place.seed}"


def store_of(runs: Path, model: str) -> Path:
    """Where the pictures of a model lie."""
    return runs / "control" / f"{model}.zarr"


def draw(runs: Path, model: str, arms: Sequence[str], seeds: Sequence[int]) -> int:
    """Draw with every finished final run of the arms; how many there are."""
    import adapt

    found = best_finals(runs, model, arms, seeds)
    if not found:
        return 0
    data = runs / "data" / TASK
    store_of(runs, model).parent.mkdir(parents=True, exist_ok=True)
    adapt.evaluate(
        [place.folder for place in found], names=[label(place) for place in found], model=model,
        prompts=unseen_subjects(data / "train"), unrelated=ordinary(), seeds=SEEDS, out=store_of(runs, model),
        data=data / "heldout", train=data / "train", steps=STEPS, guidance=GUIDANCE,
    )  # fmt: skip
    return len(found)


def main() -> int:
    """Entry point."""
    parser = command.parser(__doc__)
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder that `benchmarks.quality.run` wrote")
    parser.add_argument("--models", nargs="+", choices=FULL.models, default=list(FULL.models))
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(CHOSEN))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(FULL.seeds), help="training seeds")
    given = parser.parse_args()

    def work() -> None:
        for model in given.models:
            count = draw(given.runs, model, given.arms, given.seeds)
            print(f"{store_of(given.runs, model)}: {count} adapters" if count else f"{model}: no finished final runs")

    return command.ended("quality.control", work)


if __name__ == "__main__":
    sys.exit(main())
