"""Is this folder a whole diffusers pipeline? Looked at from the outside, before any library is asked to load it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spectra.errors import UserError

INDEX = "model_index.json"
# A component without weights is told by its class name; everything else is a network.
WITHOUT_WEIGHTS = (
    "Scheduler", "Tokenizer", "TokenizerFast", "Processor", "FeatureExtractor", "ImageProcessor", "ProcessorPil",
)  # fmt: skip
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
# What a tokenizer's folder holds beside its vocabulary.
NO_VOCABULARY = frozenset(
    {"tokenizer_config.json", "config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt"}
)
BYTES = ("ByT5", "Canine", "Perceiver")  # tokenizers that read bytes or letters have no vocabulary
PAIRED = frozenset({"vocab.json", "tokenizer.json"})  # the first alone needs merges.txt beside it


def read_index(folder: Path) -> dict[str, Any]:
    """The pipeline's table of contents. Raises UserError when the folder is not a diffusers pipeline."""
    path = folder / INDEX
    if not path.is_file():
        raise UserError(
            f"{folder} is not a diffusers pipeline: it has no {INDEX}; give the folder that `save_pretrained` wrote"
        )
    index = read_json(path)
    if not isinstance(index.get("_class_name"), str):
        raise UserError(f"{path} names no pipeline class; give the folder that `save_pretrained` wrote")
    return index


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises UserError when it is damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} is damaged (not valid JSON); copy or download the folder again") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged (not a JSON object); copy or download the folder again")
    return value


def components(index: dict[str, Any]) -> dict[str, str | None]:
    """Component name -> class name, None for a slot that the checkpoint leaves empty (such as T5 of SD3)."""
    pairs = {name: value for name, value in index.items() if isinstance(value, list) and len(value) == 2}
    return {name: value[1] for name, value in pairs.items()}


def check_folder(folder: Path) -> None:
    """Raise UserError, one sentence, unless every component is there and every weight file is whole.

    Reads headers only (a safetensors header says how long its file must be), so it takes milliseconds.
    """
    for name, class_name in components(read_index(folder)).items():
        if class_name is not None:
            _check_component(folder / name, class_name)


def _check_component(part: Path, class_name: str) -> None:
    if not part.is_dir() or not any(part.iterdir()):
        raise UserError(f"{part.parent} is torn: its {part.name} ({class_name}) is missing; copy or download it again")
    if "Tokenizer" in class_name and not class_name.startswith(BYTES):
        _check_tokenizer(part)
    if class_name.endswith(WITHOUT_WEIGHTS):
        return
    if not (part / "config.json").is_file():
        raise UserError(f"{part.parent} is torn: {part.name}/config.json is missing; copy or download it again")
    read_json(part / "config.json")
    for file in weight_files(part):
        _check_weights(file)


def _check_tokenizer(part: Path) -> None:
    """transformers makes a tokenizer of two words, without a complaint, where the vocabulary is missing."""
    names = {file.name for file in part.iterdir() if not file.name.startswith(".")}
    wanted = {"tokenizer_config.json"} | ({"merges.txt"} if names & PAIRED == {"vocab.json"} else set())
    lost = ["its vocabulary"] if names <= NO_VOCABULARY else sorted(wanted - names)
    if lost:
        raise UserError(f"{part.parent} is torn: {part.name} lacks {lost[0]}; copy or download it again")


def weight_files(part: Path) -> list[Path]:
    """The safetensors files of one network, named shards included. Raises UserError if there are none."""
    named = {part / shard for index in part.glob("*.safetensors.index.json") for shard in _shards(index)}
    files = sorted(named | set(part.glob("*.safetensors")))
    if files:
        return files
    if any(file for pattern in PICKLES for file in part.glob(pattern)):
        raise UserError(
            f"{part} holds its weights only as pickle, which is never loaded; "
            "save the model again with safe_serialization=True"
        )
    raise UserError(f"{part.parent} is torn: {part.name} has no weights (*.safetensors); copy or download it again")


def _shards(index: Path) -> set[str]:
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict):
        raise UserError(f"{index} is damaged (no weight_map); copy or download the folder again")
    return {str(shard) for shard in table.values()}


def _check_weights(file: Path) -> None:
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise UserError(
            f"{file.parent.parent} is torn: {file.parent.name}/{file.name} is missing; copy or download it again"
        )
    try:
        with safe_open(file, framework="np") as weights:
            weights.keys()
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is damaged or incomplete ({_reason(error)}); copy or download it again") from error


def _reason(error: Exception) -> str:
    return str(error).removeprefix("Error while deserializing header: ").splitlines()[0]
