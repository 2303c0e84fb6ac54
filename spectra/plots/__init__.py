"""Figures of cubes, drawn with matplotlib's own objects: no pyplot, no global state, no display needed."""

from spectra.plots.guidance import guidance
from spectra.plots.heatmap import heatmap
from spectra.plots.multiples import multiples
from spectra.plots.page import overview
from spectra.plots.panels import energy_per_mode
from spectra.plots.style import apart, band_colours, band_labels, save

__all__ = [
    "apart", "band_colours", "band_labels", "energy_per_mode", "guidance", "heatmap", "multiples", "overview", "save",
]  # fmt: skip
