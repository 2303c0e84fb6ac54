"""Export folders, written whole or not at all, and LoRA files in the form of diffusers."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from adapt.export.factors import Factors
from spectra.errors import UserError

LORA_FILE = "pytorch_lora_weights.safetensors"
"""The name that diffusers looks for."""
FACTS_FILE = "export.json"


@contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """Yield a hidden folder beside `out` that becomes `out` on success and is removed on any exception.

    Raises:
        UserError: `out` exists, or cannot be written.
    """
    check_free(out)
    scratch = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}.unfinished-", dir=out.parent))
        yield scratch
        check_free(out)
        scratch.chmod(0o755)
        scratch.rename(out)
    except OSError as error:
        raise UserError(f"cannot write the export {out}: {error.strerror or error}") from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def check_free(out: Path) -> None:
    """UserError unless an export may be written at `out`."""
    if out.exists() or out.is_symlink():
        raise UserError(f"{out} exists; choose another name for the export or remove it")


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """`export.json`: where an export came from, and how near it is."""
    text = json.dumps(facts, indent=2, ensure_ascii=False)
    (folder / FACTS_FILE).write_text(text + "\n", encoding="utf-8")


def write_lora(path: Path, parts: Mapping[str, Mapping[str, Factors]]) -> None:
    """A LoRA file of diffusers: component of the pipeline -> layer -> factors, with the settings as metadata."""
    tensors: dict[str, Tensor] = {}
    settings: dict[str, Any] = {}
    for part, factors in parts.items():
        for name, found in factors.items():
            tensors |= {f"{part}.{name}.lora_A.weight": found.down, f"{part}.{name}.lora_B.weight": found.up}
            if found.magnitude is not None:
                tensors[f"{part}.{name}.lora_magnitude_vector"] = found.magnitude
        settings |= {f"{part}.{key}": value for key, value in lora_settings(factors).items()}
    write_file(path, tensors, {"format": "pt", "lora_adapter_metadata": json.dumps(settings, indent=2, sort_keys=True)})


def lora_settings(factors: Mapping[str, Factors]) -> dict[str, Any]:
    """The LoraConfig of factors, as plain JSON values; alpha is the rank of each layer.

    Layers of text encoders are named by their endings, because versions of transformers differ in what comes before.
    """
    ranks = {name: found.rank for name, found in factors.items()}
    common = max(ranks.values())
    others = {name: rank for name, rank in ranks.items() if rank != common}
    targets = {name.rpartition(".")[2] if name.startswith("text_model.") else name for name in ranks}
    made = LoraConfig(
        r=common, lora_alpha=common, target_modules=sorted(targets), rank_pattern=others, alpha_pattern=dict(others),
        use_dora=any(found.magnitude is not None for found in factors.values()), inference_mode=True,
    ).to_dict()  # fmt: skip
    return {key: sorted(value) if isinstance(value, set) else value for key, value in made.items()}


def write_file(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """A safetensors file; UserError where it cannot be written."""
    plain = {key: value.detach().contiguous().cpu() for key, value in tensors.items()}
    try:
        save_file(plain, path, metadata=dict(metadata))
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write {path.name} of the export: {error}") from error
