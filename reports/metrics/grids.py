"""Two adapters cell by cell: over noise levels, over bands, over both, with intervals for each cell and for all.

Variables of the results, each over the cells:

    value, low, high      ratio of means, a over b, on the same pictures, noises, prompts and seeds; 1 is no difference
    low_all, high_all     intervals that hold for all cells together, with the same confidence (max t)
    p_value, p_adjusted   of no difference; adjusted for the number of cells (Holm)

Attributes say the estimand, the method, n and the confidence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from reports.metrics.opened import Opened
from reports.metrics.quantity import DRAWS, p_value
from spectra.analysis.labels import described
from spectra.analysis.statistics import (
    Array,
    cluster_means,
    holm,
    mean_interval,
    method_used,
    simultaneous,
    standard_error,
)
from spectra.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import xarray as xr


def validation_grid(
    evaluation: xr.Dataset, a: str, b: str, confidence: float = 0.95, bands: bool = False
) -> xr.Dataset:
    """Validation error of `a` over that of `b` at each noise level, (level,), or in each band of it, (level, band).

    Held-out pictures are the clusters.  Raises UserError where an adapter or its errors are not in the evaluation.
    """
    name, rest = ("band_error", ("level", "band")) if bands else ("validation_error", ("level",))
    opened = Opened(evaluation)
    if name not in evaluation:
        raise UserError(f"this evaluation has no {name}: give held-out pictures (--data) to `adapt evaluate`")
    errors = opened.values(name, "adapter", "heldout", "draw", *rest).mean(2, dtype=np.float64)
    i, j = _row(opened, a), _row(opened, b)
    cells = _ratios(errors[i], errors[j], range(errors.shape[1]), confidence)
    words = f"ratio of mean validation errors over held-out pictures{' in each band' * bands}, {a} over {b}"
    return _labelled(cells, evaluation, rest, words, errors.shape[1], confidence)


def band_grid(evaluation: xr.Dataset, a: str, b: str, confidence: float = 0.95) -> xr.Dataset:
    """Mean band energies of pictures of `a` over those of `b` on asked prompts, (band,); prompts are the clusters."""
    opened = Opened(evaluation)
    if "energy" not in evaluation:
        raise UserError("this evaluation has no band energies")
    group = opened.asked
    energy = opened.values("energy", "adapter", "sample", "channel", "band")[:, group.rows].sum(2, dtype=np.float64)
    i, j = _row(opened, a), _row(opened, b)
    cells = _ratios(energy[i], energy[j], group.labels, confidence)
    words = f"ratio of mean band energies over {group.unit}, {a} over {b}"
    return _labelled(cells, evaluation, ("band",), words, group.clusters, confidence)


def _row(opened: Opened, label: str) -> int:
    if label not in opened.adapters:
        raise UserError(f"no adapter {label!r} in this evaluation: it has {', '.join(opened.adapters)}")
    return opened.adapters.index(label)


def _ratios(a: Array, b: Array, cluster: Sequence[Hashable], confidence: float) -> dict[str, Array]:
    """Ratios of means of positive numbers (member, ...), by their linearised logs."""
    if not (np.isfinite(a) & np.isfinite(b) & (a > 0) & (b > 0)).all():
        raise UserError("ratios need numbers above zero in every cell: an error or an energy is zero or missing")
    first, second = (cluster_means(x, cluster).mean(0) for x in (a, b))
    parts, centre = a / first - b / second, np.log(first / second)
    value, low, high = mean_interval(parts, cluster, confidence, "bootstrap", DRAWS)
    means = cluster_means(parts, cluster)
    reach = np.full_like(value, np.inf)
    if len(means) > 1:
        reach = simultaneous(means.reshape(len(means), -1), confidence) * standard_error(means)
    ends = {"value": value, "low": low, "high": high, "low_all": value - reach, "high_all": value + reach}
    p = p_value(centre, high - value, len(means), confidence)
    return {name: np.exp(centre + end) for name, end in ends.items()} | {"p_value": p, "p_adjusted": holm(p)}


def _labelled(
    cells: dict[str, Array], evaluation: xr.Dataset, dims: tuple[str, ...], words: str, n: int, confidence: float
) -> xr.Dataset:
    import xarray as xr

    coords: dict[Any, Any] = {name: c for name, c in evaluation.coords.items() if c.dims and set(c.dims) <= set(dims)}
    attrs = described(words, method_used(n, "bootstrap", DRAWS, "paired "), n, confidence)
    return xr.Dataset({name: (dims, cell) for name, cell in cells.items()}, coords, attrs)
