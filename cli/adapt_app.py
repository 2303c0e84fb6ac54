"""`adapt`: fine-tune adapters, generate with them, and compare them in a report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.common import Json, application, collect_prompts, count, emit, parse_seeds, progress_bar, sentence
from spectra.errors import UserError

app = application("Fine-tune adapters of diffusion models with what `spectra probe` saw, and compare them.")

ABOUT_TRAIN = "Name of a setting and its value, as in a TOML file; for settings that have no option of their own."


@app.command()
def train(
    model: Annotated[str | None, typer.Option(help="Bundled name, alias (`spectra models`), folder or hub id.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of pictures x.png with captions x.txt.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory to write.")] = None,
    method: Annotated[str | None, typer.Option(help="fera or lora.")] = None,
    prior: Annotated[Path | None, typer.Option(help="Cube (.zarr) or prior (.json) that FeRA starts from.")] = None,
    heldout: Annotated[Path | None, typer.Option(help="Folder to measure on; default: heldout beside train.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps.")] = None,
    batch: Annotated[int | None, typer.Option(help="Pictures a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate; default: by method and model size.")] = None,
    rank: Annotated[int | None, typer.Option(help="Total rank; FeRA splits it over its experts.")] = None,
    experts: Annotated[int | None, typer.Option(help="Experts of FeRA.")] = None,
    targets: Annotated[list[str] | None, typer.Option("--target", help="Ending of layer names; repeatable.")] = None,
    fecl_weight: Annotated[float | None, typer.Option(help="Weight of FeRA's consistency loss.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides start, data order, noise and timesteps.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    overwrite: Annotated[bool | None, typer.Option("--overwrite", help="Replace a finished run at --out.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings; options win over it.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help=ABOUT_TRAIN)] = None,
    as_json: Json = False,
) -> None:
    """Train an adapter on a folder of captioned pictures, and measure it on held-out ones while it learns."""
    options = {
        "model": model, "data": data, "out": out, "method": method, "prior": prior, "heldout": heldout, "steps": steps,
        "batch": batch, "lr": lr, "rank": rank, "experts": experts, "targets": targets or None,
        "fecl_weight": fecl_weight, "seed": seed, "threads": threads, "overwrite": overwrite,
    }  # fmt: skip
    chosen = parse_settings(settings) | {name: value for name, value in options.items() if value is not None}
    from adapt.config import TrainConfig

    made = TrainConfig.from_toml(config, **chosen) if config else TrainConfig(**chosen)
    with progress_bar(f"training {made.method}") as progress:
        from adapt.loop import train as run_training

        result = run_training(made, progress=progress)
    _report_training(result, as_json)


def parse_settings(settings: list[str] | None) -> dict[str, Any]:
    """`["clip=0.5", "precision='bf16'"]` -> a table, each value read as TOML. Raises UserError."""
    import tomllib

    table: dict[str, Any] = {}
    for text in settings or []:
        name, equals, value = text.partition("=")
        if not (name.strip().isidentifier() and equals):
            raise UserError(f"--set {text!r} is not understood; write NAME=VALUE, such as --set clip=0.5")
        try:
            table[name.strip()] = tomllib.loads(f"value = {value.strip()}")["value"]
        except tomllib.TOMLDecodeError:
            table[name.strip()] = value.strip()  # a bare word is text, as quoting it twice is a nuisance in a shell
    return table


def _report_training(result: Any, as_json: bool) -> None:
    """Say where the run is and what it cost; `result` is a RunResult."""
    record: Mapping[str, Any] = result.record
    if as_json:
        emit({"run": result.path, **record})
        return
    typer.echo(
        f"{result.path} is trained: {record['trainable_parameters']} parameters, {record['seconds_train']:.0f} s of "
        f"training; generate with: adapt sample {result.path} --prompt TEXT --out FOLDER"
    )


@app.command()
def sample(
    run: Annotated[Path, typer.Argument(help="Run directory of `adapt train`, or the adapter folder inside it.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the pictures.")],
    prompt: Annotated[list[str] | None, typer.Option("--prompt", help="A prompt; repeat it for more.")] = None,
    prompts: Annotated[Path | None, typer.Option("--prompts", help="File with one prompt a line.")] = None,
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds for each prompt: 0:4, or 1,4,7.")] = "0",
    model: Annotated[str | None, typer.Option("--model", help="Base model; default: the run's.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Sampling steps; default: the run's.")] = None,
    guidance: Annotated[float | None, typer.Option("--guidance", min=0, help="Guidance; default: the run's.")] = None,
    as_json: Json = False,
) -> None:
    """Generate pictures with a trained adapter."""
    texts, numbers = collect_prompts(prompt, prompts), parse_seeds(seeds)
    with progress_bar("generating") as progress:
        from adapt.sample import sample as generate

        paths = generate(run, texts, numbers, out, model=model, steps=steps, guidance=guidance, progress=progress)
    if as_json:
        emit({"pictures": list(paths)})
    else:
        typer.echo(f"{out} holds {count(len(paths), 'new picture')}")


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run directories; a probed cube among them is understood.")],
    out: Annotated[Path, typer.Option("--out", help="HTML file to write.")] = Path("report.html"),
    cube: Annotated[Path | None, typer.Option("--cube", help="Cube of the base model, by `spectra probe`.")] = None,
    as_json: Json = False,
) -> None:
    """Compare runs of one model on one data set in a single HTML file that opens offline."""
    files = [path for path in runs if path.is_file()]  # `runs/*` catches figures too
    with progress_bar("writing the report") as progress:
        import reports

        progress("reading runs", 0, 2)
        made = reports.build([path for path in runs if path not in files], cube)
        progress("drawing", 1, 2)
        written = reports.write(made, out)
    for path in files:
        typer.echo(sentence(f"{path} was left out, as it is not a run directory"), err=True)
    if as_json:
        emit({"report": written, **made.to_dict()})
        return
    for words in made.sentences:
        typer.echo(words)
    typer.echo(f"The report is in {written}")
