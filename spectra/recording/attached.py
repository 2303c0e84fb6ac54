"""Which PEFT adapters act on a pipeline, and which weights they have."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass
class Attached:
    """Looks at the adapters of one pipeline, and hashes weights only when they are not the tensors of last time."""

    pipe: Any
    hashes: dict[tuple[str, str], tuple[Any, str]] = field(default_factory=dict)

    def look(self, arguments: Mapping[str, Any] | None = None) -> tuple[str, str]:
        """Names of the adapters that act, joined by +, and JSON that describes them; both empty without any.

        Per network and adapter: its name, its scale, and 32 hex digits of SHA-256 over its weights, which count by name
        and by value, as float32. `scale` is what the layers multiply an update with: a number where all agree, else
        their smallest and largest, null where they have none. `arguments` of a call may scale it, as diffusers does.
        """
        acting, factor = list(self._acting()), call_scale(arguments or {})
        names = "+".join(dict.fromkeys(name for _, _, layers in acting for name in layers))
        rows = [
            {
                "network": part,
                "name": name,
                "scale": _scale(found, name, factor),
                "hash": self._hash(part, network, name),
            }
            for part, network, layers in acting
            for name, found in layers.items()
        ]
        return names, json.dumps(rows, sort_keys=True) if rows else ""

    def _acting(self) -> Iterator[tuple[str, nn.Module, dict[str, list[Any]]]]:
        """Networks with adapters that act, and the layers of each adapter."""
        if "peft" not in sys.modules:
            return
        from peft.tuners.tuners_utils import BaseTunerLayer
        from torch import nn

        for part, network in self.pipe.components.items():
            layers: dict[str, list[Any]] = {}
            for layer in _modules(network) if isinstance(network, nn.Module) else ():
                if isinstance(layer, BaseTunerLayer) and not layer.disable_adapters:
                    for name in layer.active_adapters:
                        layers.setdefault(name, []).append(layer)
            if layers:
                yield part, network, layers

    def _hash(self, part: str, network: nn.Module, name: str) -> str:
        tensors = adapter_tensors(network, name)
        now = [(key, id(tensor), tensor._version, tensor.data_ptr()) for key, tensor in tensors.items()]
        before, known = self.hashes.get((part, name), (None, ""))
        if before != now:
            known = content_hash(tensors)
            self.hashes[part, name] = now, known
        return known


def _modules(network: nn.Module) -> Iterator[nn.Module]:
    """All modules in their order, five times as fast as `network.modules()`: this is looked at in every call."""
    waiting = [network]
    while waiting:
        module = waiting.pop()
        yield module
        if module._modules:  # most have none
            waiting += [child for child in reversed(module._modules.values()) if child is not None]


def adapter_tensors(network: nn.Module, name: str) -> dict[str, Tensor]:
    """Parameters and buffers of the adapter `name`, by key: PEFT keeps them under its name, beside the base weights."""
    every = (*network.named_parameters(), *network.named_buffers())
    return {key: tensor for key, tensor in sorted(every) if name in key.split(".")}


def content_hash(tensors: dict[str, Tensor]) -> str:
    """32 hex digits of SHA-256 over keys, shapes and values, as float32."""
    digest = hashlib.sha256()
    for key, tensor in tensors.items():
        values = tensor.detach().cpu().float().contiguous()
        digest.update(f"{key} {tuple(values.shape)}\n".encode() + values.numpy().tobytes())
    return digest.hexdigest()[:32]


def call_scale(arguments: Mapping[str, Any]) -> float:
    """What a call of a pipeline multiplies the scales of adapters with: `cross_attention_kwargs={"scale": ...}`."""
    given = (arguments.get(name) for name in ("cross_attention_kwargs", "joint_attention_kwargs", "attention_kwargs"))
    return float(next((one["scale"] for one in given if isinstance(one, Mapping) and "scale" in one), 1.0))


def _scale(layers: list[Any], name: str, factor: float) -> float | list[float] | None:
    scales = {float(layer.scaling[name]) * factor for layer in layers if name in getattr(layer, "scaling", {})}
    if len(scales) > 1:
        return [min(scales), max(scales)]
    return scales.pop() if scales else None
