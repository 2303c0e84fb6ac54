"""FeRA as its authors' code computes it (arXiv 2511.17979): for conformance; the default mode is another one.

Bands are differences of Gaussians of scales kappa 2^i pixels, i < n, with kappa = min(h, w) / 128, sampled at whole
pixels, cut at int(8 scale + 1) | 1 taps and convolved with zeros beyond the border.  Of the n + 1 bands the lowest n
are kept and the top one, which holds most of white noise, is left out.

Beside the arithmetic of the authors this module keeps float32 sums for half-precision latents, and a gradient of zero
where a correction is zero.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectra.dct import constant, full_precision, result_kind
from spectra.errors import UserError

Array = NDArray[np.float64]

REFERENCE = 128
"""Latent pixels along the shorter side at which the finest scale is one pixel."""
SMALLEST = 1e-8
"""What is added to divisors."""


def scales_of(grid: tuple[int, int], num_bands: int) -> tuple[float, ...]:
    """Scales of the Gaussians on a grid (h, w), in latent pixels, ascending."""
    return tuple(min(grid) / REFERENCE * 2**i for i in range(num_bands))


def bands_of(z: Tensor, num_bands: int) -> Tensor:
    """The bands that are kept, low to high: z (batch, channel, [frame], h, w) -> (num_bands, batch, fields, h, w)."""
    if z.ndim not in (4, 5) or num_bands < 1:
        raise UserError(
            f"the published bands are of latents (batch, channel, [frame], height, width) and at least 1 in number, "
            f"got a tensor {tuple(z.shape)} and {num_bands}"
        )
    z = z.to(result_kind(z)).flatten(1, -3)
    levels = [z, *(_blurred(z, scale) for scale in scales_of((z.shape[-2], z.shape[-1]), num_bands))]
    pairs = zip(levels[num_bands:0:-1], levels[num_bands - 1 : 0 : -1], strict=False)
    return torch.stack([levels[-1], *(finer - coarser for coarser, finer in pairs)])


def indicator(z: Tensor, num_bands: int) -> Tensor:
    """Shares of the kept bands in their summed energy: z (batch, channel, [frame], h, w) -> (batch, num_bands)."""
    energy = bands_of(z, num_bands).square().sum((2, 3, 4)).mT
    return energy / (energy.sum(-1, keepdim=True) + SMALLEST)


def consistency_loss(prediction: Tensor, base: Tensor, target: Tensor, num_bands: int, weight: float) -> Tensor:
    """The paper's equation 10, with `weight` multiplied in; all fields are (batch, channel, [frame], h, w).

    With the correction d = prediction - base, the error r = prediction - target and w_k = |r_k|^2 / sum_j |r_j|^2, the
    mean over samples of sum_k w_k (|d_k| / |d| - |r_k| / |r|)^2.  Band sums run over the kept bands, |d| and |r| over
    the whole fields.  Gradient flows through all of it: its size grows as 1 / |d| towards small corrections, and it
    can be lowered by moving the error into the band that is left out.
    """
    correction, error = _ratios(prediction - base, num_bands), _ratios(prediction - target, num_bands)
    energy = bands_of(prediction - target, num_bands).square().sum((2, 3, 4)).mT
    share = energy / (energy.sum(-1, keepdim=True) + SMALLEST)
    loss: Tensor = weight * (share * (correction - error).square()).sum(-1).mean()
    return loss


def _ratios(x: Tensor, num_bands: int) -> Tensor:
    """|x_k| / |x|, (batch, num_bands); `vector_norm` has gradient zero at zero, where a square root has none."""
    whole: Tensor = torch.linalg.vector_norm(x.to(result_kind(x)).flatten(1), dim=1, keepdim=True)
    each: Tensor = torch.linalg.vector_norm(bands_of(x, num_bands).flatten(2), dim=2).mT
    return each / (whole + SMALLEST)


def _blurred(z: Tensor, scale: float) -> Tensor:
    """The convolution as two products: sampled Gaussians are separable, and so are zeros beyond the border."""
    rows, columns = (constant(_toeplitz, (n, scale), z.device, z.dtype) for n in z.shape[-2:])
    with full_precision(z):
        return rows @ z @ columns


def _toeplitz(n: int, scale: float) -> Array:
    """The symmetric matrix (n, n) that convolves n pixels with the sampled Gaussian; float32 taps, as published."""
    reach = (int(8 * scale + 1) | 1) // 2
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / scale) ** 2)
    taps /= taps.sum()
    offset = np.arange(n)[:, None] - np.arange(n) + reach
    inside = (offset >= 0) & (offset <= 2 * reach)
    matrix: Array = np.where(inside, taps[np.clip(offset, 0, 2 * reach)], 0.0)
    return matrix
