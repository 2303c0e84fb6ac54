"""The orthonormal DCT-II of fields in torch, as products with small matrices: centred, and in full precision.

Mode k of n pixels is a cosine of k / (2 n) cycles per pixel that continues itself symmetrically beyond both
ends.  The matrices need numpy only; torch is imported where tensors appear.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spectra.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Array = NDArray[np.float64]

_FOLD = 56  # pixels per side from which products of half the size pay for sorting the modes by parity
_BLOCK = 1 << 18  # numbers that a processor keeps in its cache; larger batches go through it in turn


def dct_matrix(n: int) -> Array:
    """The orthonormal DCT-II matrix (n, n), rows = modes."""
    angles = np.outer(np.arange(n), 2 * np.arange(n) + 1) % (4 * n)
    rows = np.cos(np.pi * angles / (2 * n)) * math.sqrt(2 / n)
    rows[0] = math.sqrt(1 / n)
    return rows


def coefficients(x: Tensor) -> Tensor:
    """Orthonormal DCT-II coefficients of x (..., h, w), same shape; the squares sum to ||x||^2.

    The mean is taken out before the products and becomes coefficient (0, 0): a digit or more in float32.
    """
    x = as_field(x)
    mean = x.mean((-2, -1), keepdim=True)
    with full_precision(x):
        X = _rows(x) @ ((x - mean) @ _columns(x))
    return _with_mean(X, mean, x)


def from_coefficients(X: Tensor) -> Tensor:
    """The field (..., h, w) whose orthonormal DCT-II coefficients are X (..., h, w), in the type of X."""
    with full_precision(X):
        return _rows(X).mT @ (X @ _columns(X).mT)


def frame_coefficients(x: Tensor) -> Tensor:
    """Orthonormal DCT-II along the frames of x (..., t, h, w), same shape; the mean over frames goes its own way."""
    frames = x.flatten(-2)
    mean = frames.mean(-2, keepdim=True)
    with full_precision(x):
        X = constant(dct_matrix, (x.shape[-3],), x.device, x.dtype) @ (frames - mean)
    X[..., :1, :] = mean * math.sqrt(x.shape[-3])
    return X.view_as(x)


def squared_sums(x: Tensor, weights: Callable[..., Array], *arguments: Any) -> Tensor:
    """`sum W_k X^2` over the squared coefficients of x (..., h, w) with W = weights(h, w, *arguments): (..., k).

    On processors large batches go through in blocks, and large fields folded: the same sums in half the time.
    """
    import torch

    x = as_field(x)
    h, w = x.shape[-2:]
    make = (weights, (h, w, *arguments))
    if x.device.type != "cpu" or x.ndim < 3 or x.numel() < _BLOCK:
        return _plain_sums(x, *make)
    measure = _folded_sums if min(h, w) >= _FOLD else _plain_sums
    blocks = x.reshape(-1, h, w).split(max(_BLOCK // (h * w), 1))
    measured: Tensor = torch.cat([measure(block, *make) for block in blocks])
    return measured.view(*x.shape[:-2], measured.shape[-1])


def _plain_sums(x: Tensor, weights: Callable[..., Array], arguments: tuple[Any, ...]) -> Tensor:
    return sums(coefficients(x).square(), constant(weights, arguments, x.device, x.dtype))


def _folded_sums(x: Tensor, weights: Callable[..., Array], arguments: tuple[Any, ...]) -> Tensor:
    """Even modes see a field plus its mirror image and odd modes the difference: half the products per axis."""
    mean, total = x.mean((-2, -1), keepdim=True), x.new_zeros(())
    for p, half in enumerate(_fold(x - mean, -2)):
        for q, quarter in enumerate(_fold(half, -1)):
            rows, columns = (constant(_parity, at, x.device, x.dtype) for at in ((x.shape[-2], p), (x.shape[-1], q)))
            with full_precision(x):
                X = rows @ (quarter @ columns.mT)
            X = X if p or q else _with_mean(X, mean, x)
            total = total + sums(X.square(), constant(_quarter, (weights, arguments, p, q), x.device, x.dtype))
    return total


def _fold(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The field plus and minus its mirror image, up to the middle; a pixel in the middle meets itself."""
    n = x.shape[axis]
    near, far = x.narrow(axis, 0, n - n // 2), x.narrow(axis, n // 2, n - n // 2).flip(axis)
    return near + far, near - far


def _parity(n: int, parity: int) -> Array:
    """Rows of the DCT-II matrix of one parity, for what `_fold` returns; the pixel in the middle was counted twice."""
    half = dct_matrix(n)[parity::2, : n - n // 2]
    if n % 2:
        half[:, -1] /= 2
    return half


def _quarter(weights: Callable[..., Array], arguments: tuple[Any, ...], p: int, q: int) -> Array:
    quarter: Array = weights(*arguments)[:, p::2, q::2]
    return quarter


def _with_mean(X: Tensor, mean: Tensor, x: Tensor) -> Tensor:
    """Put the mean (..., 1, 1) of x in place of the constant's coefficient; X is fresh and may be changed.

    What the products leave there is no more than their own rounding, several times that of the mean.
    """
    X[..., :1, :1] = mean * math.sqrt(x.shape[-2] * x.shape[-1])
    return X


def _rows(x: Tensor) -> Tensor:
    return constant(dct_matrix, (x.shape[-2],), x.device, x.dtype)


def _columns(x: Tensor) -> Tensor:
    return constant(dct_matrix, (x.shape[-1],), x.device, x.dtype).mT


def sums(x: Tensor, weights: Tensor) -> Tensor:
    """`sum x * weights` over the grid, (..., h, w) and (k, h, w) -> (..., k).

    By rows first: one long sum per band would lose a digit of float32 on 64 x 64 and more on larger grids.
    """
    import torch

    with full_precision(x):
        return torch.einsum("...hw,khw->...kh", x, weights).sum(-1)


@lru_cache(maxsize=256)
def constant(build: Any, arguments: tuple[Any, ...], device: torch.device, kind: torch.dtype) -> Tensor:
    """`build(*arguments)` as a tensor, cached; made outside inference mode, so that it can serve in training later."""
    import torch

    with torch.inference_mode(False):
        return torch.tensor(build(*arguments), dtype=kind, device=device)


def as_field(x: Tensor) -> Tensor:
    """x (..., h, w) in the type of the products; UserError where x is complex, empty or has less than two axes."""
    if x.ndim < 2 or 0 in x.shape[-2:] or x.is_complex():
        raise UserError(f"a field is a real tensor (..., h, w), got {x.dtype} of shape {tuple(x.shape)}")
    return x.to(_working_kind(x))


def result_kind(*fields: Tensor) -> torch.dtype:
    """The type of results: float64 where a field has it, float32 for everything else."""
    import torch

    return torch.float64 if any(x.dtype == torch.float64 for x in fields) else torch.float32


def _working_kind(x: Tensor) -> torch.dtype:
    """The type of products: float64 where a program lets float32 products run in TF32 or bfloat16 (1e-3 per band)."""
    import torch

    reduced = x.device.type != "mps" and torch.get_float32_matmul_precision() != "highest"
    return torch.float64 if reduced else result_kind(x)


def full_precision(x: Tensor) -> AbstractContextManager[None]:
    """Keep autocast away from the products."""
    import torch

    kind = x.device.type
    if not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
        return nullcontext()
    return torch.autocast(kind, enabled=False)
