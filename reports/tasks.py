"""Several tasks (model x data) in one report: what holds over all of them, then each by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count as numbered
from typing import TYPE_CHECKING, Any

import numpy as np

from reports import panels
from reports.evaluated import Evaluation
from reports.evaluation_words import decisive
from reports.metrics import Comparison
from reports.sections import Key, Mark, Panel, Said, Section, Table
from reports.statistics import CONFIDENCE
from reports.words import change, count, signed
from spectra.analysis.statistics import holm

if TYPE_CHECKING:
    from reports.report import Report

HOW = {-1: "better", 0: "no difference found", 1: "worse"}


@dataclass(frozen=True)
class Entry:
    """One arm against the reference on one task; ratios below 1 favour the arm."""

    task: str
    arm: str
    other: str
    measure: str
    value: float
    low: float
    high: float
    p: float
    p_corrected: float = np.nan

    @property
    def outcome(self) -> int:
        """-1 better, 1 worse, 0 no difference found after correction over all arms and tasks."""
        if not self.p_corrected < 1 - CONFIDENCE:
            return 0
        return -1 if self.value < 1 else 1


def of_runs(task: Report) -> list[Entry]:
    """The arms of a task against its reference, by final validation error."""
    name = "final validation error"
    return [
        Entry(task.title, p.arm.label, p.other.label, name, p.error.value, p.error.low, p.error.high, p.error.p)
        for p in task.pairs if p.other is task.reference
    ]  # fmt: skip


def of_evaluations(task: Report) -> list[Entry]:
    """The adapters of a task's evaluations against their reference, by the weightiest ratio in which lower is better.

    Weights that several evaluations of the task compare are compared once, by the first of these.
    """
    found: list[Entry] = []
    compared: set[frozenset[str]] = set()
    known: dict[str, str] = {}
    for one in task.evaluations:
        for c in deciding_ratios(one):
            both = frozenset((one.weights(c.a), one.weights(c.b)))
            if both in compared:
                continue
            compared.add(both)
            other = known.setdefault(c.a, one.weights(c.a)) != one.weights(c.a)
            arm, d = f"{c.a} ({one.title})" if other else c.a, c.difference
            found.append(Entry(task.title, arm, c.b, c.title, d.value, d.low, d.high, c.p))
    return found


def deciding_ratios(one: Evaluation) -> list[Comparison]:
    """The comparisons of an evaluation with its reference by the weightiest ratio in which lower is better."""
    pairs = [c for c in one.among if c.b == one.reference] or list(one.to_base)
    usable = [c for c in decisive(pairs) if c.kind == "ratio" and c.better == "lower"]
    return [c for c in usable if c.name == usable[0].name]


def entries(tasks: Sequence[Report]) -> list[Entry]:
    """All arms of all tasks as one family of comparisons."""
    found = [entry for task in tasks for entry in (of_runs(task) or of_evaluations(task))]
    adjusted = holm(np.array([entry.p for entry in found], np.float64))
    return [replace(entry, p_corrected=float(p)) for entry, p in zip(found, adjusted, strict=True)]


def overview_numbers(report: Report) -> list[dict[str, Any]]:
    """The overview as plain values."""
    return [asdict(entry) | {"outcome": HOW[entry.outcome]} for entry in entries(report.tasks)]


def say_overview(tasks: Sequence[Report]) -> list[Said]:
    """One sentence per arm: on how many tasks it is better, worse, or not told apart."""
    found = entries(tasks)
    said = []
    for arm in dict.fromkeys(entry.arm for entry in found):
        mine = [entry for entry in found if entry.arm == arm]
        tally = Counter(entry.outcome for entry in mine)
        mean = float(np.exp(np.mean([np.log(entry.value) for entry in mine])))
        others = " and ".join(dict.fromkeys(entry.other for entry in mine))
        claim = (
            f"{arm} is better than {others} on {tally[-1]} of {count(len(mine), 'task')}, worse on {tally[1]}, and on "
            f"{tally[0]} no difference was found"
        )
        measure = ", ".join(dict.fromkeys(entry.measure for entry in mine))
        support = (
            f"{measure}, in the geometric mean over tasks {change(mean)}; Holm’s correction over "
            f"{count(len(found), 'comparison')}"
        )
        said.append(Said(claim, support, "overview"))
    return [*said[:1], *left_out(found, tasks), *said[1:]]


def left_out(found: Sequence[Entry], tasks: Sequence[Report]) -> list[Said]:
    """How many tasks could not be compared, and why; nothing where all could."""
    rest = [task for task in tasks if task.title not in {entry.task for entry in found}]
    if not rest:
        return []
    reasons = "; ".join(f"{task.title}, {why_not(task)}" for task in rest)
    many = f"None of {count(len(tasks), 'task')}" if len(rest) == len(tasks) else f"{len(rest)} of {len(tasks)} tasks"
    return [Said(f"{many} could {'not ' * (len(rest) < len(tasks))}be compared: {reasons}", "", "overview")]


def why_not(task: Report) -> str:
    """Why a task has no ratio of two models."""
    single = f"which has one arm alone, {task.arms[0].label}" if task.arms else ""
    bare = "in which no held-out error was measured" if task.evaluations else ""
    return " and ".join(filter(None, (single, bare)))


def cell(entry: Entry | None) -> str:
    """A ratio for a cell; starred where it holds."""
    if entry is None:
        return "–"
    if not (np.isfinite(entry.low) and np.isfinite(entry.high)):
        return f"{signed(entry.value)} (no interval)"
    return f"{signed(entry.value)} ({signed(entry.low)} to {signed(entry.high)})" + " *" * (entry.outcome != 0)


def overview_table(found: Sequence[Entry], tasks: Sequence[Report]) -> Table:
    """Task x arm."""
    arms = list(dict.fromkeys(entry.arm for entry in found))
    by_place = {(entry.task, entry.arm): entry for entry in found}
    rows = []
    for task in tasks:
        mine = [entry for entry in found if entry.task == task.title]
        against = ", ".join(dict.fromkeys(f"{e.other}, {e.measure}" for e in mine)) or "nothing to compare"
        rows.append((task.title, against, *(cell(by_place.get((task.title, arm))) for arm in arms)))
    caption = (
        "Change against the reference of each task; 95 % intervals; * holds after Holm’s correction over this table"
    )
    return Table(caption, ("task", "compared with", *arms), tuple(rows))


def overview_panel(found: Sequence[Entry], tasks: Sequence[Report], styles: dict[str, int]) -> Panel:
    """All ratios of all tasks at one glance."""
    blocks = []
    for task in tasks:
        rows = [
            (e.arm, styles[e.arm], Mark(e.value, finite(e.low), finite(e.high), e.outcome != 0))
            for e in found if e.task == task.title
        ]  # fmt: skip
        if rows:
            blocks.append((task.title, rows))
    return panels.overview("overview", "Ratios by task", blocks, "change against the reference (left is better)")


def finite(end: float) -> float:
    """An end of an interval for a figure, nan where there is none."""
    return end if np.isfinite(end) else float("nan")


def styles_of(found: Sequence[Entry], tasks: Sequence[Report]) -> dict[str, int]:
    """One style per arm over all tasks: that of its first task, unless another arm has it."""
    wanted = {arm.label: arm.style for task in reversed(tasks) for arm in task.arms}
    taken: dict[str, int] = {}
    for entry in found:
        if entry.arm not in taken:
            free = (style for style in numbered() if style not in taken.values())
            first = wanted.get(entry.arm)
            taken[entry.arm] = first if first is not None and first not in taken.values() else next(free)
    return taken


def overview_section(report: Report) -> Section:
    """The verdict over all tasks."""
    found = entries(report.tasks)
    styles = styles_of(found, report.tasks)
    shown = (overview_panel(found, report.tasks, styles),) if found else ()
    keys: tuple[Key, ...] = tuple(panels.style_key(arm, style) for arm, style in styles.items())
    extra = {"top": list(report.said[:3]), "rest": list(report.said[3:]), "warnings": list(report.warnings)}
    return Section(
        "verdict", "Verdict over all tasks", keys=keys, panels=shown, kind="verdict", nav="Verdict", extra=extra,
        tables=(overview_table(found, report.tasks),) if found else (),
    )  # fmt: skip
