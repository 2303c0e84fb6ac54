"""Options of `adapt train` and `adapt plan`: one set, so that a plan is made with the words of the run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption

from spectra.errors import UserError

if TYPE_CHECKING:
    from adapt.config import TrainConfig

ABOUT_SET = (
    "A setting without an option of its own, and its value as in a TOML file; repeatable. `adapt settings` lists them."
)

ConfigFile = Annotated[
    Path | None, typer.Argument(metavar="[CONFIG]", help="TOML file of settings; options win over it.")
]
OldConfig = Annotated[Path | None, typer.Option("--config", hidden=True)]
Model = Annotated[str | None, typer.Option(help="Bundled name, alias (`spectra models`), folder or hub id.")]
DataSource = Annotated[
    str | None, typer.Option(help="Folder of pictures x.png with captions x.txt; parquet or tar files; a hub data set.")
]
Out = Annotated[Path | None, typer.Option(help="Run directory to write.")]
Method = Annotated[str | None, typer.Option(help="fera, lora, dora, adalora, loha, lokr, oft, ia3 or full.")]
Prior = Annotated[Path | None, typer.Option(help="Cube (.zarr) or prior (.json) that FeRA starts from.")]
Heldout = Annotated[
    str | None, typer.Option(help="Pictures to measure on; default: heldout beside train, else some of --data.")
]
Steps = Annotated[int | None, typer.Option(min=1, help="Optimizer steps.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Pictures a step.")]
Rate = Annotated[float | None, typer.Option(help="Peak learning rate; default: by method and model size.")]
Rank = Annotated[int | None, typer.Option(min=1, help="Total rank, which FeRA splits over its experts.")]
Experts = Annotated[int | None, typer.Option(min=1, help="Experts of FeRA.")]
Target = Annotated[
    list[str] | None, typer.Option("--target", help="Ending of layer names, repeatable; default: by model.")
]
FeclWeight = Annotated[float | None, typer.Option(help="Weight of FeRA's consistency loss.")]
Seed = Annotated[int | None, typer.Option(help="Decides start, data order, noise and timesteps.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; default: torch's own choice.")]
Overwrite = Annotated[bool | None, typer.Option("--overwrite", help="Replace a finished run at --out.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help=ABOUT_SET)]


class TrainCommand(TyperCommand):
    """A command whose help says the defaults of TrainConfig; that is imported only when help is asked for."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Add the default, or that there is none, to each option's help."""
        from adapt.config import TrainConfig

        for option in self.params:
            known, text = TrainConfig.model_fields.get(option.name or ""), getattr(option, "help", None)
            if known is None or text is None or not isinstance(option, TyperOption):
                continue
            if known.is_required():
                option.help = f"{text.rstrip('.')}; required, here or in CONFIG."
            elif known.default is not None and known.default is not False:
                option.help = f"{text.rstrip('.')}; default: {known.default}."
        super().format_help(ctx, formatter)


OPTIONS = (
    "model", "data", "out", "method", "prior", "heldout", "steps", "batch", "lr", "rank", "experts", "targets",
    "fecl_weight", "seed", "threads", "overwrite",
)  # fmt: skip
"""Settings of a run that have options of their own."""


def options_of(context: typer.Context) -> dict[str, Any]:
    """Setting -> what its option was given, None where it was not."""
    return {name: context.params.get(name) for name in OPTIONS}


def configured(options: Mapping[str, Any], file: Path | None, old: Path | None, table: list[str] | None) -> TrainConfig:
    """The configuration that a file, `--set` and options make; options win over the file.

    Raises:
        UserError: a setting given twice, or one that the configuration refuses.
    """
    if file and old:
        raise UserError("CONFIG and --config are both given; leave one of them out")
    given = {name: value for name, value in options.items() if value not in (None, [], ())}
    settings = parse_settings(table)
    if twice := sorted(given.keys() & settings.keys()):
        option = {"targets": "target"}.get(twice[0], twice[0].replace("_", "-"))
        raise UserError(f"--{option} and --set {twice[0]}=... are both given; leave one of them out")
    from adapt.config import TrainConfig

    path = file or old
    return TrainConfig.from_toml(path, **settings, **given) if path else TrainConfig(**settings, **given)


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
