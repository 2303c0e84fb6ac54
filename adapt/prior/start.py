"""Where the router starts: soft prototypes along the trajectory, fitted by a small network.

With u in (0, 1) the position along the trajectory (0 = noise, 1 = finished), expert m of M is centred at
c_m = (m + 1/2) / M and the intended gates are

    p_m(u) = exp(-(u - c_m)^2 / (2 (overlap / M)^2)) / sum over experts,

so experts part by noise level, the first one at the noisy end, and `overlap` (in units of their distance) says how
softly.  A sharp split starves experts of data; an overlap of one gives every expert a visible part nearly everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adapt.prior.parts import digits

Array = NDArray[np.float64]

MOST_POINTS = 4096  # of the fit; whole runs are left out evenly beyond it
DECAY = 1e-3  # of the fitted weights; less of it fits the recorded latents better and new ones worse


class Fit(NamedTuple):
    """Weights w1 b1 w2 b2 as lists, and the gates that they give, (runs, steps, experts) per trajectory."""

    router: dict[str, Any]
    gates: list[Array]


def soft_prototypes(u: Array, experts: int, overlap: float) -> Array:
    """Intended gates at positions u (...,) in (0, 1) along the trajectory: (..., experts), rows sum to one."""
    centres = (np.arange(experts) + 0.5) / experts
    logits = -0.5 * ((np.asarray(u)[..., None] - centres) * experts / overlap) ** 2
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    gates: Array = weights / weights.sum(-1, keepdims=True)
    return gates


def fit(features: Sequence[Array], intended: Sequence[Array], tau: float, hidden: int, seed: int) -> Fit:
    """Router weights whose gates follow `intended` (steps, experts) on standardised `features` (runs, steps, width).

    Cross-entropy by L-BFGS in float64 from a seeded random start; trajectories count equally, whatever their size.
    """
    import torch

    from adapt.fera import router

    rows = [_thinned(x, MOST_POINTS // len(features)) for x in features]
    x = torch.from_numpy(np.concatenate([some.reshape(-1, some.shape[-1]) for some in rows]))
    p = torch.from_numpy(
        np.concatenate([np.tile(one, (len(some), 1)) for one, some in zip(intended, rows, strict=True)])
    )
    share = torch.from_numpy(
        np.concatenate([np.full(some.shape[0] * some.shape[1], 1 / some[..., 0].size) for some in rows]) / len(rows)
    )
    experts = p.shape[-1]
    start = router.random_start(x.shape[-1], hidden, experts, torch.Generator().manual_seed(seed))
    weights = router.RouterWeights(*(w.double().requires_grad_() for w in start))
    optimizer = torch.optim.LBFGS(list(weights), max_iter=300, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        q = router.gates(x, weights, tau) / experts
        decay = sum((w.square().sum() for w in weights), start=x.new_zeros(()))
        value: torch.Tensor = -(share * (p * q.clamp_min(1e-12).log()).sum(-1)).sum() + DECAY * decay
        value.backward()
        return value

    optimizer.step(loss)
    fixed = router.RouterWeights(*(w.new_tensor(lists(w.tolist())) for w in (w.detach() for w in weights)))
    every = [router.gates(torch.from_numpy(np.ascontiguousarray(x)), fixed, tau) / experts for x in features]
    return Fit({name: lists(value.tolist()) for name, value in fixed._asdict().items()}, [g.numpy() for g in every])


def lists(value: Any) -> Any:
    """Nested lists of numbers, rounded to what float32 holds."""
    return [lists(item) for item in value] if isinstance(value, list) else digits(value)


def _thinned(x: Array, most: int) -> Array:
    """Some of the runs of x (runs, steps, width), evenly, so that at most so many latents are left."""
    runs, steps = x.shape[:2]
    chosen = np.linspace(0, runs - 1, max(1, min(runs, most // steps))).round().astype(int)
    kept: Array = x[np.unique(chosen)]
    return kept
