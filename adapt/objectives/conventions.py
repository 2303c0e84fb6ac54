"""The convention sheet: every state and every answer of a network in one table, and the way between them.

A noisy state is `x = a x0 + b e` with the picture x0 and white noise e.  The pair (a, b) belongs to a noise level, the
scheduler's `sigma`:

    vp     a = 1 / sqrt(1 + sigma^2)   b = sigma a     alphas_cumprod = a^2; also what Euler's kin give the network
    flow   a = 1 - sigma               b = sigma       rectified flow; papers often write t = 1 - sigma

log-SNR = 2 log(a / b).  What the network is told of the level (`timestep`) is the index into alphas_cumprod, 1000 sigma
for flows, and log(sigma) / 4 for continuous levels (SVD).  What it answers is linear in the pair, `y = p x0 + q e`:

    kind             y                  meaning
    epsilon          e
    sample           x0
    v_prediction     a e - b x0         Salimans and Ho, 2202.00512
    flow_prediction  e - x0             dx/dsigma in diffusers' sign: SD3, FLUX, Wan, Qwen-Image
    velocity         x0 - e             dx/dt with t = 1 - sigma, the sign of Lipman et al., 2210.02747
    score            -e / b             gradient of the log density of x given x0

so a state and an answer of one kind determine the picture and the noise by Cramer's rule, wherever the determinant
a q - b p is not 0 (a for epsilon, -b for sample, a^2 + b^2 for v, a + b for the flow).
Fields are (batch, ...); a and b are (batch,).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from spectra.errors import UserError

Weights = tuple[Tensor, Tensor]
"""Of two fields, (batch,) each: (a, b) of a state, (p, q) of an answer."""

KINDS: dict[str, Callable[[Tensor, Tensor], Weights]] = {
    "epsilon": lambda a, b: (torch.zeros_like(a), torch.ones_like(b)),
    "sample": lambda a, b: (torch.ones_like(a), torch.zeros_like(b)),
    "v_prediction": lambda a, b: (-b, a),
    "flow_prediction": lambda a, b: (-torch.ones_like(a), torch.ones_like(b)),
    "velocity": lambda a, b: (torch.ones_like(a), -torch.ones_like(b)),
    "score": lambda a, b: (torch.zeros_like(a), -b.reciprocal()),
}
"""(a, b) -> (p, q)."""


def preserving(sigma: Tensor) -> Weights:
    """(a, b) of a variance-preserving state; (0, 1) at an infinite sigma."""
    square = sigma.square()
    return (1 + square).rsqrt(), (1 + square.reciprocal()).rsqrt()


def straight(sigma: Tensor) -> Weights:
    """(a, b) of a flow."""
    return 1 - sigma, sigma


def mix(x0: Tensor, noise: Tensor, weights: Weights) -> Tensor:
    """`w0 x0 + w1 noise`, in the precision of the fields."""
    first, second = (weight.to(x0).reshape(-1, *(1,) * (x0.ndim - 1)) for weight in weights)
    return first * x0 + second * noise


def answer(x0: Tensor, noise: Tensor, kind: str, a: Tensor, b: Tensor) -> Tensor:
    """What a network of a kind should answer for a picture and a noise."""
    return mix(x0, noise, _weights(kind, a, b))


def pair(x: Tensor, value: Tensor, kind: str, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """(x0, noise) that a state and an answer imply; not finite where they do not determine them."""
    p, q = _weights(kind, a, b)
    determinant = a * q - b * p
    return mix(x, value, (q / determinant, -b / determinant)), mix(x, value, (-p / determinant, a / determinant))


def convert(x: Tensor, value: Tensor, source: str, target: str, a: Tensor, b: Tensor) -> Tensor:
    """An answer of kind `source` at state `x` as one of kind `target`."""
    return answer(*pair(x, value, source, a, b), target, a, b)


def _weights(kind: str, a: Tensor, b: Tensor) -> Weights:
    if kind not in KINDS:
        raise UserError(f"cannot train a model that predicts {kind!r}; known: {', '.join(KINDS)}")
    return KINDS[kind](a, b)
