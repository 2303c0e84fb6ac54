"""How much memory training will take, by parts, counted on a twin of the denoiser that has shapes and no weights.

The twin lives on PyTorch's meta device: one training step is traced through it in moments, however large the model is,
and every tensor that autograd keeps for the backward pass is counted.  What is not counted is passing: workspaces of
kernels, the temporary results of one layer, and the allocator's fragments; they add some 10 to 20 %.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, cast
from unittest import mock

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

MIB = 2**20
STATE_BYTES = {"adamw": 8.0, "adamw8bit": 2.0, "prodigy": 16.0, "adafactor": 0.2, "sgd": 0.0}
"""Bytes of optimizer state for each trained number."""


@dataclass(frozen=True)
class Memory:
    """MiB that training takes on the device, by parts."""

    denoiser: float
    """Frozen weights of the denoiser."""
    others: float
    """Text encoders and autoencoder, which stay on the device for validation pictures."""
    adapter: float
    """Trained weights, in float32, and their moving average if there is one."""
    gradients: float
    optimizer: float
    activations: float | None
    """What is kept for the backward pass; None where the network could not be traced without its weights."""

    @property
    def total(self) -> float:
        """Sum of the parts that are known."""
        return sum(getattr(self, item.name) or 0.0 for item in fields(self))


def estimate(
    pipe: Any, denoiser: nn.Module, twin: nn.Module, activations: int | None, optimizer: str, *, ema: bool
) -> Memory:
    """Memory of training.

    Args:
        pipe: the pipeline, opened.
        denoiser: its denoiser without the adapter.
        twin: the denoiser with the adapter, on the meta device.
        activations: bytes that one forward pass keeps, see `kept_for_backward`; None where they are not known.
        optimizer: a name of `STATE_BYTES`.
        ema: whether a moving average of the trained weights is kept.
    """
    trained = sum(p.numel() for p in twin.parameters() if p.requires_grad)
    networks = [part for part in pipe.components.values() if isinstance(part, nn.Module) and part is not denoiser]
    return Memory(
        denoiser=_weights(denoiser) / MIB,
        others=sum(map(_weights, networks)) / MIB,
        adapter=trained * 4 * (2 if ema else 1) / MIB,
        gradients=trained * 4 / MIB,
        optimizer=trained * STATE_BYTES[optimizer] / MIB,
        activations=None if activations is None else activations / MIB,
    )


def kept_for_backward(model: nn.Module, forward: Callable[[], Tensor]) -> int:
    """Bytes that the graph of `forward()` keeps alive, the model's own weights left out, each tensor once."""
    own = {id(p.untyped_storage()) for p in model.parameters()} | {_identity(p) for p in model.parameters()}
    found: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no identity is used twice

    def note(tensor: Tensor) -> Tensor:
        if _identity(tensor) not in own:
            found[_identity(tensor)] = tensor.untyped_storage().nbytes()
            alive.append(tensor)
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor), _fused_attention():
        result = forward()
    total = sum(found.values())
    del result
    return total


class _Attention(torch.autograd.Function):
    """What a fused attention kernel keeps: its inputs, its output and one number for each query."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = q.new_empty((*q.shape[:-1], v.shape[-1]))
        ctx.save_for_backward(q, k, v, out, q.new_empty(q.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:  # pragma: no cover (shapes have no gradients)
        raise NotImplementedError


@contextmanager
def _fused_attention() -> Iterator[None]:
    """On the meta device PyTorch would unfold attention into its matrices, which no real device keeps."""
    real = nn.functional.scaled_dot_product_attention

    def fused(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not query.is_meta:
            return real(query, key, value, *args, **kwargs)
        out: Tensor = cast(Any, _Attention).apply(query, key, value)
        return out

    with mock.patch.object(nn.functional, "scaled_dot_product_attention", fused):
        yield


def meta_twin(denoiser: Any) -> Any:
    """A network of the same class, configuration and type without weights, frozen and in training mode."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(denoiser.dtype)
    try:
        with torch.device("meta"):
            return type(denoiser).from_config(denoiser.config).requires_grad_(False).train()
    finally:
        torch.set_default_dtype(before)


def checkpointed(model: Any) -> Callable[[], tuple[int, int]]:
    """Let blocks of the model be counted as gradient checkpointing keeps them.

    Returns a function that gives (bytes of all blocks' inputs, most bytes that one block keeps while it is recomputed).
    """
    inputs, most = [0], [0]

    def block(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        inputs[0] += sum(map(_bytes, _tensors([*args, *kwargs.values()])))
        out: list[Any] = []

        def forward() -> Tensor:
            out.append(module.__call__(*args, **kwargs))
            return next(iter(_tensors(out)))

        most[0] = max(most[0], kept_for_backward(module, forward))
        return out[0]

    model.enable_gradient_checkpointing(gradient_checkpointing_func=block)
    return lambda: (inputs[0], most[0])


def to_meta(value: Any) -> Any:
    """Tensors of a structure as shapes."""
    if isinstance(value, Tensor):
        return value.to("meta")
    if isinstance(value, dict):
        return {name: to_meta(one) for name, one in value.items()}
    return value


def _identity(tensor: Tensor) -> int:
    """Of the memory behind a tensor; meta tensors have no address, but views share a storage object."""
    return int(tensor.untyped_storage()._cdata)


def _tensors(values: Iterable[Any]) -> Iterable[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _weights(module: nn.Module) -> float:
    return float(sum(_bytes(p) for p in [*module.parameters(), *module.buffers()]))
