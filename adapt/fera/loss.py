"""The frequency-energy consistency loss of FeRA (arXiv 2511.17979, equation 10), in a form that is safe to train."""

from __future__ import annotations

import torch
from torch import Tensor

from spectra.bands import FilterBank

SMOOTH = 1e-5
"""Added under the roots.  Without it a correction of any size pulls with the same force, even the rounding by which two
passes over batches of different size differ."""


def fecl(prediction: Tensor, base: Tensor, target: Tensor, bank: FilterBank, floor: float = 1e-2) -> Tensor:
    """Ask the adapter to spend its correction on the bands in which the error lies.

    With the correction d = prediction - base, the error r = prediction - target, E_k the energy of band k, E their sum
    and w_k = E_k(r) / E(r),

        mean over samples of  sum_k w_k (root(E_k(d) / (E(d) + floor E(r))) - root(w_k))^2,  root(x) = sqrt(x + 1e-5).

    `prediction`, `base`, `target`: (batch, channel, [frame], h, w).  Returns a scalar, to be weighted by the caller.
    It differs from the published loss where that one is unsafe.  The error and the weights carry no gradient, so the
    loss cannot be lowered by reshaping the error's spectrum; the floor bounds the gradient by about
    1 / (sqrt(floor) ||r||) where d is small, at the start of training; what is added under the roots lets it fade where
    d is mere rounding; the shares count all bands and sum to one.  The other form is
    `adapt.fera.published.consistency_loss`.
    """
    correction = _energy(prediction - base.detach(), bank)
    error = _energy((prediction - target).detach(), bank)
    total = error.sum(-1, keepdim=True)
    share = error / _positive(total)
    spent = correction / _positive(correction.sum(-1, keepdim=True) + floor * total)
    return (share * ((spent + SMOOTH).sqrt() - (share + SMOOTH).sqrt()).square()).sum(-1).mean()


def _energy(x: Tensor, bank: FilterBank) -> Tensor:
    """Band energies of each sample, (batch, bands)."""
    return bank.energies(x).flatten(1, -2).sum(1)


def _positive(x: Tensor) -> Tensor:
    return x.clamp_min(torch.finfo(x.dtype).tiny)
