"""Temporal bands of video latents: the algebra of `spectra.bands` along the frame axis.

A filter bank along t frames is the bank of a t x 1 field, so its transfer functions are exact in the DCT-II of frames,
and a temporal and a spatial band together weigh each coefficient by both:

    E[l, b] = sum over f, k, m of  T_l(f)^2 D_b(k, m)^2 X(f, k, m)^2

Frames are latent frames, taken as uniformly spaced in time: scales are in latent frames and frequencies in cycles per
latent frame.  The first latent frame of a causal video autoencoder stands for one picture and every other one for
several (4 in Wan, 8 in LTX), so that frame 0 is no sample of the same series: `skip=1` leaves it out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spectra.bands import Array, FilterBank
from spectra.dct import as_field, constant, frame_coefficients, full_precision, result_kind
from spectra.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def temporal_energies(x: Tensor, time: FilterBank, space: FilterBank, skip: int = 0) -> Tensor:
    """Energies of x (b, c, t, h, w) in each temporal band of `time` and spatial band of `space`: (b, L, K).

    Channels are summed; the first `skip` frames are left out.  Types, precision and gradients are those of
    `FilterBank.energies`.  Raises UserError where x has not five axes or no frame is left.
    """
    import torch

    frames = as_field(_video(x, skip))
    energies = space.energies(frame_coefficients(frames)).to(frames.dtype)
    weights = constant(_squares, (time, energies.shape[-2]), x.device, frames.dtype)
    with full_precision(x):
        return torch.einsum("bctk,lt->blk", energies, weights).to(result_kind(x))


def temporal_white_noise(frames: int, h: int, w: int, time: FilterBank, space: FilterBank) -> Array:
    """Mean energies of one channel of unit white noise, (L, K), for `frames` frames that are not skipped."""
    return np.outer(time.white_noise(frames, 1).mean, space.white_noise(h, w).mean)


def _video(x: Tensor, skip: int) -> Tensor:
    if x.ndim != 5:
        raise UserError(f"a video is a tensor (b, c, t, h, w), got shape {tuple(x.shape)}: use FilterBank.energies")
    if not 0 <= skip < x.shape[2]:
        raise UserError(f"temporal bands of {x.shape[2]} frames cannot leave out {skip}: at least one has to remain")
    return x[:, :, skip:]


def _squares(time: FilterBank, frames: int) -> Array:
    """T_l(f)^2, (L, frames)."""
    squares: Array = time.transfer(frames, 1)[:, :, 0] ** 2
    return squares
