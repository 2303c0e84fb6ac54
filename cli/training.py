"""`adapt plan`, `adapt train` and `adapt settings`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

from cli.common import Json, StoppedError, count, emit, printable, progress_bar, wrapped
from cli.train_options import (
    Batch,
    ConfigFile,
    DataSource,
    Experts,
    FeclWeight,
    Heldout,
    Method,
    Model,
    OldConfig,
    Out,
    Overwrite,
    Prior,
    Rank,
    Rate,
    Seed,
    Set,
    Steps,
    Target,
    Threads,
    configured,
    options_of,
)
from cli.watching import training_bar

if TYPE_CHECKING:
    from adapt.loop import RunResult


def train(
    context: typer.Context,
    config: ConfigFile = None,
    model: Model = None,
    data: DataSource = None,
    out: Out = None,
    method: Method = None,
    prior: Prior = None,
    heldout: Heldout = None,
    steps: Steps = None,
    batch: Batch = None,
    lr: Rate = None,
    rank: Rank = None,
    experts: Experts = None,
    targets: Target = None,
    fecl_weight: FeclWeight = None,
    seed: Seed = None,
    threads: Threads = None,
    overwrite: Overwrite = None,
    settings: Set = None,
    old_config: OldConfig = None,
    as_json: Json = False,
) -> None:
    """Train an adapter on captioned pictures, and measure it on held-out ones while it learns.

    An interrupted training goes on where it stopped when the same command is given again.
    """
    made = configured(options_of(context), config, old_config, settings)
    with training_bar(f"training {made.method}") as (progress, watch):
        from adapt.loop import train as run_training
        from adapt.processes import TrainingStoppedError

        try:
            result = run_training(made, progress, watch)
        except TrainingStoppedError as stopped:
            raise StoppedError(str(stopped), stopped.exit_code) from None
    _report_training(result, as_json)


def plan(
    context: typer.Context,
    config: ConfigFile = None,
    model: Model = None,
    data: DataSource = None,
    out: Out = None,
    method: Method = None,
    prior: Prior = None,
    heldout: Heldout = None,
    steps: Steps = None,
    batch: Batch = None,
    lr: Rate = None,
    rank: Rank = None,
    experts: Experts = None,
    targets: Target = None,
    fecl_weight: FeclWeight = None,
    seed: Seed = None,
    threads: Threads = None,
    overwrite: Overwrite = None,
    settings: Set = None,
    old_config: OldConfig = None,
    figure: Annotated[
        Path | None, typer.Option("--figure", help="Picture to write: noise levels, and what the model draws now.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a training would do, without training: layers, parameters, memory, data, noise levels.

    With --prior alone it explains that prior.
    """
    from adapt.plan import explain_prior, make_plan, write_figure

    options = options_of(context)
    if prior and not (config or old_config or model or data):
        alone = configured(options | {"model": "-", "data": "-", "out": Path("-")}, None, None, settings)
        _explained(explain_prior(alone, figure), figure, as_json)
        return
    made = configured(options, config, old_config, settings)
    with progress_bar("planning") as progress:
        found = make_plan(made, preview=figure is not None, progress=progress)
    if figure:
        write_figure(found, figure)
    if as_json:
        emit(found.to_dict() | {"figure": figure})
        return
    for title, lines in found.sections():
        typer.echo(title)
        for line in lines:
            typer.echo(wrapped(f"  {printable(line)}", "    "))
    if figure:
        typer.echo(f"The figure is {figure}")


def _explained(sentences: list[str], figure: Path | None, as_json: bool) -> None:
    if as_json:
        emit({"sentences": sentences, "figure": figure})
        return
    for line in sentences:
        typer.echo(wrapped(f"- {printable(line)}", "  "))
    if figure:
        typer.echo(f"The figure is {figure}")


def settings(as_json: Json = False) -> None:
    """List every setting of `adapt train` with its default: for --set NAME=VALUE, and for TOML files."""
    from adapt.config import TrainConfig

    known = TrainConfig.model_fields
    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "required": field.is_required(),
            "default": None if field.is_required() else field.default,
            "meaning": field.description,
            "choices": choices(field.annotation),
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
        listed = "one of " + ", ".join(row["choices"]) if row["choices"] else ""
        words = "; ".join(part for part in (str(row["meaning"]), listed, default) if part)
        typer.echo(wrapped(f"{row['name']:{wide}}  {words}", " " * (wide + 2)))


def choices(kind: Any) -> list[str]:
    """The words that a setting of a type may be, where it is not any text."""
    if get_origin(kind) is Literal:
        return [str(word) for word in get_args(kind)]
    return [word for part in get_args(kind) for word in choices(part)]


def _as_toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _report_training(result: RunResult, as_json: bool) -> None:
    """Say where the run is, what it reached and cost, and what to do next."""
    if int(os.environ.get("RANK", "0")):  # one of several processes; the first one speaks
        return
    record: Mapping[str, Any] = result.record
    before, after = result.error_before, result.error_after
    if as_json:
        emit({"run": result.path, "error_before": before, "error_after": after, **record})
        return
    path = shlex.quote(str(result.path))
    typer.echo(f"{result.path} is trained.")
    change = f" ({after / before - 1:+.1%})" if before else ""
    typer.echo(f"Validation error: {before:.4g} -> {after:.4g}{change}")
    if apart := record.get("set_aside"):
        whole = count(apart + int(record["training_pictures"]), "picture")
        typer.echo(f"Measured on: {apart} of {whole}, set aside as there is no held-out folder")
    if result.unused_experts:
        typer.echo(f"Experts: {result.unused_experts}")
    typer.echo(f"Trained parameters: {record['trainable_parameters']}")
    typer.echo(f"Time: {record['seconds_train']:.0f} s of training, {record['seconds_total']:.0f} s in all")
    typer.echo(f"Generate with: adapt sample {path} --prompt TEXT --out FOLDER")
    typer.echo(f"Compare with: adapt report {path} OTHER-RUNS --out report.html")
