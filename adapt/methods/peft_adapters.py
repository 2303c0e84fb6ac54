"""Everything that PEFT offers, by one implementation: a configuration class and its options as data."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import cast_adapter_dtype
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from adapt.config import TrainConfig
from adapt.methods.base import CONFIG_FILE, NAME, WEIGHTS_FILE, Method, Reach, with_adapters
from adapt.targets import matched
from spectra.errors import UserError

PREFIX = "base_model.model."
"""What PeftModel calls the denoiser in the files it writes."""

Options = Callable[[TrainConfig], dict[str, Any]]


def peft_method(name: str, kind: type[Any], options: Options, **more: Any) -> Method:
    """The method `name`, whose adapters PEFT's configuration class `kind` describes."""

    def settings(config: TrainConfig, targets: list[str], prior: object, pipe: object) -> Any:
        return kind(target_modules=list(targets), **options(config))

    return Method(
        name, settings, save=save_peft, load=lambda denoiser, folder: load_peft(denoiser, folder, kind),
        base=without_adapter, insert=insert, go_on=go_on, **more,
    )  # fmt: skip


def insert(denoiser: Any, settings: Any) -> None:
    """Add a new adapter, in float32 whatever the base is."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Invalid `(oft_block_size|r)`")  # the nearest divisor is meant
        with_adapters(denoiser).add_adapter(settings, NAME)
    cast_adapter_dtype(denoiser, NAME)
    for name, parameter in denoiser.named_parameters():
        if name.endswith(f".ranknum.{NAME}"):  # AdaLoRA's divisor, which PEFT makes trainable when it moves it
            parameter.requires_grad_(False)


def go_on(denoiser: Any, settings: Any, folder: Path) -> None:
    """Add an adapter that starts with the saved weights; UserError where its settings give other tensors."""
    insert(denoiser, settings)
    fill(denoiser, tensors_of(folder), folder)


def save_peft(denoiser: Any, folder: Path) -> None:
    """A PEFT folder that `peft.PeftModel.from_pretrained` reads too."""
    with _whole(denoiser.peft_config[NAME]) as settings:
        tensors = _state(denoiser)
        write_settings(folder, settings.to_dict() | {"inference_mode": True})
    write_tensors(folder, {PREFIX + key: value for key, value in tensors.items()})


@contextmanager
def _whole(settings: Any) -> Iterator[Any]:
    """AdaLoRA would cut its tensors to the pattern of ranks; whole, with zeros, they are the same update."""
    pattern = getattr(settings, "rank_pattern", None)
    if isinstance(settings, peft.AdaLoraConfig):
        settings.rank_pattern = None
    try:
        yield settings
    finally:
        if isinstance(settings, peft.AdaLoraConfig):
            settings.rank_pattern = pattern


def write_settings(folder: Path, settings: dict[str, Any]) -> None:
    """`adapter_config.json`, equal settings as equal bytes."""
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in settings.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(plain, indent=2, sort_keys=True) + "\n"
        (folder / CONFIG_FILE).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write the adapter to {folder}: {error.strerror or error}") from error


def write_tensors(folder: Path, tensors: dict[str, Tensor]) -> None:
    """`adapter_model.safetensors`."""
    whole = {key: value.detach().contiguous().cpu() for key, value in tensors.items()}
    try:
        save_file(whole, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write the adapter to {folder}: {error}") from error


def load_peft(denoiser: Any, folder: Path, kind: type[Any] = peft.LoraConfig) -> None:
    """Attach a saved adapter, frozen; UserError where it is unreadable or its tensors are not exactly the model's."""
    try:
        settings = kind.from_pretrained(str(folder))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"the adapter {folder} cannot be read: {error}") from None
    tensors = tensors_of(folder)
    try:
        insert(denoiser, settings)
    except (ValueError, TypeError) as error:
        raise UserError(f"the adapter {folder} does not fit {type(denoiser).__name__}: {error}") from None
    fill(denoiser, tensors, folder)
    denoiser.requires_grad_(False)


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """The tensors of a PEFT folder by the denoiser's own names."""
    try:
        found = load_file(folder / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise UserError(f"the adapter {folder} cannot be read: {error}") from None
    return {key.removeprefix(PREFIX): value for key, value in found.items()}


def fill(denoiser: Any, tensors: dict[str, Tensor], folder: Path) -> None:
    """Give the adapter these weights; where they are not exactly its own, take it off and raise UserError."""
    wanted = _state(denoiser)
    problem = difference(wanted, tensors)
    if problem:
        denoiser.delete_adapters(NAME)
        raise UserError(f"the adapter {folder} does not fit {type(denoiser).__name__}; {problem}")
    set_peft_model_state_dict(denoiser, tensors, adapter_name=NAME)


def difference(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> str:
    """What is wrong with `found`, in words; empty where names and shapes are those of `wanted`."""
    missing, unexpected = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if missing or unexpected:
        said = [f"{len(keys)} tensors {word} (first: {keys[0]})" for word, keys in
                (("are missing", missing), ("are not known", unexpected)) if keys]  # fmt: skip
        return " and ".join(said)
    wrong = [key for key, value in wanted.items() if value.shape != found[key].shape]
    shapes = f"{tuple(found[wrong[0]].shape)} instead of {tuple(wanted[wrong[0]].shape)}" if wrong else ""
    return f"{wrong[0]} is {shapes}" if wrong else ""


@contextmanager
def without_adapter(denoiser: Any) -> Iterator[None]:
    """Inside, the denoiser answers without the adapter."""
    trainable = [p for p in denoiser.parameters() if p.requires_grad]
    denoiser.disable_adapters()
    try:
        yield
    finally:
        denoiser.enable_adapters()
        denoiser.requires_grad_(False)
        for parameter in trainable:
            parameter.requires_grad_(True)


def only(can: Callable[[nn.Module], bool], reason: str) -> Callable[[Any, list[str]], Reach]:
    """The reach of a method that adapts the layers for which `can` holds."""

    def reach(denoiser: Any, targets: list[str]) -> Reach:
        kept: list[str] = []
        left_out: list[str] = []
        for ending in targets:
            names = matched(denoiser, ending)
            able = [name for name in names if can(denoiser.get_submodule(name))]
            kept += [ending] if len(able) == len(names) else able
            left_out += [name for name in names if name not in able]
        return Reach(kept, left_out, reason if left_out else "")

    return reach


def _state(denoiser: Any) -> dict[str, Tensor]:
    found: dict[str, Tensor] = get_peft_model_state_dict(denoiser, adapter_name=NAME, save_embedding_layers=False)
    return found


def _lora(config: TrainConfig) -> dict[str, Any]:
    return {"r": config.rank, "lora_alpha": config.alpha or config.rank, "lora_dropout": config.dropout}


def _dora(config: TrainConfig) -> dict[str, Any]:
    return _lora(config) | {"use_dora": True}


def _adalora(config: TrainConfig) -> dict[str, Any]:
    """Begins with half as many ranks again, and keeps `rank` of them on average."""
    start = max(config.rank + 1, round(1.5 * config.rank))
    scaling = (config.alpha or config.rank) / config.rank
    return {
        "init_r": start, "target_r": config.rank, "lora_alpha": scaling * start, "lora_dropout": config.dropout,
        "total_step": config.steps, "tinit": config.steps // 10, "tfinal": config.steps // 3,
    }  # fmt: skip


def _hadamard(config: TrainConfig) -> dict[str, Any]:
    return {"r": config.rank, "alpha": config.alpha or config.rank}


def _oft(config: TrainConfig) -> dict[str, Any]:
    return {"r": 0, "oft_block_size": config.rank}


def _ia3(config: TrainConfig) -> dict[str, Any]:
    return {"feedforward_modules": []}


def _narrow(module: nn.Module) -> bool:
    return not isinstance(module, nn.Conv2d) or (module.kernel_size == (1, 1) and module.stride == (1, 1))


OFT_REACH = only(
    _narrow, "PEFT's OFT of a convolution wider than 1 x 1 changes the output even before training, so it is not used"
)


def methods() -> dict[str, Method]:
    """The methods of PEFT by name."""
    from adapt.methods import rank_allocation

    return {
        "lora": peft_method("lora", peft.LoraConfig, _lora),
        "dora": peft_method("dora", peft.LoraConfig, _dora),
        "adalora": peft_method(
            "adalora", peft.AdaLoraConfig, _adalora, after_step=rank_allocation.allocate,
            penalty=rank_allocation.orthogonality, state=rank_allocation.state, restore=rank_allocation.restore,
        ),
        "loha": peft_method("loha", peft.LoHaConfig, _hadamard, lacks=("dropout",)),
        "lokr": peft_method("lokr", peft.LoKrConfig, _hadamard, lacks=("dropout",)),
        "oft": peft_method("oft", peft.OFTConfig, _oft, reach=OFT_REACH, lacks=("dropout", "alpha")),
        "ia3": peft_method("ia3", peft.IA3Config, _ia3, lacks=("rank", "dropout", "alpha")),
    }  # fmt: skip
