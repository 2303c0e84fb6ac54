"""How much memory training will take, by parts, counted on a twin of the denoiser that has shapes and no weights.

The twin lives on PyTorch's meta device: one training step is traced through it in moments, however large the model is,
and every tensor that autograd keeps for the backward pass is counted.  What is not counted is passing: workspaces of
kernels, the temporary results of one layer, and the allocator's fragments; they add some 10 to 20 %.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, cast
from unittest import mock

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

MIB = 2**20
STATE_BYTES = {"adamw": 8.0, "adamw8bit": 2.0, "prodigy": 16.0, "sgd": 4.0}
"""Bytes of optimizer state for each trained number; Adafactor's depend on shapes."""


@dataclass(frozen=True)
class Memory:
    """MiB that training takes on the device, by parts."""

    denoiser: float
    """Weights of the denoiser."""
    others: float
    """Text encoders and autoencoder, which stay on the device for validation pictures."""
    adapter: float
    """Trained weights beside these, their average, and on a CPU the copy of weights that are trained in place."""
    gradients: float
    optimizer: float
    activations: float | None
    """What is kept for the backward pass; None where the network could not be traced without its weights."""

    @property
    def total(self) -> float:
        """Sum of the parts that are known."""
        return sum(getattr(self, item.name) or 0.0 for item in fields(self))


def estimate(
    pipe: Any, denoiser: nn.Module, twins: Sequence[nn.Module], activations: int | None, optimizer: str, *,
    ema: bool, in_place: bool = False,
) -> Memory:  # fmt: skip
    """Memory of training.

    Args:
        pipe: the pipeline, opened.
        denoiser: its denoiser without the adapter.
        twins: all networks that learn, with their adapters, on the meta device.
        activations: bytes that one forward pass keeps, see `kept_for_backward`; None where they are not known.
        optimizer: a name of `adapt.optimisers.OPTIMIZERS`.
        ema: whether a moving average of the trained weights is kept.
        in_place: whether the networks' own weights are trained; a copy of them as they were stays on the CPU.
    """
    learned = [p for twin in twins for p in twin.parameters() if p.requires_grad]
    size = sum(map(_bytes, learned))
    networks = [part for part in pipe.components.values() if isinstance(part, nn.Module) and part is not denoiser]
    beside = next(denoiser.parameters()).device.type == "cpu" if in_place else True
    return Memory(
        denoiser=_weights(denoiser) / MIB,
        others=sum(map(_weights, networks)) / MIB,
        adapter=size * (beside + ema) / MIB,
        gradients=size / MIB,
        optimizer=sum(state_bytes(optimizer, p) for p in learned) / MIB,
        activations=None if activations is None else activations / MIB,
    )


def state_bytes(optimizer: str, learned: Tensor) -> float:
    """Bytes that an optimizer keeps for a trained tensor; Adafactor: a number for each row and column of a matrix."""
    if optimizer != "adafactor":
        return learned.numel() * STATE_BYTES[optimizer]
    if learned.ndim < 2:
        return 4.0 * learned.numel()
    return 4.0 * (learned[..., 0].numel() + learned[..., 0, :].numel())


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


def encoder_twin(encoder: Any) -> Any:
    """A text encoder of the same class, configuration and type without weights."""
    with torch.device("meta"):
        return type(encoder)(encoder.config).to(encoder.dtype).requires_grad_(False).train()


def kept_by_encoder(twin: Any, captions: int) -> int:
    """Bytes that a text encoder's twin keeps for the backward pass of so many captions."""
    known = getattr(twin.config, "text_config", twin.config)
    words = torch.zeros(captions, known.max_position_embeddings, dtype=torch.long, device="meta")
    return kept_for_backward(twin, lambda: twin(words, output_hidden_states=True)[0])


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
