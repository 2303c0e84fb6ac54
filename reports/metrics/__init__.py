"""How good adapters are, how sure that is, and what could have been seen: metrics on the evaluation Dataset.

    summarise(evaluation)      every measure of every adapter, with its interval
    compare(evaluation)        adapters in pairs: difference or ratio, corrected p, what would have shown, in words
    reasons(evaluation)        which measures are not there, and why
    validation_grid(evaluation, a, b), band_grid(evaluation, a, b)   per noise level and band, one glance
    neighbours(evaluation, network, adapter)   the training picture nearest to each generated one
    measured(evaluation)       all of it at once, for who calls several: the functions above take its result as well

numpy, scipy and xarray only.  Kernels on plain arrays are in `distances`, `vectors` and `spectral`; how numbers get
their intervals is in `quantity`.
"""

from __future__ import annotations

from reports.metrics.comparison import Correction, compare
from reports.metrics.grids import band_grid, validation_grid
from reports.metrics.measured import Measured, measured
from reports.metrics.memorised import neighbours
from reports.metrics.results import Comparison, Measure, Neighbour
from reports.metrics.summary import reasons, summarise
from spectra.analysis.power import chance, detectable, needed, power

__all__ = [
    "Comparison", "Correction", "Measure", "Measured", "Neighbour", "band_grid", "chance", "compare", "detectable",
    "measured", "needed", "neighbours", "power", "reasons", "summarise", "validation_grid",
]  # fmt: skip
