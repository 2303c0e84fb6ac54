"""How far band energies and radial spectra are from those of the reference pictures.  Plain arrays."""

from __future__ import annotations

import numpy as np

from spectra.analysis.statistics import Array
from spectra.errors import UserError


def log_ratio(energy: Array, reference: Array) -> Array:
    """Log of mean energies (..., k) over those of references, (k,) or (..., k); UserError where one is not above 0."""
    energy, reference = np.asarray(energy, np.float64), np.asarray(reference, np.float64)
    if not ((energy > 0).all() and (reference > 0).all() and np.isfinite(energy).all()):
        raise UserError("log ratios of energies need energies above zero in every band")
    return np.asarray(np.log(energy / reference))


def log_distance(energy: Array, reference: Array) -> Array:
    """Mean over bands (or radii) of `|log ratio|`, (..., k) each -> (...): 0 is a match, 0.69 a factor 2."""
    return np.asarray(np.abs(log_ratio(energy, reference)).mean(-1))


def without_each(means: Array) -> Array:
    """Means over all clusters but one, (clusters, ...) -> (clusters, ...)."""
    return np.asarray((means.sum(0) - means) / (len(means) - 1))
