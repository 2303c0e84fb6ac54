"""What a person may call an adapter, told by its content: runs, PEFT folders, LoRA files, schedules, checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt import state
from adapt.evaluation import merged, weights
from adapt.methods import CONFIG_FILE, METHODS, WEIGHTS_FILE, find_adapter, kind_of
from adapt.methods.text_encoders import PARTS
from spectra.errors import UserError

if TYPE_CHECKING:
    from adapt.export import ScheduledLoras

BASE = "base"
"""The label and the kind of the model without adapter."""
LORA_FILE = "pytorch_lora_weights.safetensors"
DENOISERS = ("unet", "transformer")
INDEX = "model_index.json"
SCHEDULE = "gates.json"
SCHEDULED = "scheduled-loras"


@dataclass(frozen=True)
class Adapter:
    """One adapter that is to be compared: what it is, and how it goes onto a pipeline."""

    path: str
    """As it was given."""
    name: str
    """What it is called where nobody says otherwise."""
    kind: str
    digest: str
    put_on: Callable[[Any], ScheduledLoras | None]
    """(pipe): attach it, and give what sets its weights step by step, where they are not the same at every noise level.

    UserError or any error of the libraries where it does not fit.
    """
    record: dict[str, Any] | None = None
    """`run.json` of the run that made it."""

    def same_place(self, path: str) -> bool:
        """True if a path that was given earlier names this adapter."""
        return Path(path).expanduser().resolve() == Path(self.path).expanduser().resolve()


def base() -> Adapter:
    """The model as it is."""
    return Adapter("", BASE, BASE, "", lambda pipe: None)


def find(given: str | Path) -> Adapter:
    """The adapter at a path; nothing but settings and headers is read, and the files are hashed.

    Raises:
        UserError: nothing there, no adapter, pickled weights, or a kind that cannot be put on a pipeline.
    """
    path = Path(given).expanduser()
    if not path.exists():
        raise UserError(f"there is no adapter at {given}; give a run, an adapter folder or a .safetensors file")
    return _of_folder(path, str(given)) if path.is_dir() else _of_file(path, str(given))


def _of_file(path: Path, given: str) -> Adapter:
    weights.refuse_pickle(path)
    if path.name == WEIGHTS_FILE and path.with_name(CONFIG_FILE).is_file():
        return _peft(path.parent, given)
    if path.suffix != ".safetensors":
        raise UserError(f"{given} is no adapter; give a run, an adapter folder or a .safetensors file")
    return _weights_file(path, given, path.parent.resolve().name if path.name == LORA_FILE else path.stem)


def _weights_file(path: Path, given: str, name: str) -> Adapter:
    kind = weights.kind_of_file(path)
    put_on = merged.put_file if kind == "full" else _put_lora
    return Adapter(given, name, kind, weights.digest_of([path]), partial(_put_file, put_on=put_on, file=path))


def _of_folder(path: Path, given: str) -> Adapter:
    for fits, opened in FOLDERS:
        if fits(path):
            return opened(path, given)
    files = sorted(path.glob("*.safetensors"))
    if len(files) == 1:
        return _weights_file(files[0], given, path.resolve().name)
    if len(files) > 1:
        raise UserError(f"{given} holds {len(files)} safetensors files, and an adapter is one: give its file")
    for file in sorted(path.iterdir()):
        if file.is_file():
            weights.refuse_pickle(file)
    raise UserError(f"{given} holds no adapter; give a run, an adapter folder or a .safetensors file")


def _peft(path: Path, given: str) -> Adapter:
    """A run directory, its adapter folder, or any other folder of PEFT."""
    folder, record = find_adapter(path)
    if not (folder / WEIGHTS_FILE).is_file():
        for file in sorted(folder.glob("adapter_model.*")):
            weights.refuse_pickle(file)
        raise UserError(f"the adapter {given} has no {WEIGHTS_FILE}; save or copy it again")
    kind, named = kind_of(folder), folder.resolve()
    name = named.parent.name if record else named.name
    return Adapter(given, name, kind, _peft_digest([folder, *_encoders(folder)]),
                   partial(_put_peft, kind=kind, folder=folder), record)  # fmt: skip


def _peft_parts(path: Path, given: str) -> Adapter:
    """A folder with a PEFT folder for each network, as PEFT's own examples write it."""
    folder = next(path / part for part in DENOISERS if (path / part / CONFIG_FILE).is_file())
    found = _peft(folder, given)

    def put_on(pipe: Any) -> None:
        from adapt.methods import load_text_encoders

        found.put_on(pipe)
        load_text_encoders(pipe, path)

    return Adapter(given, path.resolve().name, found.kind, _peft_digest([folder, *_encoders(path)]), put_on)


def _encoders(folder: Path) -> list[Path]:
    return [folder / part for part in PARTS if (folder / part / CONFIG_FILE).is_file()]


def _peft_digest(folders: list[Path]) -> str:
    return weights.digest_of(folder / name for folder in folders for name in (CONFIG_FILE, WEIGHTS_FILE))


def _pipeline(path: Path, given: str) -> Adapter:
    """A merged or fully fine-tuned model in diffusers' form."""
    digest = weights.digest_of(merged.files_of(path))
    return Adapter(given, path.resolve().name, "merged", digest, partial(merged.put_pipeline, folder=path))


def _denoiser(path: Path, given: str) -> Adapter:
    files = sorted(path.glob("*.safetensors"))
    name = path.resolve().parent.name if path.resolve().name in DENOISERS else path.resolve().name
    return Adapter(given, name, "merged", weights.digest_of(files), partial(merged.put_denoiser, folder=path))


def _lora_folder(path: Path, given: str) -> Adapter:
    return _weights_file(path / LORA_FILE, given, path.resolve().name)


def _schedule(path: Path, given: str) -> Adapter:
    """A LoRA for each expert of FeRA and a schedule of gates, as `adapt export` writes them."""
    from adapt.export.scheduled import read_schedule

    files = [path / str(name) for name in read_schedule(path)["adapters"].values()]
    for file in files:
        weights.names_in(file)  # says what is wrong with one that is no safetensors file
    digest = weights.digest_of([path / SCHEDULE, *files])
    return Adapter(given, path.resolve().name, SCHEDULED, digest, partial(_put_schedule, folder=path, files=files))


def _lost_schedule(path: Path, given: str) -> Adapter:
    raise UserError(
        f"{given} has no {SCHEDULE}, by which its experts are mixed; copy that file too, or export the adapter as "
        f"{SCHEDULED} again"
    )


def _lost_run(path: Path, given: str) -> Adapter:
    raise UserError(f"{given} has no {state.RECORD}; its adapter is in {Path(given) / state.ADAPTER}: give that folder")


def _is_run(path: Path) -> bool:
    return state.is_finished(path) or state.read_begun(path) is not None


def _has_denoiser(path: Path) -> bool:
    """True for a folder that a denoiser of diffusers was saved to."""
    try:
        settings = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(settings, dict) and "_class_name" in settings and any(path.glob("*.safetensors"))


def _has_experts(path: Path) -> bool:
    """True for an export as scheduled LoRAs, by what it says of itself or by the names of its files."""
    from adapt.export.files import FACTS_FILE

    try:
        facts = json.loads((path / FACTS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        facts = None
    said = isinstance(facts, dict) and facts.get("format") == SCHEDULED
    return said or len(list(path.glob("expert[0-9]*.safetensors"))) > 1


FOLDERS: list[tuple[Callable[[Path], bool], Callable[[Path, str], Adapter]]] = [
    (lambda path: (path / CONFIG_FILE).is_file(), _peft),
    (_is_run, _peft),
    (lambda path: any((path / part / CONFIG_FILE).is_file() for part in DENOISERS), _peft_parts),
    (lambda path: (path / INDEX).is_file(), _pipeline),
    (lambda path: (path / SCHEDULE).is_file(), _schedule),
    (_has_experts, _lost_schedule),
    (lambda path: (path / LORA_FILE).is_file(), _lora_folder),
    (_has_denoiser, _denoiser),
    (lambda path: (path / state.ADAPTER / CONFIG_FILE).is_file(), _lost_run),
]
"""(does a folder look so, how it is opened), the first that fits."""


def _put_peft(pipe: Any, kind: str, folder: Path) -> None:
    """Any kind that PEFT can put into a network; ours through their own loaders."""
    from adapt.methods import load_adapters, load_text_encoders

    if kind in METHODS:
        load_adapters(pipe, folder)
        return
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    from adapt.methods.peft_adapters import load_peft
    from spectra.families import family_of

    known = {str(getattr(name, "value", name)).lower(): found for name, found in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    if kind not in known:
        raise UserError(f"{folder} holds a {kind.upper()} adapter, which this version of PEFT does not know")
    load_peft(family_of(pipe).denoiser(pipe), folder, known[kind])
    load_text_encoders(pipe, folder)


def _put_file(pipe: Any, put_on: Callable[[Any, Path], None], file: Path) -> None:
    """As `put_on`; what does not fit because it was taken out of a PEFT folder is said to be that.

    Its names are no reason to refuse it before: for some pipelines diffusers reads them.
    """
    try:
        put_on(pipe, file)
    except Exception as error:  # diffusers objects to names that it does not know in many ways
        if not weights.of_peft_folder(weights.names_in(file)):
            raise
        raise UserError(
            f"it holds the weights of a PEFT folder without their settings; keep {CONFIG_FILE} beside {WEIGHTS_FILE}, "
            "and give that folder"
        ) from error


def _put_lora(pipe: Any, file: Path) -> None:
    """diffusers' own loader; UserError unless every layer that the file names found a place."""
    from adapt.export.scheduled import load_lora
    from adapt.methods import NAME

    _check_loads(pipe)
    load_lora(pipe, file, NAME)
    _check_places(pipe, [file])


def _put_schedule(pipe: Any, folder: Path, files: Sequence[Path]) -> ScheduledLoras:
    """The LoRAs of all experts, with the weights of the first step; UserError as `_put_lora`."""
    from adapt.export import ScheduledLoras

    _check_loads(pipe)
    player = ScheduledLoras.load(pipe, folder)
    _check_places(pipe, files)
    return player


def _check_loads(pipe: Any) -> None:
    if not hasattr(pipe, "load_lora_weights"):
        raise UserError(f"diffusers loads no LoRA into a {type(pipe).__name__}; give a PEFT folder")


def _check_places(pipe: Any, files: Sequence[Path]) -> None:
    """UserError unless there is an adapted layer for every one that files name."""
    layers = weights.layers_of(name for file in files for name in weights.names_in(file))
    named, found = len(layers), _adapted_layers(pipe)
    if found == 0:
        raise UserError(f"none of its {named} layers is there (such as {min(layers)})")
    if found < named:
        raise UserError(f"{named - found} of its {named} layers are not there")


def _adapted_layers(pipe: Any) -> int:
    """Layers of the networks of a pipeline that an adapter was put around."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    from spectra.identity import networks

    every = (module for network in networks(pipe).values() for module in network.modules())
    return sum(isinstance(module, BaseTunerLayer) for module in every)
