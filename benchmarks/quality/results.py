"""Turn a folder of runs, however incomplete, into docs/results.md, its figures and its numbers.

`python -m benchmarks.quality.results --runs runs/quality [--out docs/results.md] [--numbers results/quality.csv]`

The numbers are two files: the tables as tidy CSV, and beside it, as `.zarr`, what they are computed from.  Without
`--runs` that store is read, and the page made again from it alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.quality import (
    command,
    confirmed,
    control_numbers,
    cost,
    figures,
    gating,
    numbers,
    tables,
    verdict,
    why,
)
from benchmarks.quality.contrasts import by_level, have
from benchmarks.quality.design import FULL, QUICK, Design
from benchmarks.quality.drawn import closer, right_difference
from benchmarks.quality.short import in_short
from benchmarks.quality.summary import (
    MAIN,
    REFERENCE,
    against_lora,
    answers,
    beside_lora,
    csv,
    leads,
    lines,
    speeds,
    sweeps,
)
from benchmarks.quality.words import ARM_WORDS, cell_name, listed, percent
from spectra.analysis.statistics import holm

HERE = Path(__file__).parent
PAGE, NUMBERS = Path("docs/results.md"), Path("benchmarks/results/quality.csv")


def context(
    data: xr.Dataset, costs: dict[str, dict[str, float]], design: Design, looked: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """Everything that the template shows."""
    compared, fast, asked = against_lora(data), speeds(data, costs), answers(data)
    swept = [one for one in sweeps(data) if one.arm in FULL.arms]
    further = [one for one in sweeps(data) if one.arm not in FULL.arms]
    return facts(data, design) | {
        "verdict": verdict.verdict(compared, fast), "short": in_short(data, asked, fast),
        "unfinished": unfinished(data, design),
        "arms_table": tables.arms_table(data), "parameter_spread": percent(tables.parameter_spread(data)),
        "error_table": tables.error_table(compared), "error_words": error_words(data),
        "chance_words": verdict.chance_words(compared),
        "level_words": levels(data), "speed_table": tables.speed_table(fast), "speed_words": speed_words(costs),
        "question_table": tables.question_table(asked), "question_notes": QUESTION_NOTES,
        "text_table": tables.text_table(data), "text_words": text_words(data),
        "spectrum_table": tables.spectrum_table(data), "spectrum_words": spectrum_words(data),
        "sweep_table": tables.sweep_table(swept), "sweep_words": verdict.sweep_words(swept),
        "gate_table": gating.table(data), "rate_words": verdict.rate_words(swept),
        "ideas_table": tables.ideas_table(leads(data)),
        "beside_table": tables.beside_table(beside_lora(data, costs)), "ideas_sweep": tables.sweep_table(further),
        "why_table": why.table(looked), "control": control_numbers.section(data),
        "notes": (HERE / "notes.md").read_text().strip(),
    }  # fmt: skip


QUESTION_NOTES = (
    "Energies, a clock and no routing are compared from a random start, so that nothing but what the gates follow "
    "differs; uniform gates make FeRA a LoRA of the same rank, with the same scale. Published mode differs from exact "
    "mode in its bands (three, the highest one dropped), its scale, its consistency loss and that loss's gradient. "
    "With uniform gates there is nothing that a prior could start, so that row asks for prior and routing together. "
    'Resolutions ("would show") are at the level that correction leaves, so they are wider than the intervals.'
)


def facts(data: xr.Dataset, design: Design) -> dict[str, Any]:
    """Sizes that the text names."""
    from spectra.zoo.tasks import TASKS

    return {
        "pictures": {task: count for task, (_, count, _) in TASKS.items()}, "seeds": len(design.seeds),
        "steps": design.steps, "every": design.settings()["eval_every"], "batch": design.batch,
        "samples": data.sizes["sample"], "levels": data.sizes["level"], "drawn": data.sizes["picture"],
    }  # fmt: skip


def unfinished(data: xr.Dataset, design: Design) -> str:
    """How many of the planned final runs are missing, or that they are those of `--quick`; empty for all of them."""
    if design == QUICK:
        return "these are runs of `--quick`, a few steps long, which say nothing of the methods."
    wanted = [((model, task), arm) for model in design.models for task in design.tasks for arm in design.arms]
    done = sum(min(len(numbers.rows_of(data, cell, arm)), len(design.seeds)) for cell, arm in wanted)
    planned = len(wanted) * len(design.seeds)
    if done >= planned:
        return ""
    return f"{done} of {planned} planned final runs are there; comparisons need two seeds of both arms in a cell."


def error_words(data: xr.Dataset) -> str:
    """The errors themselves, of LoRA, so that the ratios have a size."""
    found = {cell: numbers.rows_of(data, cell, REFERENCE) for cell in numbers.cells(data)}
    errors = [f"{data.error.isel(run=rows).mean():.3f} ({cell_name(c)})" for c, rows in found.items() if len(rows)]
    before = [f"{data.curve.isel(run=rows, eval_step=0).mean():.3f}" for rows in found.values() if len(rows)]
    return f"LoRA's final errors are {listed(errors)}; before training they were {listed(before)}." if errors else ""


def levels(data: xr.Dataset) -> str:
    """Where along the noise axis the main arm gains and loses."""
    there = [cell for cell in numbers.cells(data) if have(data, cell, MAIN, REFERENCE)]
    snr = {cell: [float(x) for x in data.log_snr.values[numbers.rows_of(data, cell, MAIN)[0]]] for cell in there}
    return verdict.level_words({cell: by_level(data, cell, MAIN, REFERENCE) for cell in there}, snr)


def speed_words(costs: dict[str, dict[str, float]]) -> str:
    """What the time of a step is, and what was done with it."""
    if not costs:
        return "The time of a step was not measured yet (`python -m benchmarks.quality.cost`)."
    return (
        "The time of a step is a median ratio from one process in which all arms take turns, on one thread of a CPU. "
        "\"Error within LoRA's time\" takes each arm's curve at the step it has reached when LoRA is done; an arm "
        "whose steps are cheaper is not given more of them."
    )


def text_words(data: xr.Dataset) -> str:
    """Where text control differs from LoRA's."""
    found = {
        (cell, arm): right_difference(data, cell, arm, REFERENCE) for cell in numbers.cells(data)
        for arm in numbers.arms_of(data)
        if arm in FULL.arms and arm != REFERENCE and have(data, cell, arm, REFERENCE)
    }  # fmt: skip
    return differing(found, "share of right attributes", "higher", "lower", data)


def spectrum_words(data: xr.Dataset) -> str:
    """Which arms match which bands better than LoRA."""
    bands = range(data.sizes["band"])
    found = {
        (cell, arm, band): closer(data, cell, arm, REFERENCE, band) for cell in numbers.cells(data)
        for arm in numbers.arms_of(data)
        if arm in FULL.arms and arm != REFERENCE and have(data, cell, arm, REFERENCE) for band in bands
    }  # fmt: skip
    return differing(found, "mismatch of a band", "larger", "smaller", data)


def differing(found: dict[Any, Any], what: str, above: str, below: str, data: xr.Dataset) -> str:
    """Which of many differences to LoRA hold after Holm's correction over all of them."""
    if not found:
        return ""
    adjusted = holm(xr.DataArray([one.p for one in found.values()]).values.astype(float))
    said: dict[str, list[str]] = {above: [], below: []}
    for (key, one), p in zip(found.items(), adjusted, strict=True):
        if p < 0.05:
            band = f", band {key[2]}" if len(key) > 2 else ""
            name = f"{ARM_WORDS.get(key[1], key[1])} ({cell_name(key[0])}{band}: {one.value:+.3f})"
            said[above if one.value > 0 else below].append(name)
    parts = [f"{side} than LoRA's for {listed(names)}" for side, names in said.items() if names]
    if not parts:
        return f"No {what} differs from LoRA's after correction over the {len(found)} comparisons."
    return f"After correction over {len(found)} comparisons the {what} is {'; and '.join(parts)}."


def write_page(
    data: xr.Dataset, costs: dict[str, dict[str, float]], looked: Sequence[dict[str, Any]], out: Path, table: Path
) -> None:
    """Write the page, its figures beside it in `images`, and the tidy table."""
    environment = Environment(
        loader=FileSystemLoader(HERE), undefined=StrictUndefined, trim_blocks=True, autoescape=False
    )
    sentence, again = confirmed.section(confirmed.read(confirmed.store_of(table)), costs)
    files = {"csv": table, "store": table.with_suffix(".zarr"), "confirm_store": confirmed.store_of(table)}
    shown = context(data, costs, planned(data), looked) | files | {"found": sentence, "confirmed": again}
    out.parent.mkdir(parents=True, exist_ok=True)
    table.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(environment.get_template("results.md.j2").render(shown).rstrip() + "\n")
    table.write_text(csv(lines(data, costs)))
    images = out.parent / "images"
    compared = against_lora(data)
    if compared:
        figures.write(figures.forest(compared), images / "quality-forest.svg")
        figures.write(figures.levels(data), images / "quality-levels.svg")
        figures.write(figures.learning_curves(data), images / "quality-curves.svg")


def planned(data: xr.Dataset) -> Design:
    """The design that the runs are of, by their length."""
    return QUICK if int(data.eval_step.max()) == QUICK.steps else FULL


def main() -> int:
    """Entry point."""
    parser = command.parser(__doc__)
    parser.add_argument("--runs", type=Path, help="folder that `benchmarks.quality.run` wrote; default: the numbers")
    parser.add_argument("--out", type=Path, default=PAGE)
    parser.add_argument("--numbers", type=Path, default=NUMBERS, help="the tidy table; its store lies beside it")
    parser.add_argument("--cost", type=Path, default=cost.RESULT, help="what `benchmarks.quality.cost` wrote")
    parser.add_argument("--why", type=Path, default=why.RESULT, help="what `benchmarks.quality.why` wrote")
    given = parser.parse_args()

    def work() -> None:
        store = given.numbers.with_suffix(".zarr")
        if given.runs:
            numbers.save(numbers.collect(given.runs).assign(control_numbers.collect(given.runs)), store)
            confirmed.renew(given.runs, confirmed.store_of(given.numbers))
        write_page(numbers.load(store), cost.read(given.cost), why.read(given.why), given.out, given.numbers)
        print(f"{given.out} and {given.numbers} are written")

    return command.ended("quality.results", work)


if __name__ == "__main__":
    sys.exit(main())
