"""`adapt cache` and `adapt export`: what is kept of the data, and how adapters reach other programs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.common import Json, count, emit, parse_seeds, printable, progress_bar, wrapped
from cli.options import Device
from cli.train_options import ConfigFile, DataSource, Heldout, Model, Set, configured, parse_settings
from spectra.errors import UserError


def export(
    run: Annotated[Path, typer.Argument(help="Run directory of `adapt train`, or an adapter folder.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    form: Annotated[
        str, typer.Option("--format", help="static-lora (for load_lora_weights), scheduled-loras, kohya or peft.")
    ] = "static-lora",
    model: Annotated[str | None, typer.Option("--model", help="Base model; default: the run's.")] = None,
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", help="What gates and errors are measured on; default: the run's.")
    ] = None,
    seeds: Annotated[str, typer.Option("--seeds", help="Seeds for each prompt: 0:4, or 1,4,7.")] = "0",
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Sampling steps; default: the run's.")] = None,
    rank: Annotated[int, typer.Option("--rank", min=1, help="Largest rank where an update is no LoRA.")] = 64,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Write an adapter for programs that do not have this package, and measure what that costs."""
    with progress_bar("exporting"):
        from adapt.export import FACTS_FILE
        from adapt.export import export as write

        write(
            run, out, form, model, prompts=prompt or None, seeds=parse_seeds(seeds), steps=steps, rank=rank,
            device=device,
        )  # fmt: skip
        facts = json.loads((out / FACTS_FILE).read_text(encoding="utf-8"))
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    if as_json:
        emit({"out": out, "files": files, **facts})
        return
    typer.echo(f"{shlex.quote(str(out))} holds {', '.join(map(printable, files))}")
    for line in _costs(facts):
        typer.echo(wrapped(line))


def _costs(facts: Mapping[str, Any]) -> list[str]:
    """What the change of form costs, in sentences."""
    said = [f"Made as: {facts['how']}."]
    if levels := facts.get("error"):
        effects = [level["of_effect"] for level in levels]
        size = f"{min(effects):.1%} to {max(effects):.1%}" if max(effects) >= 5e-4 else "less than 0.1%"
        said.append(
            f"The difference to the adapter's own predictions is {size} of what the adapter changes, over "
            f"{facts['steps']} steps of {count(facts['samples'], 'sample')}; export.json has each step."
        )
    if "relative_to_fera" in facts:
        said.append(
            f"Played by ScheduledLoras, the final latents differ by {facts['relative_to_fera']:.1%} from FeRA's."
        )
    return said


def cache(
    config: ConfigFile = None,
    model: Model = None,
    data: DataSource = None,
    heldout: Heldout = None,
    settings: Set = None,
    device: Device = None,
    prune: Annotated[
        float | None, typer.Option("--prune", min=0, metavar="DAYS", help="Remove what no run has used for so long.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Encode a data set ahead of training and describe it; without one, say what the cache holds."""
    if data is None and config is None:
        options = {"model": model, "heldout": heldout, "device": device}
        if given := [name for name, value in options.items() if value is not None]:
            raise UserError(f"--{given[0]} says nothing without --data; give the data to encode, or leave it out")
        _usage(_cache_folder(settings), prune, as_json)
        return
    if prune is not None:
        raise UserError("--prune clears the cache and reads no data; give it alone")
    made = configured({"model": model, "data": data, "heldout": heldout, "out": Path("-")}, config, None, settings)
    with progress_bar("encoding") as progress:
        from adapt.task import encode_ahead
        from datasets_cache.report import lines

        found = encode_ahead(made, progress, device)
    if as_json:
        emit(found)
        return
    for name, facts in found.items():
        typer.echo(name)
        for line in lines(facts):
            typer.echo(wrapped(f"  {printable(line)}", "    "))


def _cache_folder(settings: list[str] | None) -> Path:
    """The folder that `--set cache=...` names, or the user's; UserError for any other setting."""
    from datasets_cache import cache_directory

    chosen = parse_settings(settings)
    folder = chosen.pop("cache", None)
    if chosen:
        raise UserError(f"--set {next(iter(chosen))}=... says nothing of a cache without --data; leave it out")
    if folder is not None and not (isinstance(folder, str) and folder):
        raise UserError(f"--set cache={folder!r} is no folder")
    return Path(folder).expanduser() if folder else Path(cache_directory())


def _usage(root: Path, days: float | None, as_json: bool) -> None:
    """What the cache holds, after removing what is old."""
    from datasets_cache.upkeep import KINDS, prune, summary

    removed = [] if days is None else prune(root, days=days)
    held = summary(root)
    if as_json:
        emit({"cache": root, "removed": len(removed), "holds": [asdict(usage) for usage in held]})
        return
    if days is not None:
        freed = sum(entry.bytes for entry in removed)
        typer.echo(f"{count(len(removed), 'entry').replace('entrys', 'entries')} removed, {_size(freed)} freed")
    for usage in held:
        typer.echo(f"{KINDS[usage.kind]} of {printable(usage.model)}: {usage.entries}, {_size(usage.bytes)}")
    typer.echo(f"{root} holds {_size(sum(usage.bytes for usage in held))}")


def _size(number: int) -> str:
    """Bytes in words."""
    return f"{number / 2**30:.2f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"
