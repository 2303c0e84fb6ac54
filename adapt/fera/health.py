"""Whether all experts are in use, over the noise levels: figures, a warning in words, and a term that keeps them so."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectra.errors import UserError

Array = NDArray[np.float64]

DEAD = 0.2
"""An expert is dead whose gate stays below this share of the even one, which is 1, at every noise level."""


class Health(NamedTuple):
    """How gates use the experts.

    `usage` (level, expert): mean gate, 1 where use is even.  `entropy` (level,): mean entropy of a sample's gates, from
    0 (one expert alone) to 1 (all alike; also for a single expert).  `dead`: experts that no level uses.
    """

    usage: Array
    entropy: Array
    dead: tuple[int, ...]

    @property
    def warning(self) -> str:
        """One sentence if experts are dead, else empty."""
        if not self.dead:
            return ""
        numbers = ", ".join(map(str, self.dead))
        which, verb = ("expert", "is") if len(self.dead) == 1 else ("experts", "are")
        return (
            f"{which} {numbers} (of 0 to {self.usage.shape[1] - 1}) {verb} hardly used at any noise level "
            f"(below {DEAD:.0%} of an even share): use fewer experts, a higher "
            "tau, a larger overlap of the prior or a balance_weight"
        )


def usage(gates: Any) -> Health:
    """Health of gates (level, sample, expert), rows of mean one, as arrays or tensors.

    Raises:
        UserError: gates of another shape, not finite, or not of mean one.
    """
    values = np.asarray(gates.detach().cpu() if isinstance(gates, Tensor) else gates, dtype=np.float64)
    if values.ndim != 3 or 0 in values.shape:
        raise UserError(f"gates are (level, sample, expert), got {values.shape}")
    experts = values.shape[2]
    if not np.allclose(values.mean(2), 1, atol=1e-2) or values.min() < 0:
        raise UserError("gates are 0 or more and their mean over the experts is 1 for every sample")
    mean = values.mean(1)
    share = values / experts
    each = -(share * np.log(np.maximum(share, 1e-12))).sum(2).mean(1)
    entropy = each / np.log(experts) if experts > 1 else np.ones(len(values))
    dead = np.flatnonzero((mean < DEAD).all(0))
    return Health(mean, entropy, tuple(int(expert) for expert in dead))


def balance(gates: Tensor, quantile: Tensor) -> Tensor:
    """How unevenly the experts are used over the noise range; a scalar, 0 where it is even, differentiable.

    `gates` (batch, experts) of mean one, `quantile` (batch,) of the noise range in [0, 1].  With u_m the integral of
    g_m over the quantiles, each sample standing for the range that is nearest to it,

        mean over experts of (u_m - 1)^2.

    An expert may have a noise level to itself, as long as each has its part of the range: what is kept even is the
    sum over levels, not the gates of a sample.  A batch has to span the range for that; one sample alone is asked for
    even gates.

    Raises:
        UserError: shapes that do not fit each other.
    """
    if gates.ndim != 2 or quantile.shape != gates.shape[:1]:
        raise UserError(f"gates are (batch, experts) with a quantile each, got {(*gates.shape,)}, {(*quantile.shape,)}")
    share = _ranges(quantile.detach()).to(gates)
    return ((share[:, None] * gates).sum(0) - 1).square().mean()


def _ranges(quantile: Tensor) -> Tensor:
    """The part of [0, 1] that is nearer to each quantile than to the others; equal ones share theirs, (batch,)."""
    place = quantile.double().clamp(0, 1)
    order = place.argsort()
    ordered = place[order]
    middle = (ordered[1:] + ordered[:-1]) / 2
    edges = torch.cat([middle.new_zeros(1), middle, middle.new_ones(1)])
    width = torch.empty_like(place)
    width[order] = edges.diff()
    same = place[:, None] == place
    return (same * width).sum(1) / same.sum(1)
