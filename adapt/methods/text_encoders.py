"""Text encoders that learn: a LoRA on each CLIP one, or all of it with `full`, saved beside the denoiser's adapter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from adapt.config import TrainConfig
from adapt.methods import full
from adapt.methods.base import CONFIG_FILE, NAME, grouped, kind_of
from adapt.methods.folders import find_adapter
from adapt.methods.peft_adapters import (
    PREFIX,
    difference,
    tensors_of,
    without_adapter,
    write_settings,
    write_tensors,
)
from spectra.errors import UserError

TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")
"""The attention of CLIP: what diffusers and kohya train in a text encoder."""
PARTS = ("text_encoder", "text_encoder_2", "text_encoder_3")


def clip_encoders(pipe: Any) -> dict[str, nn.Module]:
    """The CLIP text encoders of a pipeline by the names of its components."""
    found = {name: getattr(pipe, name, None) for name in PARTS}
    return {name: part for name, part in found.items() if part is not None and type(part).__name__.startswith("CLIP")}


def check_text_encoders(pipe: Any) -> None:
    """UserError where a pipeline has no text encoder that could be trained."""
    if not clip_encoders(pipe):
        raise UserError(f"text_encoder: {type(pipe).__name__} has no CLIP text encoder to train; leave it out")


def attach_text_encoders(pipe: Any, config: TrainConfig) -> dict[str, nn.Module]:
    """Freeze every CLIP text encoder and add a trainable LoRA of the run's rank; returns the encoders.

    With the method `full` all their weights learn instead.
    What `config.start_from` holds of an encoder is gone on from.

    Raises:
        UserError: the pipeline has no CLIP text encoder, or saved weights do not fit.
    """
    check_text_encoders(pipe)
    encoders = clip_encoders(pipe)
    started = None if config.start_from is None else find_adapter(config.start_from)[0]
    for name, encoder in encoders.items():
        encoder.requires_grad_(False)
        if config.method == "full":
            full.insert(encoder, None)
        else:
            _add(encoder, _settings(config))
        if started is not None and (started / name / CONFIG_FILE).is_file():
            _go_on(encoder, started / name)
    return encoders


def _settings(config: TrainConfig) -> LoraConfig:
    return LoraConfig(
        r=config.rank, lora_alpha=config.alpha or config.rank, lora_dropout=config.dropout,
        target_modules=list(TARGETS),
    )  # fmt: skip


def _go_on(encoder: Any, folder: Path) -> None:
    """Start from saved weights; UserError where they do not fit what was attached."""
    if full.learns(encoder):
        full.go_on(encoder, None, folder)
    else:
        _fill(encoder, tensors_of(folder), folder)


def text_groups(encoders: Mapping[str, nn.Module], lr: float, config: TrainConfig) -> list[dict[str, Any]]:
    """Groups for the optimizer of what is trained in the encoders."""
    named = {f"{part}.{name}": p for part, encoder in encoders.items() for name, p in encoder.named_parameters()}
    return grouped({name: p for name, p in named.items() if p.requires_grad}, lr, config.weight_decay)


def save_text_encoders(pipe: Any, folder: Path) -> None:
    """Write each adapted encoder's LoRA, or all its weights, as a PEFT folder inside `folder`."""
    for name, encoder in adapted(pipe):
        if full.learns(encoder):
            full.save(encoder, folder / name)
            continue
        settings: Any = encoder.peft_config
        write_settings(folder / name, settings[NAME].to_dict() | {"inference_mode": True})
        write_tensors(folder / name, {PREFIX + key: value for key, value in _state(encoder).items()})


def load_text_encoders(pipe: Any, folder: Path) -> list[str]:
    """Attach the LoRAs of encoders that `folder` holds beside the denoiser's; returns the names of their encoders.

    Raises:
        UserError: a LoRA of an encoder that the pipeline has not, or that does not fit.
    """
    held = [name for name in PARTS if (folder / name / CONFIG_FILE).is_file()]
    encoders = clip_encoders(pipe)
    for name in set(held) - set(encoders):
        raise UserError(f"{folder / name} is a LoRA of a text encoder that this {type(pipe).__name__} lacks")
    for name in held:
        load = full.load if kind_of(folder / name) == "full" else _load
        load(encoders[name], folder / name)
    return held


def adapted(pipe: Any) -> Iterator[tuple[str, nn.Module]]:
    """The encoders that have a LoRA, or learn with all their weights."""
    for name, part in clip_encoders(pipe).items():
        if NAME in getattr(part, "peft_config", {}) or full.learns(part):
            yield name, part


@contextmanager
def base_encoders(pipe: Any) -> Iterator[None]:
    """Inside, the text encoders encode as they did before they learned."""
    with ExitStack() as stack:
        for _, encoder in adapted(pipe):
            stack.enter_context(full.base(encoder) if full.learns(encoder) else without_adapter(encoder))
        yield


def encode_now(pipe: Any, captions: list[str], defaults: Mapping[str, Any]) -> dict[str, Tensor]:
    """Conditioning of captions by the encoders as they are now, with gradients: name -> (captions, ...) float32.

    What the cache holds for each caption, made anew: needed in each step where the encoders learn.
    """
    from datasets_cache.families import encoding_family

    family = encoding_family(pipe)
    parts = [family.text(pipe, caption, defaults) for caption in captions]
    return {name: torch.cat([part[name] for part in parts]).float() for name in parts[0]}


def _load(encoder: nn.Module, folder: Path) -> None:
    try:
        settings = LoraConfig.from_pretrained(str(folder))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"the adapter {folder} cannot be read: {error}") from None
    tensors = tensors_of(folder)
    _add(encoder, settings)
    _fill(encoder, tensors, folder)
    encoder.requires_grad_(False)


def _fill(encoder: nn.Module, tensors: dict[str, Tensor], folder: Path) -> None:
    """Give the LoRA these weights; where they are not exactly its own, take it off and raise UserError."""
    problem = difference(_state(encoder), tensors)
    if problem:
        remove(encoder)
        raise UserError(f"the adapter {folder} does not fit {type(encoder).__name__}; {problem}")
    set_peft_model_state_dict(encoder, tensors, adapter_name=NAME)


def remove(encoder: nn.Module) -> None:
    """Make a text encoder what it was before it learned, in place."""
    from adapt.fera import unload

    if full.learns(encoder):
        full.remove(encoder)
    unload(encoder)


def _add(encoder: Any, settings: Any) -> None:
    encoder.add_adapter(settings, adapter_name=NAME)
    for parameter in encoder.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _state(encoder: nn.Module) -> dict[str, Tensor]:
    found: dict[str, Tensor] = get_peft_model_state_dict(encoder, adapter_name=NAME, save_embedding_layers=False)
    return found
