"""`adapt`: fine-tune adapters, generate with them, and compare them in a report."""

from __future__ import annotations

import shlex
import shutil
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption

from cli.common import (
    Json,
    application,
    collect_prompts,
    count,
    emit,
    kept,
    parse_seeds,
    printable,
    progress_bar,
    sentence,
)
from spectra.errors import UserError

if TYPE_CHECKING:
    from adapt.config import TrainConfig
    from adapt.loop import RunResult

app = application("Fine-tune adapters of diffusion models with what `spectra probe` saw, and compare them.")

ABOUT_SET = (
    "A setting without an option of its own, and its value as in a TOML file; repeatable. `adapt settings` lists them."
)
TOP = 3
"""How many sentences of a report are printed."""


class TrainCommand(TyperCommand):
    """`adapt train`, whose help says the defaults of TrainConfig; that is imported only when help is asked for."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Add the default, or that there is none, to each option's help."""
        from adapt.config import TrainConfig

        for option in self.params:
            known, text = TrainConfig.model_fields.get(option.name or ""), getattr(option, "help", None)
            if known is None or text is None or not isinstance(option, TyperOption):
                continue
            if known.is_required():
                option.help = f"{text.rstrip('.')}; required, here or in --config."
            elif known.default is not None and known.default is not False:
                option.help = f"{text.rstrip('.')}; default: {known.default}."
        super().format_help(ctx, formatter)


@app.command(cls=TrainCommand)
def train(
    model: Annotated[str | None, typer.Option(help="Bundled name, alias (`spectra models`), folder or hub id.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of pictures x.png with captions x.txt.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory to write.")] = None,
    method: Annotated[str | None, typer.Option(help="fera or lora.")] = None,
    prior: Annotated[Path | None, typer.Option(help="Cube (.zarr) or prior (.json) that FeRA starts from.")] = None,
    heldout: Annotated[
        Path | None, typer.Option(help="Folder to measure on; default: heldout beside train, else some of --data.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Pictures a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate; default: by method and model size.")] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Total rank, which FeRA splits over its experts.")] = None,
    experts: Annotated[int | None, typer.Option(min=1, help="Experts of FeRA.")] = None,
    targets: Annotated[
        list[str] | None, typer.Option("--target", help="Ending of layer names, repeatable; default: by model.")
    ] = None,
    fecl_weight: Annotated[float | None, typer.Option(help="Weight of FeRA's consistency loss.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides start, data order, noise and timesteps.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: torch's own choice.")] = None,
    overwrite: Annotated[bool | None, typer.Option("--overwrite", help="Replace a finished run at --out.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings; options win over it.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help=ABOUT_SET)] = None,
    as_json: Json = False,
) -> None:
    """Train an adapter on a folder of captioned pictures, and measure it on held-out ones while it learns."""
    options = {
        "model": model, "data": data, "out": out, "method": method, "prior": prior, "heldout": heldout, "steps": steps,
        "batch": batch, "lr": lr, "rank": rank, "experts": experts, "targets": targets or None,
        "fecl_weight": fecl_weight, "seed": seed, "threads": threads, "overwrite": overwrite,
    }  # fmt: skip
    given = {name: value for name, value in options.items() if value is not None}
    table = parse_settings(settings)
    if twice := sorted(given.keys() & table.keys()):
        option = {"targets": "target"}.get(twice[0], twice[0].replace("_", "-"))
        raise UserError(f"--{option} and --set {twice[0]}=... are both given; leave one of them out")
    from adapt.config import TrainConfig

    made = TrainConfig.from_toml(config, **table, **given) if config else TrainConfig(**table, **given)
    pictures = _pictures_to_split(made)
    stopped = "nothing of this run was kept, as training cannot be resumed yet"
    with kept(lambda: stopped), progress_bar(f"training {made.method}") as progress:
        from adapt.loop import train as run_training

        result = run_training(made, progress=progress)
    apart = pictures - int(result.record["training_pictures"]) if pictures else None
    _report_training(result, apart, as_json)


def _pictures_to_split(config: TrainConfig) -> int | None:
    """How many pictures there are, if some of them will be set aside because nothing else is held out."""
    from datasets_cache import find_splits, open_dataset

    folder, beside = find_splits(config.data)
    return None if config.heldout or beside else len(open_dataset(folder))


@app.command()
def settings(as_json: Json = False) -> None:
    """List every setting of `adapt train` with its default: for --set NAME=VALUE, and for TOML files."""
    from adapt.config import TrainConfig

    known = TrainConfig.model_fields
    rows = [
        {
            "name": name,
            "required": field.is_required(),
            "default": None if field.is_required() else field.default,
            "meaning": field.description,
        }
        for name, field in known.items()
    ]
    if as_json:
        emit(rows)
        return
    wide = max(map(len, known))
    for row in rows:
        default = (
            "required" if row["required"] else "" if row["default"] is None else f"default: {_as_toml(row['default'])}"
        )
        words = "; ".join(part for part in (str(row["meaning"]), default) if part)
        typer.echo(wrapped(f"{row['name']:{wide}}  {words}", " " * (wide + 2)))


def _as_toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def wrapped(text: str, indent: str = "") -> str:
    """Text in lines as wide as the terminal, those after the first one indented."""
    width = max(40, shutil.get_terminal_size().columns - 1)
    return textwrap.fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def parse_settings(settings: list[str] | None) -> dict[str, Any]:
    """`["clip=0.5", "precision='bf16'"]` -> a table, each value read as TOML. Raises UserError."""
    import tomllib

    table: dict[str, Any] = {}
    for text in settings or []:
        name, equals, value = text.partition("=")
        if not (name.strip().isidentifier() and equals):
            raise UserError(f"--set {text!r} is not understood; write NAME=VALUE, such as --set clip=0.5")
        if name.strip() in table:
            raise UserError(f"--set {name.strip()}=... is given twice; leave one of them out")
        try:
            table[name.strip()] = tomllib.loads(f"value = {value.strip()}")["value"]
        except tomllib.TOMLDecodeError:
            table[name.strip()] = value.strip()  # a bare word is text, as quoting it twice is a nuisance in a shell
    return table


def _report_training(result: RunResult, apart: int | None, as_json: bool) -> None:
    """Say where the run is, what it reached and cost, and what to do next; `apart` pictures were set aside."""
    record: Mapping[str, Any] = result.record
    before, after = result.error_before, result.error_after
    if as_json:
        emit({"run": result.path, "error_before": before, "error_after": after, "set_aside": apart, **record})
        return
    path = shlex.quote(str(result.path))
    typer.echo(f"{result.path} is trained.")
    change = f" ({after / before - 1:+.1%})" if before else ""
    typer.echo(f"Validation error: {before:.4g} -> {after:.4g}{change}")
    if apart is not None:
        whole = count(apart + int(record["training_pictures"]), "picture")
        typer.echo(f"Measured on: {apart} of {whole}, set aside as there is no held-out folder")
    typer.echo(f"Trained parameters: {record['trainable_parameters']}")
    typer.echo(f"Time: {record['seconds_train']:.0f} s of training, {record['seconds_total']:.0f} s in all")
    typer.echo(f"Generate with: adapt sample {path} --prompt TEXT --out FOLDER")
    typer.echo(f"Compare with: adapt report {path} OTHER-RUNS --out report.html")


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
            progress=progress,
        )  # fmt: skip
    if as_json:
        emit({"pictures": [{"path": path, **read_facts(path)} for path in paths]})
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
    for words in made.sentences[:TOP]:
        typer.echo(wrapped(printable(words)) + "\n")
    if made.warnings:
        typer.echo("Read with care:")
        for words in made.warnings:
            typer.echo(wrapped(f"- {printable(words)}", "  "))
        typer.echo()
    typer.echo(f"The report is in {written}")
