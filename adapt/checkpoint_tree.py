"""The state of a run on disk: a tree of dictionaries, lists, numbers and tensors as JSON and safetensors, no pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from spectra.errors import UserError

TENSORS, NUMBERS = "training.safetensors", "training.json"
_TENSOR, _ITEMS, _TUPLE = "$tensor", "$items", "$tuple"


def save_tree(tree: Any, folder: Path) -> None:
    """Write a tree of dict, list, tuple, str, int, float, bool, None and Tensor; every bit of it comes back."""
    tensors: dict[str, Tensor] = {}
    plain = _flatten(tree, "", tensors)
    save_file(tensors, folder / TENSORS)
    (folder / NUMBERS).write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


def load_tree(folder: Path) -> Any:
    """What `save_tree` wrote, with tensors on the CPU in memory of their own."""
    try:
        plain = json.loads((folder / NUMBERS).read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS)
    except (OSError, ValueError) as error:
        raise UserError(f"the state {folder} cannot be read: {error}") from error
    return _restore(plain, tensors)


def _flatten(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """The value with its tensors replaced by their names, which are their places in the tree."""
    match value:
        case Tensor():
            tensors[path] = value.detach().to("cpu", copy=True).contiguous()
            return {_TENSOR: path}
        case dict():
            pairs = [(key, _flatten(inner, f"{path}/{key}", tensors)) for key, inner in value.items()]
            return {_ITEMS: [list(pair) for pair in pairs]} if _needs_items(value) else dict(pairs)
        case list() | tuple():
            rows = [_flatten(inner, f"{path}/{i}", tensors) for i, inner in enumerate(value)]
            return {_TUPLE: rows} if isinstance(value, tuple) else rows
        case None | bool() | int() | float() | str():
            return value
    raise TypeError(f"{path or 'the tree'} is a {type(value).__name__}, which a checkpoint cannot hold")


def _needs_items(value: dict[Any, Any]) -> bool:
    """True if JSON's objects cannot hold the dictionary: other keys than texts, or names that have a meaning here."""
    return any(not isinstance(key, str) or key in (_TENSOR, _ITEMS, _TUPLE) for key in value)


def _restore(value: Any, tensors: dict[str, Tensor]) -> Any:
    match value:
        case {"$tensor": name}:
            return tensors[name].clone()
        case {"$items": pairs}:
            return {key: _restore(inner, tensors) for key, inner in pairs}
        case {"$tuple": rows}:
            return tuple(_restore(inner, tensors) for inner in rows)
        case dict():
            return {key: _restore(inner, tensors) for key, inner in value.items()}
        case list():
            return [_restore(inner, tensors) for inner in value]
    return value


def copy_into(target: Tensor, value: Tensor) -> None:
    """Copy a whole tensor into one of a model, which may be a shard of it."""
    mesh = getattr(target, "device_mesh", None)
    if mesh is not None:
        from torch.distributed.tensor import distribute_tensor

        value = distribute_tensor(value.to(target.device), mesh, target.placements)  # type: ignore[attr-defined]
    with torch.no_grad():
        target.copy_(value)


def whole(value: Tensor) -> Tensor:
    """The whole tensor of which a process may hold a shard; every process has to call this."""
    gathered: Tensor = value.full_tensor() if hasattr(value, "full_tensor") else value
    return gathered
