"""Paths -> a report: what belongs together is compared, what does not becomes a task of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reports.arms import Arm, group, reference_of
from reports.base import Base, read_base
from reports.cells import noise_levels
from reports.chosen import AS_USUAL, asked_for, check_name, of_arms
from reports.compare import comparisons
from reports.evaluated import BaseAloneError, Evaluation, read_evaluation, run_of, with_runs
from reports.evaluation_verdict import say_evaluation
from reports.report import Report
from reports.runs import Run, read_run, same_grid, same_pictures
from reports.sections import Said
from reports.stores import Given, root_attributes, sort_out
from reports.tasks import say_overview
from reports.training_words import about_bands, say
from reports.warnings import PROBE, other_cubes, warnings
from reports.words import brief
from spectra.cube import open_cube
from spectra.errors import UserError


@dataclass
class Task:
    """What belongs to one model and one data set."""

    model: str
    model_hash: str
    data: str
    runs: list[Run] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)

    @property
    def title(self) -> str:
        """`mini on style`."""
        return title_of({"model": self.model, "data": self.data})

    @property
    def first(self) -> Path:
        """The path of the first run or evaluation, which no other task has."""
        return [*(run.path for run in self.runs), *(one.path for one in self.evaluations)][0]


def title_of(record: Mapping[str, Any]) -> str:
    """`mini on style`: the last part of each path that says something."""
    data = Path(str(record["data"]))
    named = data.parent.name if data.name in ("train", "heldout", "") and data.parent.name else data.name
    return f"{Path(str(record['model'])).name or record['model']} on {named or data}"


def tasks_of_runs(runs: Sequence[Run]) -> list[Task]:
    """Runs by model and data, in the order of their titles."""
    found: dict[tuple[str, str], Task] = {}
    for run in runs:
        key = str(run.record["model_hash"]), str(run.record["data"])
        task = found.setdefault(key, Task(str(run.record["model"]), *key))
        task.runs.append(run)
    return sorted(found.values(), key=lambda task: (task.title, task.model_hash, task.data))


def task_for(found: Evaluation, tasks: Sequence[Task]) -> Task | None:
    """The task that an evaluation belongs to: that of its runs, that of its pictures, else the only one of its model.

    Evaluations of one model on the same pictures are no independent tasks, whatever else differs, such as steps.
    """
    same_model = [task for task in tasks if task.model_hash == str(found.protocol["model_hash"])]
    trained = [task for task in same_model if task.runs]
    for task in trained:
        if any(run_of(found, label, task.runs) is not None for label in found.adapters):
            return task
    for task in same_model:
        if any(same_data(found, other) for other in task.evaluations):
            return task
    return trained[0] if len(trained) == 1 else None


def same_data(found: Evaluation, other: Evaluation) -> bool:
    """True where two evaluations measure on the same pictures; where one has none, where they share an adapter."""
    if not (found.protocol.get("data") and other.protocol.get("data")):
        return bool({found.weights(x) for x in found.adapters} & {other.weights(x) for x in other.adapters})
    both = found.pictures, other.pictures
    return both[0] == both[1] if all(both) else found.protocol["data"] == other.protocol["data"]


def tasks_of(runs: Sequence[Run], evaluations: Sequence[Evaluation]) -> list[Task]:
    """Runs and evaluations by task; an evaluation without runs, on pictures of its own, is a task of its own."""
    tasks = tasks_of_runs(runs)
    for one in evaluations:
        task = task_for(one, tasks)
        if task is None:
            protocol = one.protocol
            task = Task(str(protocol["model"]), str(protocol["model_hash"]), str(protocol.get("data") or one.title))
            tasks.append(task)
        task.evaluations.append(one)
    return tasks


def cubes_by_task(given: Given, cube: Path | None, tasks: Sequence[Task]) -> dict[int, tuple[Path, tuple[Path, ...]]]:
    """The cube that each task shows, and others of its model; UserError for strangers and where one has to be named."""
    paths = [*([cube] if cube is not None else []), *(path for path in given.cubes if path != cube)]
    hashes = {path: str(root_attributes(path).get("model_hash")) for path in paths}
    known = {task.model_hash for task in tasks}
    for path in paths:
        if hashes[path] not in known:
            read_base(path, tasks[0].model_hash)  # says that it is no cube, or which model it is of
    found = {}
    for i, task in enumerate(tasks):
        own = [path for path in paths if hashes[path] == task.model_hash]
        if len(own) > 1 and own[0] != cube:
            raise UserError(f"there are {len(own)} cubes among the runs ({own[0]}, {own[1]}); name one with --cube.")
        if own:
            found[i] = own[0], tuple(own[1:])
    return found


def bases_of(task: Task, cube: Path | None, found: Sequence[Evaluation]) -> dict[str, Base]:
    """The base model while it generates, by what watched it: the cube, then the probes of evaluations."""
    probes = {one.title: one.path / PROBE for one in found if (one.path / PROBE / "zarr.json").is_file()}
    paths = ({cube.name: cube} if cube is not None else {}) | probes
    return {name: read_base(path, task.model_hash) for name, path in paths.items()}


def said_of(arms: Sequence[Arm], report: Report) -> list[Said]:
    """All sentences of a task, runs and evaluations together, the most important first."""
    trained = say(arms, report.pairs, report.base) if arms else []
    if not report.evaluations:
        return trained
    evaluated = [
        say_evaluation(one, cells, list(noise_levels(one)) if cells else [])
        for one, cells in zip(report.evaluations, report.cells, strict=True)
    ]
    if len(evaluated) > 1 or trained:
        evaluated = [
            [replace(said, claim=f"{one.title}: {said.claim}") for said in told]
            for one, told in zip(report.evaluations, evaluated, strict=True)
        ]
    first, rest = [said[:1] for said in evaluated], [said[1:] for said in evaluated]
    heads = [trained[:1], [one for said in first for one in said]]
    if report.against and not of_arms(report.against, arms):
        heads.reverse()  # what was asked for comes first
    found = heads[0] + heads[1] + [one for said in rest for one in said] + trained[1:]
    return brief(found + ([about_bands(report.base)] if report.base and not arms else []))


def report_of(task: Task, cube: Path | None, others: Sequence[Path] = (), against: str = "") -> Report:
    """The report of one task."""
    if task.runs:
        same_grid(task.runs)
        same_pictures(task.runs)
    arms = group(task.runs)
    named = sorted(own_names(task.evaluations), key=lambda one: not one.against)  # what was asked for comes first
    found = tuple(with_runs(one, arms) for one in named)
    watched = bases_of(task, cube, found)
    base = next(iter(watched.values()), None)
    chosen = of_arms(against, arms)
    reference = reference_of(arms, chosen)
    pairs = tuple(comparisons(arms, reference, twins=not chosen))
    own = against if chosen or any(one.against for one in found) else ""
    bare = Report(tuple(arms), reference, pairs, base, title=task.title, evaluations=found, against=own)
    warned = warnings(arms, base, found, watched, against)
    if base is not None and others:
        warned += other_cubes(base.cube, {path.name: open_cube(path) for path in others})
    return replace(bare, said=tuple(said_of(arms, bare)), warnings=tuple(warned))


def apart(reports: Sequence[Report], tasks: Sequence[Task]) -> list[Report]:
    """Reports with titles of their own, as numbers are kept by title: hash and data are added, then what was read."""
    titles = [report.title for report in reports]
    marks = (
        [f"{task.model_hash.removeprefix('sha256:')[:8]}, {task.data}" for task in tasks],
        [str(task.first) for task in tasks],
    )
    for more in marks:
        seen = Counter(titles)
        titles = [f"{title} ({mark})" if seen[title] > 1 else title for title, mark in zip(titles, more, strict=True)]
    return [replace(report, title=title) for report, title in zip(reports, titles, strict=True)]


def own_names(found: Sequence[Evaluation]) -> list[Evaluation]:
    """Evaluations with names of their own: the folder is added where two stores have one name."""
    seen = Counter(one.title for one in found)
    return [replace(one, name=str(one.path.with_suffix(""))) if seen[one.title] > 1 else one for one in found]


def over_tasks(reports: Sequence[Report]) -> Report:
    """A report of reports."""
    texts = dict.fromkeys(text for report in reports for text in report.warnings)
    texts = dict.fromkeys(sorted(texts, key=lambda text: AS_USUAL not in text))
    named = {text: [report.title for report in reports if text in report.warnings] for text in texts}
    warned = [f"{'All tasks' if len(on) == len(reports) else ', '.join(on)}: {text}" for text, on in named.items()]
    title = f"{len(reports)} tasks"
    return Report(said=tuple(brief(say_overview(reports))), warnings=tuple(warned), title=title, tasks=tuple(reports))


def with_adapters(paths: Sequence[Path], against: str, alone: bool) -> tuple[list[Evaluation], list[str]]:
    """Evaluations, and warnings on stores that hold the base alone; UserError for these where nothing else is there."""
    found, errors = [], []
    for path in paths:
        try:
            found.append(read_evaluation(path, against))
        except BaseAloneError as error:
            errors.append(error)
    if errors and alone and not found:
        raise errors[0]
    return found, [f"Left out: {error}" for error in errors]


def build(
    paths: Sequence[Path | str] | Path | str, cube: Path | str | None = None, against: str | None = None
) -> Report:  # fmt: skip
    """Compare finished runs and evaluations of adapters; `cube` shows what the base model does.

    `against` names the adapter or "base" of evaluations, or the arm of runs, whatever its case, that all others are
    compared with: no other pairs are, and adapters with the base model as ever. Without it up to four adapters are
    compared each with each, of more each with the first, and arms with LoRA.

    Paths (or one path) are run directories, evaluations (`adapt evaluate`) and cubes (`spectra probe`) in any mixture.
    Runs and evaluations of the same adapters are matched. Of several models or data sets each is a task of its own,
    under a verdict over all of them (`Report.tasks`).

    Raises UserError when there is nothing to report on, when a folder is none of these or is incomplete, when runs of
    one task were validated on different grids or generated for different prompts, when a cube is of another model, or
    when `against` is empty or nothing has that name.
    """
    name = asked_for(against)
    given = sort_out([Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)])
    if not given.runs and not given.evaluations:
        raise UserError(
            "there are no runs to report on; give at least one folder that `adapt train` or `adapt evaluate` wrote."
        )
    runs = [read_run(path) for path in given.runs]
    evaluations, without = with_adapters(given.evaluations, name, alone=not runs)
    tasks = tasks_of(runs, evaluations)
    cubes = cubes_by_task(given, Path(cube) if cube else None, tasks)
    reports = []
    for i, task in enumerate(tasks):
        shown, others = cubes.get(i, (None, ()))
        reports.append(report_of(task, shown, others, name))
    check_name(name, reports)
    named = sorted(apart(reports, tasks), key=lambda report: bool(name) and not report.against)
    made = named[0] if len(named) == 1 else over_tasks(named)
    return replace(made, warnings=(*made.warnings, *without))


def compare_tasks(paths: Sequence[Path | str]) -> Report:
    """A report over several tasks (model x data). Raises UserError as `build`, and where there is one task only."""
    report = build(paths)
    if not report.tasks:
        raise UserError(f"these are all of one task, {report.title}; give runs of several models or data sets.")
    return report
