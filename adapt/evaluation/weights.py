"""Files of weights: what a safetensors file holds, read from its header, and by which digest it is known."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from spectra.errors import UserError

PICKLES = frozenset((".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"))
DOWN = (
    ".lora_A.weight",
    ".lora_down.weight",
    ".lora.down.weight",
    "_lora.down.weight",
    ".lora_linear_layer.down.weight",
)
"""Endings of the first factor of a layer, as PEFT, kohya and older versions of diffusers write it."""
FOREIGN = {"hada_w1": "LoHa", "lokr_w1": "LoKr", "oft_blocks": "OFT", "oft_diag": "OFT"}
"""Part of a name -> kind of adapter that kohya's trainers write and diffusers does not read."""
PEFT_PREFIX = "base_model.model."
MAGNITUDES = ("lora_magnitude_vector", "dora_scale")


def names_in(file: Path) -> list[str]:
    """Names of the tensors of a safetensors file; UserError where it is none."""
    refuse_pickle(file)
    try:
        with safe_open(file, framework="numpy") as opened:
            return sorted(opened.keys())
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file} cannot be read as safetensors: {error}; copy or save it again") from None


def refuse_pickle(file: Path) -> None:
    """UserError for a kind of file that may run code when it is read."""
    if file.suffix.lower() in PICKLES:
        raise UserError(f"{file} is pickled, and pickled weights are not read; save it as safetensors")


def kind_of_file(file: Path) -> str:
    """What a safetensors file is: lora, dora, or full (all weights of a denoiser).

    Raises:
        UserError: a kind that diffusers cannot put on a pipeline, or a whole model in one file.
    """
    names = names_in(file)
    foreign = next((kind for part, kind in FOREIGN.items() if any(part in name for name in names)), None)
    if foreign:
        raise UserError(
            f"{file} is a {foreign} of kohya's kind, which diffusers does not read; give a PEFT folder of it"
        )
    if any(name.startswith("model.diffusion_model.") for name in names):
        raise UserError(f"{file} is a whole model in one file; convert it to a folder of diffusers and give that")
    if any(part in name for name in names for part in MAGNITUDES):
        return "dora"
    return "lora" if layers_of(names) else "full"


def layers_of(names: Iterable[str]) -> set[str]:
    """The layers that a LoRA file names, each in the words of its writer."""
    return {name.removesuffix(ending) for name in names for ending in DOWN if name.endswith(ending)}


def of_peft_folder(names: Iterable[str]) -> bool:
    """True for tensors named as PEFT names them in its folders, whose settings are in a file beside them."""
    return any(name.startswith(PEFT_PREFIX) for name in names)


def digest_of(files: Iterable[Path]) -> str:
    """SHA-256 of a file; of several, that of the lines `digest  name` in their order."""
    named = [(_sha256(file), file.name) for file in files]
    if len(named) == 1:
        return named[0][0]
    lines = "".join(f"{digest}  {name}\n" for digest, name in named)
    return hashlib.sha256(lines.encode()).hexdigest()


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from None
