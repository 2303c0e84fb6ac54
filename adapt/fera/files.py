"""FeRA adapters on disk: PEFT folders of settings (JSON) and tensors (safetensors)."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any, cast

import safetensors
from peft import inject_adapter_in_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from adapt.fera.config import FeraConfig, config_from_json
from adapt.fera.layer import FeraLayer, FeraProjection
from adapt.fera.model import denoiser_of, router_of, unload, unwrap
from spectra.errors import UserError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
_PEFT_PREFIX = "base_model.model."  # what PeftModel calls the denoiser in the files it writes


def save_fera(
    pipe_or_model: Any,
    path: str | Path,
    adapter_name: str = "default",
    *,
    state_dict: dict[str, Tensor] | None = None,
) -> Path:
    """Write an adapter as a PEFT folder, which `load_fera` and `peft.PeftModel.from_pretrained` both read.

    `state_dict` replaces the model's own where its parameters are sharded: give `accelerator.get_state_dict(model)`,
    which every process must call; one of them saves.

    Raises UserError where there is no FeRA adapter of that name, or the folder cannot be written.
    """
    model, folder = denoiser_of(pipe_or_model), Path(path)
    config = getattr(model, "peft_config", {}).get(adapter_name)
    if not isinstance(config, FeraConfig):
        raise UserError(f"{type(model).__name__} has no FeRA adapter {adapter_name!r} to save")
    tensors = get_peft_model_state_dict(model, state_dict, adapter_name=adapter_name, save_embedding_layers=False)
    tensors = {_PEFT_PREFIX + key: value.detach().contiguous().cpu() for key, value in tensors.items()}
    try:
        config.save_pretrained(str(folder))
        save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    except (OSError, AssertionError, safetensors.SafetensorError) as error:
        raise UserError(f"cannot write the adapter to {folder}: {error}") from error
    return folder


def load_fera(
    pipe_or_model: Any, path: str | Path, adapter_name: str = "default", *, trainable: bool = False
) -> FeraConfig:
    """Attach a saved FeRA adapter, under any name, and make it the active one.

    `path` is a PEFT folder or a run directory that holds one as `adapter`.  Raises UserError where the folder is
    missing or torn, its settings are of another version or method, or its tensors are not exactly those that the model
    needs; the model is then as it was.
    """
    model, folder = denoiser_of(pipe_or_model), _adapter_folder(Path(path))
    if adapter_name in getattr(model, "peft_config", {}):
        raise UserError(f"{type(model).__name__} has an adapter {adapter_name!r}: choose another name or unload it")
    config, tensors = _read(folder)
    config.inference_mode = not trainable
    router = router_of(model)
    active = [] if router is None else list(cast(Any, router).active_adapters)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # a second adapter is no mistake
        inject_adapter_in_model(config, model, adapter_name)
    try:
        _check_tensors(model, tensors, adapter_name, folder)
        set_peft_model_state_dict(model, tensors, adapter_name=adapter_name)
    except Exception:
        _take_back(model, adapter_name, active)
        raise
    if hasattr(model, "_hf_peft_config_loaded"):
        cast(Any, model)._hf_peft_config_loaded = True  # diffusers' sign that its own adapter calls may work
    return cast(FeraConfig, cast(Any, model).peft_config[adapter_name])


def _take_back(model: nn.Module, adapter_name: str, active: list[str]) -> None:
    """Undo an injection: `active` adapters were active before it; without any other adapter everything goes."""
    configs = cast(dict[str, FeraConfig], model.peft_config)
    if len(configs) == 1:
        unload(model)
        return
    for name, module in list(model.named_modules()):
        if not isinstance(module, FeraLayer):
            continue
        module._active_adapter = active  # first, so that deleting does not pick another one
        module.delete_adapter(adapter_name)
        if isinstance(module, FeraProjection) and not module.kinds:  # only the adapter that is gone had wrapped it
            unwrap(model, name, module)
    del configs[adapter_name]


def _adapter_folder(path: Path) -> Path:
    for folder in (path, path / "adapter"):
        if (folder / CONFIG_FILE).is_file():
            return folder
    raise UserError(f"{path} holds no adapter: it has no {CONFIG_FILE}, nor has a folder 'adapter' inside it")


def _read(folder: Path) -> tuple[FeraConfig, dict[str, Tensor]]:
    try:
        saved = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        config = config_from_json(saved, str(folder / CONFIG_FILE))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / CONFIG_FILE} cannot be read as adapter settings: {error}") from error
    try:
        tensors = load_file(folder / WEIGHTS_FILE)
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{folder / WEIGHTS_FILE} cannot be read as safetensors: {error}") from error
    return config, {key.removeprefix(_PEFT_PREFIX): value for key, value in tensors.items()}


def _check_tensors(model: nn.Module, tensors: dict[str, Tensor], adapter_name: str, folder: Path) -> None:
    wanted = get_peft_model_state_dict(model, adapter_name=adapter_name, save_embedding_layers=False)
    missing, unexpected = sorted(set(wanted) - set(tensors)), sorted(set(tensors) - set(wanted))
    if missing or unexpected:
        parts = [f"{len(keys)} {kind} (first: {keys[0]})" for kind, keys in
                 (("missing", missing), ("unexpected", unexpected)) if keys]  # fmt: skip
        raise UserError(f"the adapter in {folder} does not fit {type(model).__name__}: tensors {' and '.join(parts)}")
    wrong = [key for key, value in wanted.items() if value.shape != tensors[key].shape]
    if wrong:
        shapes = f"{tuple(tensors[wrong[0]].shape)} instead of {tuple(wanted[wrong[0]].shape)}"
        raise UserError(f"the adapter in {folder} does not fit {type(model).__name__}: {wrong[0]} is {shapes}")
