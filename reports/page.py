"""The page of a report: which sections it has, in which order, and what its head says; `drawing` draws them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from reports import panels, tables
from reports.closing_sections import method_section, provenance_section, reproduce_section
from reports.compare import unlike
from reports.drawing import draw
from reports.evaluation_sections import error_glance, evaluation_sections
from reports.evaluation_tables import arrowed, main_measures, measure_table
from reports.sections import Panel, Room, Section, Table
from reports.tasks import overview_section
from reports.training_sections import base_section, cost_section, training_sections
from reports.words import count

if TYPE_CHECKING:
    from reports.report import Report

VERDICTS = 3
"""How many sentences stand at the top in large type; the others follow."""
MOST_ROWS = 8
TASK_ROWS = 12
"""Rows of pictures that the tasks of one page share."""
PICTURES = 1_600_000
"""Bytes that all grids of pictures of a page share."""


def verdict_section(report: Report, prefix: str = "") -> Section:
    """What the report found, the most important sentence first."""
    first = VERDICTS if report.pairs or report.evaluations else 1
    extra = {"top": list(report.said[:first]), "rest": list(report.said[first:]), "warnings": list(report.warnings)}
    shown_pairs = unlike(report.pairs)
    glance: list[Panel] = [panels.verdict(shown_pairs, prefix)] if shown_pairs else []
    shown: list[Table] = [tables.summary(report.arms, report.pairs, report.reference)] if report.arms else []
    for i, found in enumerate(report.evaluations):
        of = f" ({found.title})" * (len(report.evaluations) > 1)
        glance += [replace(one, title=one.title + of) for one in error_glance(found, f"{prefix}e{i}-")]
        measured = [arrowed(measure_table(found, main_measures(found)))] if found.measures else []
        shown += [replace(one, caption=one.caption + of) for one in measured]
    return Section(
        f"{prefix}verdict", "Verdict", panels=tuple(glance), tables=tuple(shown), kind="verdict", extra=extra
    )


def grids(report: Report) -> int:
    """How many grids of pictures a task has: its runs', and two of each evaluation."""
    return bool(report.arms) + 2 * len(report.evaluations)


def of_evaluation(section: Section, name: str) -> Section:
    """A section that says which evaluation it is of, as runs or another evaluation have sections like it."""
    return replace(section, title=f"{section.title} (evaluation {name})", nav=f"{section.nav} ({name})")


def body(report: Report, room: Room, prefix: str = "") -> list[Section]:
    """The sections of one task, from the verdict to how to reproduce it."""
    found = [verdict_section(report, prefix)]
    base = [base_section(report.base, prefix)] if report.base else []
    last = report.evaluations and not report.arms
    found += [] if last else base
    found += training_sections(report, room, prefix) if report.arms else []
    for i, (one, cells) in enumerate(zip(report.evaluations, report.cells, strict=True)):
        alone = not report.arms and len(report.evaluations) == 1
        made = evaluation_sections(one, cells, room, prefix if alone else f"{prefix}e{i}-")
        found += made if alone else [of_evaluation(section, one.title) for section in made]
    found += base if last else []
    found += [cost_section(report.arms, prefix)] if report.arms else []
    return [*found, provenance_section(report, prefix), reproduce_section(report, prefix)]


def sections_of(report: Report) -> list[Section]:
    """All sections of the page; each task of several is a section with sections of its own."""
    size = PICTURES // max(sum(grids(task) for task in report.tasks or (report,)), 1)
    if not report.tasks:
        return [*body(report, Room(MOST_ROWS, size)), method_section(report)]
    room = Room(max(1, min(MOST_ROWS, TASK_ROWS // len(report.tasks))), size)
    parts = [
        Section(f"t{i}", task.title, kind="task", extra={"sections": body(task, room, f"t{i}-")})
        for i, task in enumerate(report.tasks)
    ]
    return [overview_section(report), *parts, method_section(report)]


def meta(report: Report) -> list[str]:
    """Short phrases under the title: what the report is made of, and when it was finished."""
    every = report.tasks or (report,)
    runs = [run for one in every for arm in one.arms for run in arm.runs]
    found = []
    if runs:
        arms = list(dict.fromkeys(arm.label for one in every for arm in one.arms))
        found.append(f"{count(len(runs), 'training run')} in {count(len(arms), 'arm')}: {', '.join(arms)}")
    for one in (e for task in every for e in task.evaluations):
        found.append(f"{one.path.name}: evaluation of {', '.join(one.adapters)}")
    finished = max((str(run.record["finished"]) for run in runs if run.record.get("finished")), default="")
    return found + ([f"last finished {finished[:10]}"] if finished else [])


def context(report: Report) -> dict[str, Any]:
    """Everything that the template draws."""
    return {
        "title": report.title, "kind": "Adapter report", "meta": meta(report), "sections": sections_of(report)
    }  # fmt: skip


def render(report: Report) -> str:
    """The whole page."""
    return draw(context(report))
