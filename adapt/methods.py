"""The adapters that the one loop trains: how each is attached, asked for its base's answer, saved and loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from adapt.config import TrainConfig
from spectra.errors import UserError

if TYPE_CHECKING:
    from adapt.prior import Prior

NAME = "default"
"""Name of the adapter inside the denoiser."""
CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_PEFT_PREFIX = "base_model.model."


@dataclass(frozen=True)
class Method:
    """One kind of adapter; `denoiser` is a diffusers model."""

    settings: Callable[[TrainConfig, list[str], Prior | None], Any]
    """(config, targets, prior) -> PEFT configuration."""
    save: Callable[[Any, Path], object]
    """(denoiser, folder): write a PEFT folder."""
    load: Callable[[Any, Path], object]
    """(denoiser, folder): attach a saved adapter."""
    gates: Callable[[Any], Tensor | None]
    """Gates (batch, experts) of the denoiser's last call; None for adapters without any."""
    base: Callable[[Any], AbstractContextManager[None]]
    """Inside, the denoiser answers without the adapter."""

    def attach(self, denoiser: Any, config: TrainConfig, targets: list[str], prior: Prior | None) -> None:
        """Freeze the base and add a new, trainable adapter."""
        denoiser.requires_grad_(False)
        denoiser.add_adapter(self.settings(config, targets, prior), NAME)


def _lora_settings(config: TrainConfig, targets: list[str], prior: Prior | None) -> Any:
    from peft import LoraConfig

    return LoraConfig(r=config.rank, lora_alpha=config.rank, target_modules=targets)


def _save_lora(denoiser: Any, folder: Path) -> None:
    """A PEFT folder that `peft.PeftModel.from_pretrained` reads too."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    tensors = get_peft_model_state_dict(denoiser, adapter_name=NAME)
    settings = denoiser.peft_config[NAME].to_dict() | {"inference_mode": True}
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in settings.items()}
    folder.mkdir(parents=True)
    (folder / CONFIG_FILE).write_text(json.dumps(plain, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    whole = {_PEFT_PREFIX + key: value.detach().contiguous().cpu() for key, value in tensors.items()}
    save_file(whole, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def _load_lora(denoiser: Any, folder: Path) -> None:
    from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        settings = LoraConfig.from_pretrained(str(folder))
        tensors = load_file(folder / WEIGHTS_FILE)
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise UserError(f"the adapter {folder} cannot be read: {error}") from None
    tensors = {key.removeprefix(_PEFT_PREFIX): value for key, value in tensors.items()}
    denoiser.add_adapter(settings, NAME)
    wanted = get_peft_model_state_dict(denoiser, adapter_name=NAME)
    shapes = ({key: value.shape for key, value in held.items()} for held in (wanted, tensors))
    if next(shapes) != next(shapes):
        denoiser.delete_adapters(NAME)
        raise UserError(f"the adapter {folder} does not fit {type(denoiser).__name__}; its tensors are other ones")
    set_peft_model_state_dict(denoiser, tensors, adapter_name=NAME)


@contextmanager
def _without_lora(denoiser: Any) -> Iterator[None]:
    denoiser.disable_adapters()
    try:
        yield
    finally:
        denoiser.enable_adapters()


def _fera_settings(config: TrainConfig, targets: list[str], prior: Prior | None) -> Any:
    from adapt.fera import FeraConfig

    rank = config.rank // config.experts
    if prior is None:
        return FeraConfig(r=rank, num_experts=config.experts, target_modules=targets)
    return prior.fera_config(r=rank, num_experts=config.experts, target_modules=targets)


def _save_fera(denoiser: Any, folder: Path) -> None:
    from adapt.fera import save_fera

    save_fera(denoiser, folder, NAME)


def _load_fera(denoiser: Any, folder: Path) -> None:
    from adapt.fera import load_fera

    load_fera(denoiser, folder, NAME)


def _fera_gates(denoiser: Any) -> Tensor | None:
    from adapt.fera import gates_of

    return gates_of(denoiser)


def _without_fera(denoiser: Any) -> AbstractContextManager[None]:
    from adapt.fera import base_output

    return base_output(denoiser)


METHODS: dict[str, Method] = {
    "lora": Method(_lora_settings, _save_lora, _load_lora, lambda denoiser: None, _without_lora),
    "fera": Method(_fera_settings, _save_fera, _load_fera, _fera_gates, _without_fera),
}


def load_adapter(denoiser: Any, folder: Path) -> str:
    """Attach the adapter that a PEFT folder holds; returns its method.

    Raises:
        UserError: no adapter there, an unknown kind, or one that does not fit.
    """
    try:
        kind = str(json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))["peft_type"]).lower()
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder} holds no adapter: its {CONFIG_FILE} is missing or unreadable") from None
    if kind not in METHODS:
        raise UserError(f"{folder} holds a {kind.upper()} adapter; known kinds: {', '.join(METHODS)}")
    METHODS[kind].load(denoiser, folder)
    return kind
