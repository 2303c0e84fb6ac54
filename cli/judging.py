"""`adapt evaluate` and `adapt report`: which adapter is better, where, and how sure that is."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.common import (
    Json,
    collect_prompts,
    count,
    emit,
    parse_seeds,
    printable,
    progress_bar,
    sentence,
    wrapped,
)

if TYPE_CHECKING:
    from rich.table import Table

    from reports import Report
    from reports.metrics import Comparison, Measure

TOP = 3
"""How many sentences of a report are printed."""
GATE_FAILED = 1
"""Exit code where a gate of --fail-if is true: the command worked, the adapters did not."""


def evaluate(
    adapters: Annotated[
        list[str],
        typer.Argument(help="Runs, adapter folders, LoRA files or merged checkpoints; the base is always measured."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Store to write or to add to.")] = Path("evaluation.zarr"),
    model: Annotated[str | None, typer.Option("--model", help="Base model; default: that of the runs.")] = None,
    prompt: Annotated[list[str] | None, typer.Option("--prompt", help="A prompt; repeat it for more.")] = None,
    prompts: Annotated[Path | None, typer.Option("--prompts", help="File with one prompt a line.")] = None,
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds for each prompt: 0:4, or 1,4,7.")] = "0:4",
    unrelated: Annotated[
        Path | None, typer.Option("--unrelated", help="File of prompts that should not change: measures drift.")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="Held-out captioned pictures: errors, spectra and distances to them.")
    ] = None,
    train: Annotated[
        str | None, typer.Option("--train", help="Training pictures: is anything remembered instead of learned?")
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option("--network", help="Features: world, clip=PATH_OR_ID, dino=PATH_OR_ID, inception, none; repeat."),
    ] = None,
    name: Annotated[list[str] | None, typer.Option("--name", help="Name of an adapter, in their order.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Sampling steps; default: the runs'.")] = None,
    guidance: Annotated[float | None, typer.Option("--guidance", min=0, help="Guidance; default: the runs'.")] = None,
    resolution: Annotated[int | None, typer.Option("--resolution", min=8, help="Side of the pictures, pixels.")] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Pictures at once.")] = 8,
    as_json: Json = False,
) -> None:
    """Generate with several adapters from the same prompts, seeds and noise, and measure what differs.

    Further adapters are added to the same store; an interrupted evaluation goes on when the command is given again.
    """
    texts, numbers = collect_prompts(prompt, prompts), parse_seeds(seeds)
    others = collect_prompts(None, unrelated) if unrelated else []
    with progress_bar("evaluating") as progress:
        import adapt

        found = adapt.evaluate(
            adapters, model=model, prompts=texts, seeds=numbers, out=out, unrelated=others, data=data, train=train,
            networks=tuple(network or ["auto"]), names=name or None, steps=steps, guidance=guidance,
            resolution=resolution, batch=batch, progress=progress, command=shlex.join(["adapt", *sys.argv[1:]]),
        )  # fmt: skip
    from reports.metrics import compare, measured, reasons, summarise

    known = measured(found)
    measures, missing = summarise(known), reasons(known)
    comparisons = compare(known, names=headline(measures))
    if as_json:
        emit({
            "evaluation": out, "measures": [one.to_dict() for one in measures],
            "comparisons": [one.to_dict() for one in comparisons], "missing": missing,
        })  # fmt: skip
        return
    _print_measures(measures)
    for words in _differences(comparisons):
        typer.echo(wrapped(f"- {printable(words)}", "  "))
    for words in missing:
        typer.echo(wrapped(f"- {printable(words)}", "  "))
    typer.echo(f"\n{out} holds {count(found.sizes['adapter'], 'model')}; `adapt report {out}` makes a page of it")


DETAILS = ("band_ratio_", "attribute_")
"""Measures of one band or one attribute: compared in the report, where each kind is a family of its own."""


def headline(measures: Sequence[Measure]) -> list[str]:
    """Names of the measures that are compared in one family; fewer cells, less is lost to the correction."""
    names = dict.fromkeys(one.name for one in measures)
    return [name for name in names if name == "attribute_right" or not name.startswith(DETAILS)]


def _print_measures(measures: Sequence[Measure]) -> None:
    """A row for each measure, a column for each adapter."""
    from cli.tables import print_table

    print_table(measure_table(measures))


def measure_table(measures: Sequence[Measure]) -> Table:
    """Values with intervals."""
    from rich.markup import escape
    from rich.table import Table

    adapters = list(dict.fromkeys(one.adapter for one in measures))
    table = Table("Measure", *(escape(printable(one)) for one in adapters), title_justify="left")
    for name in dict.fromkeys(one.name for one in measures):
        row = {one.adapter: one for one in measures if one.name == name}
        better = {"lower": " ↓", "higher": " ↑"}.get(next(iter(row.values())).better, "")
        title = escape(printable(next(iter(row.values())).title))
        table.add_row(f"{title}{better}", *(_cell(row.get(adapter)) for adapter in adapters))
    return table


def _cell(measure: Measure | None) -> str:
    if measure is None:
        return ""
    value = measure.value
    return f"{value.value:.3g} ({value.low:.3g} to {value.high:.3g})"


def _differences(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """What holds after correction first, then how many comparisons showed nothing."""
    yield from (one.words for one in comparisons if one.holds)
    quiet = [one for one in comparisons if not one.holds]
    if quiet:
        yield f"{count(len(quiet), 'comparison')} found no difference; the report says which would have shown"


def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Run directories and evaluations; a probed cube among them is understood.")
    ],
    out: Annotated[Path, typer.Option("--out", help="HTML file to write.")] = Path("report.html"),
    cube: Annotated[Path | None, typer.Option("--cube", help="Cube of the base model, by `spectra probe`.")] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="JUnit XML file to write, for CI.")] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option("--fail-if", help="Gate such as 'drift>0.1' or 'error_ratio.high@LoRA>1'; ends with code 1."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare runs, or evaluated adapters, in a single HTML file that opens offline."""
    files = [path for path in runs if path.is_file()]  # `runs/*` catches figures too
    with progress_bar("writing the report") as progress:
        import reports

        progress("reading runs", 0, 2)
        made = reports.build([path for path in runs if path not in files], cube)
        failures = [found for gate in fail_if or [] for found in made.check(gate)]
        progress("drawing", 1, 2)
        written = reports.write(made, out)
        if junit:
            reports.write_text(made.to_junit(fail_if or []), junit)
    for path in files:
        typer.echo(sentence(f"{path} was left out, as it is not a run directory"), err=True)
    if as_json:
        emit({"report": written, **made.to_dict(), "failures": [found.to_dict() for found in failures]})
    else:
        _print_report(made, written)
    for found in failures:
        typer.echo(sentence(f"gate {found.expression!r}: {found.words}"), err=True)
    if failures:
        raise typer.Exit(GATE_FAILED)


def _print_report(made: Report, written: Path) -> None:
    for words in made.sentences[:TOP]:
        typer.echo(wrapped(printable(words)) + "\n")
    if made.warnings:
        typer.echo("Read with care:")
        for words in made.warnings:
            typer.echo(wrapped(f"- {printable(words)}", "  "))
        typer.echo()
    typer.echo(f"The report is in {written}")


__all__: list[Any] = ["evaluate", "measure_table", "report"]
