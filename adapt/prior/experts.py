"""How many experts: as many parts of the trajectory as the features tell apart, held out prompt by prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adapt.prior.information import folds_of, log_posterior, log_ratios, part_probability
from adapt.prior.parts import Advice, Array, number
from adapt.trajectory import FEWEST, Trajectory
from spectra.analysis.statistics import cluster_means
from spectra.bands import FilterBank

MOST = 6
HALF = 0.5


def advise(paths: Sequence[Trajectory], positions: Sequence[Array], bank: FilterBank) -> Advice:
    """Advice from log shares in `bank`; `positions` (steps,) from noise 0 to data 1 say which part a step is in."""
    if min(path.runs for path in paths) < FEWEST:
        return Advice((), None)
    posteriors = [log_posterior(log_ratios(path.energy(bank)), folds_of(path.unit)) for path in paths]
    sure = []
    for count in range(1, MOST + 1):
        parts = [np.minimum((u * count).astype(np.int64), count - 1) for u in positions]
        if any(len(np.unique(part)) < count for part in parts):
            break  # a part without a step tells nothing
        found = [part_probability(posterior, part) for posterior, part in zip(posteriors, parts, strict=True)]
        sure.append(number([cluster_means(own, path.unit) for own, path in zip(found, paths, strict=True)]))
    enough = [one.low is not None and one.low > HALF for one in sure]
    return Advice(tuple(sure), max(int(np.logical_and.accumulate(enough).sum()), 1))
