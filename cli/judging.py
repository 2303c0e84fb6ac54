"""`adapt evaluate` and `adapt report`: which adapter is better, where, and how sure that is."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.adding import begun_without, named, nothing_to_do, saying, taken, whole_in
from cli.common import (
    Json,
    collect_prompts,
    count,
    emit,
    kept,
    note,
    parse_seeds,
    printable,
    progress_bar,
    sentence,
    wrapped,
)
from cli.options import Device
from cli.watching import logged_bar
from spectra.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from reports import Report
    from reports.evaluated import Evaluation
    from reports.sections import Said

TOP = 3
"""How many sentences of a report are printed."""
MOST = 8
"""How many sentences on an evaluation are printed."""
COUNTED = "n: prompts, or held-out pictures for the validation error"
GATE_FAILED = 1
"""Exit code where a gate of --fail-if is true: the command worked, the adapters did not."""


def evaluate(
    adapters: Annotated[
        list[str] | None,
        typer.Argument(help="Runs, adapter folders, LoRA files or merged checkpoints; the base is always measured."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Store to write or to add to.")] = Path("evaluation.zarr"),
    model: Annotated[str | None, typer.Option("--model", help="Base model; default: that of the runs.")] = None,
    prompt: Annotated[list[str] | None, typer.Option("--prompt", help="A prompt; repeat it for more.")] = None,
    prompts: Annotated[Path | None, typer.Option("--prompts", help="File with one prompt a line.")] = None,
    seeds: Annotated[
        str | None, typer.Option("--seeds", help="Seeds for each prompt: 0:4, the default, or 1,4,7.")
    ] = None,
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
        typer.Option(
            "--network",
            help="Features: world (bundled models' default), clip=PATH, dino=PATH (or hub ids), inception, none.",
        ),
    ] = None,
    name: Annotated[list[str] | None, typer.Option("--name", help="Name of an adapter, in their order.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Sampling steps; default: the runs'.")] = None,
    guidance: Annotated[float | None, typer.Option("--guidance", min=0, help="Guidance; default: the runs'.")] = None,
    resolution: Annotated[int | None, typer.Option("--resolution", min=8, help="Side of the pictures, pixels.")] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Pictures at once; default: 8.")] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Generate with several adapters from the same prompts, seeds and noise, and measure what differs.

    Further adapters are added to a store that exists: what is not given is as the store has it, prompts included.
    An interrupted evaluation goes on when the command is given again.
    """
    given = named(adapters, out, model=bool(model), prompts=bool(prompt or prompts))
    asked: dict[str, Any] = {
        "model": model, "prompts": _prompts(prompt, prompts, out),
        "seeds": None if seeds is None else parse_seeds(seeds),
        "unrelated": collect_prompts(None, unrelated) if unrelated else None, "data": data, "train": train,
        "networks": network, "steps": steps, "guidance": guidance, "resolution": resolution, "batch": batch,
    }  # fmt: skip
    words, before = taken(out, asked), whole_in(out)
    with kept(lambda: _kept_in(out)), logged_bar("evaluating") as progress:
        import adapt

        found = adapt.evaluate(
            given, out=out, names=name or None, device=device, progress=saying(words, progress),
            command=shlex.join(["adapt", *sys.argv[1:]]), **asked | {"networks": tuple(network or ["auto"])},
        )  # fmt: skip
    if found.sizes["adapter"] == before:
        note(nothing_to_do(given, out))
    from adapt.evaluation.protocol import read
    from reports.evaluated import judged

    protocol = str(found.attrs["protocol"])
    if before == 0 and found.sizes["adapter"] == 1 and (left := begun_without(read(protocol))):
        note(left)
    judgement = judged(out, found, (), json.loads(protocol))
    if as_json:
        emit(_document(judgement))
    else:
        _print_judgement(judgement)


def _prompts(given: list[str] | None, file: Path | None, out: Path) -> list[str] | None:
    """The prompts that were given; None for those of the evaluation at `out`."""
    from spectra.storage.stores import exists

    if given or file:
        return collect_prompts(given, file)
    if not exists(out.expanduser()):
        raise UserError(
            f"there is no evaluation at {out}, and a new one needs prompts: give --prompt TEXT (as often as you like) "
            "or --prompts FILE, or correct --out"
        )
    return None


def _kept_in(out: Path) -> str:
    """What an evaluation that was stopped leaves behind."""
    from adapt.evaluation.store import known_in

    try:
        whole = count(len(known_in(out)), "whole model")
    except UserError:  # there is no evaluation yet
        return "nothing was written"
    return f"{out} keeps {whole}, and the same command goes on from there"


def _document(found: Evaluation) -> dict[str, Any]:
    """Everything that is known, for scripts."""
    return {
        "evaluation": found.path, "sentences": [one.text for one in _sentences(found)],
        "measures": [one.to_dict() for one in found.measures],
        "comparisons": [one.to_dict() for one in (*found.among, *found.to_base)], "missing": list(found.absent),
    }  # fmt: skip


def _print_judgement(found: Evaluation) -> None:
    """What it comes to in words, then the numbers behind it, then what could not be measured."""
    said = _sentences(found)
    for one in said[:MOST]:
        typer.echo(wrapped(printable(f"{one.claim}.")))
        typer.echo(wrapped(printable(f"  {one.support}."), "  ") + "\n" if one.support else "")
    if found.measures:
        from cli.tables import print_table

        print_table(measure_table(found))
        typer.echo()
    _print_list("Read with care:", _cautions(found))
    _print_list("Not measured:", found.absent)
    held = " and ".join(["the base", *[count(len(found.adapters), "adapter")] * bool(found.adapters)])
    more = f"{count(len(said) - MOST, 'further sentence')}, " * (len(said) > MOST)
    page = f"; `adapt report {found.path}` makes a page with {more}pictures, noise levels, bands and attributes"
    typer.echo(wrapped(printable(f"{found.path} holds {held}{page * bool(found.adapters)}")))


def _cautions(found: Evaluation) -> list[str]:
    """What the numbers of a measure suffer from, once for all adapters."""
    noted = [(one.title, one.note.partition(", extrapolated")[0]) for one in found.measures if one.note]
    return [f"{title}: {note}" for title, note in dict.fromkeys(noted)]


def _print_list(title: str, lines: Sequence[str]) -> None:
    """A title with one point a line and an empty line below; nothing for no points."""
    if not lines:
        return
    typer.echo(title)
    for words in lines:
        typer.echo(wrapped(f"- {printable(words)}", "  "))
    typer.echo()


def _sentences(found: Evaluation) -> list[Said]:
    """Which adapter is better, pair by pair, and what each does to the base: the words of the report."""
    from reports.evaluation_words import about_base_model, best_of, harmed_at, headline, worse_levels
    from reports.words import brief

    said = [*best_of(found), *(headline(found, a, b) for a, b in found.pairs)]
    said += [about_base_model(found, label) for label in found.adapters]
    return brief([*said, *worse_levels(found, harmed_at(found))])


def measure_table(found: Evaluation) -> Table:
    """Measures x models, with intervals and arrows; single bands and attributes are left to the report."""
    from rich.markup import escape
    from rich.table import Table

    from reports.evaluation_tables import arrowed
    from reports.evaluation_tables import measure_table as rows_of
    from reports.evidence import single_of
    from reports.sections import ARROWS

    known = dict.fromkeys(one.name for one in found.measures)
    names = [name for name in known if not single_of(name)]  # the report draws those of one band or attribute
    made = arrowed(rows_of(found, names))
    table = Table(caption=f"{made.caption}; {COUNTED}", caption_justify="left")
    for head in (made.heads[0], "n", *made.heads[1:]):
        table.add_column(escape(printable(head)), overflow="fold")
    for name, better, (title, *cells) in zip(names, made.better, made.rows, strict=True):
        n = next(one.value.n for one in found.measures if one.name == name)
        table.add_row(escape(printable(f"{title} {ARROWS.get(better, '')}".rstrip())), str(n), *map(escape, cells))
    return table


def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Run directories and evaluations; a probed cube among them is understood.")
    ],
    out: Annotated[Path, typer.Option("--out", help="HTML file to write.")] = Path("report.html"),
    cube: Annotated[Path | None, typer.Option("--cube", help="Cube of the base model, by `spectra probe`.")] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            help="Adapter or base (of evaluations) or arm (of runs) to compare all with; else all pairs, above four "
            "adapters with the first.",
        ),
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="JUnit XML file to write, for CI.")] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option("--fail-if", help="Gate such as 'drift>0.1' or 'error_ratio.high@DoRA>1'; ends with code 1."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare runs, or evaluated adapters, in a single HTML file that opens offline."""
    files = [path for path in runs if path.is_file()]  # `runs/*` catches figures too
    with progress_bar("writing the report") as progress:
        import reports

        progress("reading runs", 0, 2)
        made = reports.build([path for path in runs if path not in files], cube, against)
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
    if fail_if:
        typer.echo(sentence(f"{count(len(fail_if), 'gate')}, none true"), err=True)


def _print_report(made: Report, written: Path) -> None:
    for words in made.sentences[:TOP]:
        typer.echo(wrapped(printable(words)) + "\n")
    _print_list("Read with care:", made.warnings)
    typer.echo(f"The report is in {written}")


__all__: list[Any] = ["evaluate", "measure_table", "report"]
