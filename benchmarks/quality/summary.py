"""The comparisons that the experiment was made for, as rows: what, where, value, interval, corrected p."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
import xarray as xr

from benchmarks.quality import contrasts
from benchmarks.quality.contrasts import Steps, have, in_cell, over_cells, pooled, steps_to_reach
from benchmarks.quality.design import FULL
from benchmarks.quality.extra import ARMS, EXTRA, IDEAS
from benchmarks.quality.numbers import Cell, arms_of, cells, rows_of, sweep_of
from reports.statistics import Ratio, corrected

REFERENCE = "lora"
MAIN = "fera-prior"
"""The arm that the verdict is about: the method as this project proposes it, and the one that `--quick` trains."""
GOAL = 0.7
"""Steps to LoRA's final error over LoRA's steps that were hoped for."""


@dataclass(frozen=True)
class Question:
    """A question that two arms answer: they differ in one thing."""

    words: str
    a: str
    b: str
    says_a: str
    says_b: str


QUESTIONS = (
    Question("Is a start from the prior better than a random one?", MAIN, "fera-random", "the prior", "a random start"),
    Question("Are energies better than a clock?", "fera-random", "fera-clock", "the energies' router", "the clock"),
    Question("Are energies better than no routing?", "fera-random", "fera-uniform", "the router", "uniform gates"),
    Question("Is the prior better than no routing?", MAIN, "fera-uniform", "the prior", "uniform gates"),
    Question("Does the consistency loss help?", "fera-fecl", MAIN, "the consistency loss", "training without it"),
    Question("Is exact mode better than published?", "fera-random", "fera-published", "exact mode", "published mode"),
    Question("Are two experts better than three?", "fera-experts2", MAIN, "two experts", "three experts"),
    Question("Are four experts better than three?", "fera-experts4", MAIN, "four experts", "three experts"),
    Question("Are two bands better than four?", "fera-bands2", MAIN, "two bands", "four bands"),
    Question("Are three bands better than four?", "fera-bands3", MAIN, "three bands", "four bands"),
)


@dataclass(frozen=True)
class Compared:
    """One arm against another, over all cells and in each."""

    a: str
    b: str
    all: Ratio | None
    each: dict[Cell, Ratio | None]


@dataclass(frozen=True)
class Speed:
    """How soon an arm is where LoRA ends."""

    arm: str
    cost: dict[str, float]
    """Model -> time of a step over that of LoRA's; empty where it was not measured."""
    steps: dict[Cell, Steps]
    budget: Ratio | None
    """Error after as much time as LoRA's whole training takes, over LoRA's final error, over all cells."""

    @property
    def met(self) -> list[Cell]:
        """The cells in which the goal is met."""
        return [cell for cell, steps in self.steps.items() if steps.value <= GOAL]


@dataclass(frozen=True)
class Swept:
    """The sweep of one arm in one cell."""

    cell: Cell
    arm: str
    errors: dict[float, float]

    @property
    def best(self) -> float:
        """The rate of the lowest error."""
        return min(self.errors, key=lambda rate: self.errors[rate])

    @property
    def inside(self) -> bool:
        """Whether rates on both sides of the best one were tried."""
        return min(self.errors) < self.best < max(self.errors)


@dataclass(frozen=True)
class Line:
    """One row of the tidy table of numbers."""

    table: str
    model: str
    task: str
    arm: str
    against: str
    measure: str
    value: float
    low: float = np.nan
    high: float = np.nan
    p: float = np.nan
    p_holm: float = np.nan
    seeds: int = 0
    samples: int = 0


def compare(numbers: xr.Dataset, pairs: Iterable[tuple[str, str]]) -> list[Compared]:
    """Ratios of final errors over all cells and in each, each column one family of Holm's correction."""
    there = cells(numbers)
    found = [
        Compared(a, b, over_cells(numbers, a, b), {cell: in_cell(numbers, cell, a, b) for cell in there})
        for a, b in pairs
    ]
    found = [one for one in found if one.all is not None]
    together = family([one.all for one in found])
    by_cell = {cell: family([one.each[cell] for one in found]) for cell in there}
    return [
        replace(one, all=together[i], each={cell: by_cell[cell][i] for cell in there}) for i, one in enumerate(found)
    ]


def family(ratios: Sequence[Ratio | None]) -> list[Ratio | None]:
    """The same ratios, each with Holm's p over those that are there."""
    adjusted = iter(corrected([one for one in ratios if one is not None]))
    return [None if one is None else next(adjusted) for one in ratios]


def against_lora(numbers: xr.Dataset) -> list[Compared]:
    """Every planned arm against LoRA."""
    return compare(numbers, [(arm, REFERENCE) for arm in FULL.arms if arm != REFERENCE])


def answers(numbers: xr.Dataset) -> list[tuple[Question, Compared]]:
    """The questions that the finished runs can answer."""
    found = {(one.a, one.b): one for one in compare(numbers, [(q.a, q.b) for q in QUESTIONS])}
    return [(q, found[q.a, q.b]) for q in QUESTIONS if (q.a, q.b) in found]


def leads(numbers: xr.Dataset) -> list[Compared]:
    """The ideas beyond the plan, each against the arm that differs in it alone; a Holm family of their own."""
    return compare(numbers, [(idea.arm.name, idea.against) for idea in IDEAS])


def beside_lora(numbers: xr.Dataset, cost: Mapping[str, Mapping[str, float]]) -> list[tuple[Compared, Speed]]:
    """The arms beyond the plan against LoRA, as the planned ones are; a Holm family of their own."""
    arms = [arm for arm in arms_of(numbers) if arm in EXTRA and "steps" not in EXTRA[arm].settings]
    return [(one, speed(numbers, one.a, cost)) for one in compare(numbers, [(arm, REFERENCE) for arm in arms])]


def speeds(numbers: xr.Dataset, cost: Mapping[str, Mapping[str, float]]) -> list[Speed]:
    """Steps and time to LoRA's final error, of every arm but LoRA that has runs of the planned length."""
    return [speed(numbers, arm, cost) for arm in arms_of(numbers) if arm in FULL.arms and arm != REFERENCE]


def speed(numbers: xr.Dataset, arm: str, cost: Mapping[str, Mapping[str, float]]) -> Speed:
    """Steps and time of one arm to LoRA's final error."""
    there = [cell for cell in cells(numbers) if have(numbers, cell, arm, REFERENCE)]
    costs = {model: found[arm] for model, found in cost.items() if arm in found}
    timed = {
        cell: contrasts.budget_tables(numbers, cell, arm, REFERENCE, 1 / costs[cell[0]])
        for cell in there if cell[0] in costs
    }  # fmt: skip
    estimand = "geometric mean of the ratio of the mean error after LoRA's time to LoRA's final mean error"
    steps = {cell: steps_to_reach(numbers, cell, arm, REFERENCE) for cell in there}
    return Speed(arm, costs, steps, pooled(timed, estimand) if timed else None)


def sweeps(numbers: xr.Dataset) -> list[Swept]:
    """Every sweep that has begun, by cell and arm."""
    where = [(model, task) for model in FULL.models for task in FULL.tasks]
    found = [Swept(cell, arm, sweep_of(numbers, cell, arm)) for cell in where for arm in ARMS]
    return [one for one in found if one.errors]


def parameters(numbers: xr.Dataset, arm: str) -> dict[str, int]:
    """Model -> trainable parameters of an arm."""
    here = numbers.isel(run=np.flatnonzero((numbers.arm == arm).values))
    return {str(m): int(p) for m, p in zip(here.model.values, here.parameters.values, strict=True)}


def lines(numbers: xr.Dataset, cost: Mapping[str, Mapping[str, float]]) -> list[Line]:
    """Everything that the tables quote, tidy."""
    found = [line for one in sweeps(numbers) for line in sweep_lines(one)]
    found += error_lines(numbers)
    for table, compared in (("against_lora", against_lora(numbers)), ("ideas", leads(numbers)),
                            ("questions", [one for _, one in answers(numbers)])):  # fmt: skip
        found += [line for one in compared for line in ratio_lines(table, one)]
    for one in speeds(numbers, cost):
        found += speed_lines(one)
    for idea, fast in beside_lora(numbers, cost):
        found += [*ratio_lines("ideas_against_lora", idea), *speed_lines(fast)]
    return found


def sweep_lines(one: Swept) -> list[Line]:
    """Errors by rate; the measure names the rate."""
    return [Line("sweep", *one.cell, one.arm, "", f"error at {rate:g}", error) for rate, error in one.errors.items()]


def error_lines(numbers: xr.Dataset) -> list[Line]:
    """The mean final error of each arm in each cell."""
    return [
        Line("error", *cell, arm, "", "mean validation error", float(numbers.error.isel(run=rows).mean()),
             seeds=len(rows), samples=numbers.sizes["sample"])
        for cell in cells(numbers) for arm in arms_of(numbers) if len(rows := rows_of(numbers, cell, arm))
    ]  # fmt: skip


def ratio_lines(table: str, one: Compared) -> list[Line]:
    """A comparison over all cells and in each."""
    where = {("all", "all"): one.all, **one.each}
    return [
        Line(table, *cell, one.a, one.b, "ratio of final errors", r.value, r.low, r.high, r.p, r.p_corrected, r.seeds,
             r.samples)
        for cell, r in where.items() if r is not None
    ]  # fmt: skip


def speed_lines(one: Speed) -> list[Line]:
    """Steps in each cell, cost of a step by model, error within LoRA's time over all cells."""
    found = [
        Line("speed", *cell, one.arm, REFERENCE, "steps to its final error", s.value, s.low, s.high, seeds=s.seeds,
             samples=s.samples)
        for cell, s in one.steps.items()
    ]  # fmt: skip
    found += [Line("speed", model, "all", one.arm, REFERENCE, "time of a step", c) for model, c in one.cost.items()]
    if one.budget is not None:
        b, what = one.budget, "error within its time"
        found.append(
            Line(
                "speed", "all", "all", one.arm, REFERENCE, what, b.value, b.low, b.high, b.p, np.nan, b.seeds, b.samples
            )
        )
    return found


def csv(found: Sequence[Line]) -> str:
    """Rows as CSV text; a number that does not exist is empty."""
    heads = [field.name for field in fields(Line)]
    return "\n".join([",".join(heads), *(",".join(map(shown, asdict(line).values())) for line in found)]) + "\n"


def shown(value: str | float) -> str:
    """A value of the CSV: numbers with six digits, nothing for one that does not exist."""
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.6g}"
    return str(value)
