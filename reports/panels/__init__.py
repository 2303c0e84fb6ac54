"""The figures of the report, by what they show; each function takes numbers and gives a `Panel`."""

from reports.panels.errors import learning, learning_ratio, verdict
from reports.panels.experts import FILLED, HEIGHTS, gates, specialisation
from reports.panels.forests import forest, overview
from reports.panels.keys import arm_keys, band_keys, style_key
from reports.panels.levels import level_bands, level_errors, level_ratios, over_levels_marks
from reports.panels.marks import limits_of, limits_of_marks, mark, scales
from reports.panels.measures import nearest, tradeoff
from reports.panels.panel import made
from reports.panels.spectra import band_ratios, over_bands, radial_spectra, spectra
from reports.sections import Panel

__all__ = [
    "FILLED", "HEIGHTS", "Panel", "arm_keys", "band_keys", "band_ratios", "forest", "gates", "learning",
    "learning_ratio", "level_bands", "level_errors", "level_ratios", "limits_of", "limits_of_marks", "made", "mark",
    "nearest", "over_bands", "over_levels_marks", "overview", "radial_spectra", "scales", "specialisation", "spectra",
    "style_key", "tradeoff", "verdict",
]  # fmt: skip
