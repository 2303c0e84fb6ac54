"""`spectra`: watch a diffusion model generate, and show what was seen."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.common import (
    Json,
    Progress,
    application,
    collect_prompts,
    count,
    emit,
    kept,
    parse_seeds,
    printable,
    progress_bar,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

app = application("See how a diffusion model's latents spread their energy over frequency bands while it generates.")

ModelName = Annotated[str, typer.Option("--model", help="Bundled name, alias (`spectra models`), folder or hub id.")]
Prompt = Annotated[list[str] | None, typer.Option("--prompt", help="A prompt; repeat it for more.")]
Prompts = Annotated[Path | None, typer.Option("--prompts", help="File with one prompt a line.")]
Seeds = Annotated[str, typer.Option("--seeds", help="Seeds for each prompt: 0:8 is eight of them; or 1,4,7.")]
Steps = Annotated[int, typer.Option("--steps", min=1, help="Sampling steps.")]
Guidance = Annotated[
    float, typer.Option("--guidance", min=0, help="Guidance scale; at 1 guidance is off, which band energies want.")
]
ABOUT_FIGURE = "Picture to write; default: beside the cube, and none with --json."
Batch = Annotated[int, typer.Option("--batch", min=1, help="Samples generated at once.")]
Resume = Annotated[
    Literal["allow", "must", "never"],
    typer.Option("--resume", help="Add to a cube that exists: allow it, demand it, or never do it."),
]


@app.command()
def probe(
    model: ModelName,
    out: Annotated[Path, typer.Option("--out", help="Cube to write, such as runs/mini.zarr.")],
    prompt: Prompt = None,
    prompts: Prompts = None,
    seeds: Seeds = "0:8",
    steps: Steps = 30,
    guidance: Guidance = 1.0,
    batch: Batch = 8,
    resume: Resume = "allow",
    as_json: Json = False,
) -> None:
    """Generate samples and record their band energies at every step, into a cube (zarr).

    What a cube holds already is not generated again.
    """
    texts, numbers = collect_prompts(prompt, prompts), parse_seeds(seeds)
    start = time.monotonic()
    seen: list[int] = []  # of the runs that were asked for, how many were there: at the start, after each batch
    with kept(lambda: _left(out, seen)), progress_bar(f"probing {printable(model)}") as progress:
        from spectra.probe import probe as record_runs

        cube = record_runs(
            model, texts, numbers, steps, out, guidance_scale=guidance, batch=batch, resume=resume,
            progress=lambda done, total: _note(seen, progress, done, total),
        )  # fmt: skip
    new = seen[-1] - seen[0]
    facts = {
        "store": out,
        "model": model,
        "model_hash": cube.attrs.get("model_hash"),
        "runs": cube.sizes["run"],
        "runs_before": cube.sizes["run"] - new,
        "runs_new": new,
        "steps": steps,
        "bands": cube.sizes["band"],
        "seconds": round(time.monotonic() - start, 2),
    }
    if as_json:
        emit(facts)
    else:
        held = f"{count(cube.sizes['run'], 'run')} of {count(steps, 'step')}"
        there = f" ({facts['runs_before']} there before, {new} new)" if facts["runs_before"] else ""
        typer.echo(f"{out} holds {held}{there}; see them with: spectra show {shlex.quote(str(out))}")


def _note(seen: list[int], progress: Progress, done: int, total: int) -> None:
    seen.append(done)
    progress("sample", done, total)


def _left(out: Path, seen: list[int]) -> str:
    """What an interrupted probe leaves; each batch is written when it ends."""
    if seen and seen[-1] > seen[0]:
        return f"{out} keeps {count(seen[-1] - seen[0], 'new run')}, and the same command goes on from there"
    return "no new run was finished" + (f", and what {out} held is kept" if out.exists() else "")


@app.command()
def show(
    cube: Annotated[Path, typer.Argument(help="Cube that `spectra probe` wrote.")],
    figure: Annotated[Path | None, typer.Option("--figure", help=ABOUT_FIGURE)] = None,
    threshold: Annotated[
        float, typer.Option("--threshold", min=0, max=1, help="Coherence from which on a band counts as decided.")
    ] = 0.8,
    as_json: Json = False,
) -> None:
    """Show a cube: where the energy is at start and end, and at which step each band is decided."""
    from cli.show import band_rows, band_table, heading, save_figure
    from spectra.cube import open_cube

    data = open_cube(cube)
    rows = band_rows(data, threshold)
    place = figure or (None if as_json else cube.with_suffix(".png"))
    picture = save_figure(data, place) if place else None
    if as_json:
        emit({"store": cube, **heading(data), "threshold": threshold, "bands": rows, "figure": picture})
        return
    print_table(band_table(data, rows, threshold))
    typer.echo(f"The figure is in {picture}")


@app.command()
def models(as_json: Json = False) -> None:
    """List the models that have a short name: the bundled ones, and aliases of public checkpoints."""
    from spectra.models import MODELS

    if as_json:
        emit([{"name": name, **vars(model), "location": model.location} for name, model in MODELS.items()])
        return
    print_table(_model_table(narrow=_console().width < WIDE))


WIDE = 120
"""Columns of a terminal from which on a model fits on one line."""


def _console() -> Console:
    """As wide as the terminal; where there is none, as wide as a table likes."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160)


def print_table(table: Table) -> None:
    """Print a table as wide as the terminal; where there is none, as wide as it likes."""
    _console().print(table)


def _model_table(narrow: bool) -> Table:
    """One row a model; a narrow one puts all but the name below the hub id, which is never broken."""
    from rich.markup import escape
    from rich.table import Table

    from spectra.models import MODELS

    caption = "Memory: all weights in 16 bits, roughly. Any folder or hub id works in place of a name."
    table = Table(title="Models", caption=caption, title_justify="left", caption_justify="left")
    names = ("Name", "Hub id", "Family", "Licence", "Memory", "Note")
    for column in (names[0], f"{names[1]}\n{', '.join(names[2:]).lower()}") if narrow else names:
        table.add_column(column, overflow="fold", no_wrap=not narrow and column in ("Name", "Hub id", "Memory"))
    for name, model in MODELS.items():
        place = "bundled" if model.bundled else model.source
        facts = (model.family, model.licence, f"{model.memory:g} GB", model.note)
        rest = (f"{place}\n{', '.join(filter(None, facts))}",) if narrow else (place, *facts)
        table.add_row(*map(escape, (name, *rest)))
    return table
