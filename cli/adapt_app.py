"""`adapt`: fine-tune adapters, generate with them, and compare them in a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.carrying import cache, export
from cli.common import Json, application, collect_prompts, count, emit, parse_seeds, progress_bar
from cli.judging import evaluate, report
from cli.options import Device
from cli.train_options import TrainCommand
from cli.training import plan, settings, train

app = application("Fine-tune adapters of diffusion models with what `spectra probe` saw, and compare them.")

app.command(cls=TrainCommand)(plan)
app.command(cls=TrainCommand)(train)
app.command()(settings)
app.command()(cache)
app.command()(export)


@app.command()
def sample(
    run: Annotated[Path, typer.Argument(help="Run directory of `adapt train`, or the adapter folder inside it.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the pictures.")],
    prompt: Annotated[list[str] | None, typer.Option("--prompt", help="A prompt; repeat it for more.")] = None,
    prompts: Annotated[
        Path | None,
        typer.Option("--prompts", help="File with one prompt a line; lines that begin with # are comments."),
    ] = None,
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds for each prompt: 0:4, or 1,4,7.")] = "0",
    model: Annotated[str | None, typer.Option("--model", help="Base model; default: the run's.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Sampling steps; default: the run's.")] = None,
    guidance: Annotated[float | None, typer.Option("--guidance", min=0, help="Guidance; default: the run's.")] = None,
    device: Device = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier call left in --out.")] = False,
    as_json: Json = False,
) -> None:
    """Generate pictures with a trained adapter."""
    texts, numbers = collect_prompts(prompt, prompts), parse_seeds(seeds)
    with progress_bar("generating") as progress:
        from adapt.sample import read_facts
        from adapt.sample import sample as generate

        paths = generate(
            run, texts, numbers, out, model=model, steps=steps, guidance=guidance, overwrite=overwrite,
            device=device, progress=progress,
        )  # fmt: skip
    if as_json:
        emit({"pictures": [{"path": path, **read_facts(path)} for path in paths]})
    else:
        typer.echo(f"{out} holds {count(len(paths), 'new picture')}")


app.command()(evaluate)
app.command()(report)
