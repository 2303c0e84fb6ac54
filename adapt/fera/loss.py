"""The frequency-energy consistency loss of FeRA (arXiv 2511.17979, equation 10), in a form that is safe to train."""

from __future__ import annotations

import torch
from torch import Tensor

from spectra.bands import FilterBank


def fecl(prediction: Tensor, base: Tensor, target: Tensor, bank: FilterBank, floor: float = 1e-2) -> Tensor:
    """Ask the adapter to spend its correction on the bands in which the error lies.

    With the correction d = prediction - base, the error r = prediction - target, E_k the energy of band k, E their sum
    and w_k = E_k(r) / E(r),

        mean over samples of  sum_k w_k (sqrt(E_k(d) / (E(d) + floor E(r))) - sqrt(w_k))^2.

    `prediction`, `base`, `target`: (batch, channel, [frame], h, w).  Returns a scalar, to be weighted by the caller.
    It differs from the published loss where that one is unsafe.  The error and the weights carry no gradient, so the
    loss cannot be lowered by reshaping the error's spectrum; the floor bounds the gradient by about
    1 / (sqrt(floor) ||r||) where d is small, at the start of training; the norms have gradient zero at zero; the shares
    count all bands and sum to one.  `adapt.fera.published.consistency_loss` is the other form.
    """
    correction = _energy(prediction - base.detach(), bank)
    error = _energy((prediction - target).detach(), bank)
    total = error.sum(-1, keepdim=True)
    share = error / _positive(total)
    spent = correction / _positive(correction.sum(-1, keepdim=True) + floor * total)
    return (share * (_root(spent) - _root(share)).square()).sum(-1).mean()


def _energy(x: Tensor, bank: FilterBank) -> Tensor:
    """Band energies of each sample, (batch, bands)."""
    return bank.energies(x).flatten(1, -2).sum(1)


def _root(x: Tensor) -> Tensor:
    """Square root with gradient zero at zero, where autograd's own is infinite."""
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1.0).sqrt(), 0.0)


def _positive(x: Tensor) -> Tensor:
    return x.clamp_min(torch.finfo(x.dtype).tiny)
