"""Which model is this? A hash of what the networks compute with, independent of where the model lies."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

# Names that adapters and compilers weave into a network's keys.
WRAPPERS = ("_orig_mod.", "base_model.model.", "base_layer.")
ADAPTER_PREFIXES = ("lora_", "fera_")
# Kept by libraries for themselves; they say where or with what a model was loaded, not what it is.
BOOKKEEPING = frozenset({"_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures"})
CHECKERS = frozenset({"safety_checker"})


def networks(pipe: Any) -> dict[str, nn.Module]:
    """The networks that make a picture: denoiser, VAE, text and image encoders."""
    from torch import nn

    parts = {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}
    return {name: parts[name] for name in sorted(parts) if name not in CHECKERS}


def pipeline_hash(pipe: Any) -> str:
    """32 hex digits of SHA-256 over weights and configurations.

    Weights count by value, as float32, so a model stored in half precision and opened in full precision keeps its hash.
    Adapters that are attached do not count; neither do the scheduler, the folder, nor versions of libraries.
    """
    digest = hashlib.sha256()
    for name, network in networks(pipe).items():
        digest.update(f"{name} {json.dumps(settings(network), sort_keys=True, default=str)}\n".encode())
        for key, tensor in sorted(base_weights(network)):
            digest.update(f"{key} {tuple(tensor.shape)}\n".encode())
            digest.update(_bytes(tensor))
    return digest.hexdigest()[:32]


def base_weights(network: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Key and value of every tensor of the base model, whatever adapters are attached."""
    for key, tensor in _weights(network).items():
        if any(part.startswith(ADAPTER_PREFIXES) for part in key.split(".")):
            continue
        for wrapper in WRAPPERS:
            key = key.replace(wrapper, "")
        yield key, tensor


def _weights(network: nn.Module) -> Mapping[str, torch.Tensor]:
    """The state dict, with the values of weights that accelerate keeps elsewhere until they are needed."""
    state = network.state_dict()
    if not any(tensor.is_meta for tensor in state.values()):
        return state
    from accelerate.utils.modeling import get_state_dict_offloaded_model

    offloaded: Mapping[str, torch.Tensor] = get_state_dict_offloaded_model(network)
    return offloaded


def _bytes(tensor: torch.Tensor) -> bytes:
    values = tensor.detach().cpu()
    return (values.float() if values.is_floating_point() else values).contiguous().numpy().tobytes()


def settings(network: nn.Module) -> dict[str, Any]:
    """The configuration as far as it differs from the class's defaults, so that options added later change nothing."""
    config: Any = getattr(network, "config", None)
    if config is None:
        return {}
    if hasattr(config, "to_diff_dict"):  # transformers
        return _without_bookkeeping(config.to_diff_dict())
    return _without_bookkeeping(_differing(dict(config), type(getattr(network, "_orig_mod", network))))


def _differing(config: Mapping[str, Any], owner: type) -> dict[str, Any]:
    parameters = inspect.signature(owner.__init__).parameters  # type: ignore[misc]
    defaults = {name: _plain(parameter.default) for name, parameter in parameters.items()}
    return {key: value for key, value in config.items() if key not in defaults or _plain(value) != defaults[key]}


def _plain(value: Any) -> Any:
    """Tuples become lists, as they do on their way through JSON."""
    return list(value) if isinstance(value, tuple) else value


def _without_bookkeeping(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in BOOKKEEPING and not key.startswith("_")}
