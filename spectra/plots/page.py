"""The overview: what one cube shows, on a page."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from spectra.analysis import emergence, prompts_of
from spectra.errors import UserError
from spectra.plots.panels import coherence_panel, emergence_panel, has_coherence, shares_panel, spectrum_panel
from spectra.plots.style import LEFT, MUTED, STYLE, plain, text

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


def overview(cube: xr.Dataset) -> Figure:
    """What one cube shows, on a page: when bands are decided, what x and x0 are made of, and the radial spectrum.

    Means are over prompts (runs averaged within each), ribbons and bars are 95 % intervals over prompts.  Parts that
    the cube did not record are replaced by a sentence that says so.

    Raises UserError where there is no complete run.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    if cube.sizes["run"] == 0:
        raise UserError("this cube has no complete run to draw: probe first")
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 8.2), dpi=150)
        heights, edges = (1.0, 0.1 + 0.085 * cube.sizes["band"], 1.0), (LEFT, 0.89, 0.075, 0.855)
        sides = dict(zip(("left", "right", "bottom", "top"), edges, strict=True))
        grid = figure.add_gridspec(3, 2, height_ratios=heights, hspace=0.45, wspace=0.46, **sides)
        decided = figure.add_subplot(grid[0, 0])
        _headline(figure, cube)
        coherence_panel(decided, cube)
        emergence_panel(figure.add_subplot(grid[1, 0], sharex=decided), cube)
        spectrum_panel(figure.add_subplot(grid[:2, 1]), cube)
        shares_panel(figure.add_subplot(grid[2, 0], sharex=decided), cube, "latent")
        shares_panel(figure.add_subplot(grid[2, 1]), cube, "x0")
    return figure


def _headline(figure: Figure, cube: xr.Dataset) -> None:
    ordered = has_coherence(cube) and _rises(emergence(cube))
    title = "Bands are decided from low to high frequency" if ordered else "Frequency bands during sampling"
    text(figure, LEFT, 0.965, title, fontsize=15, fontweight="bold", va="top")
    text(figure, LEFT, 0.925, subject(cube), fontsize=9, color=MUTED, va="top")


def _rises(found: xr.Dataset) -> bool:
    """True where higher bands are decided later: never earlier, most of them later, and the ends beyond doubt."""
    step, apart = np.minimum(found.step.values, 1e9), found.low.values[-1] > found.high.values[0]
    return bool(apart and (np.diff(step) >= 0).all() and 2 * len(set(step)) > len(step))


def subject(cube: xr.Dataset) -> str:
    """The model and what was sampled, in a line."""
    runs, prompts = cube.sizes["run"], len(set(prompts_of(cube)))
    words = [plain(str(cube.attrs["model"]))] if "model" in cube.attrs else []
    words.append(f"{runs} runs of {prompts} prompts" if prompts > 1 else f"{runs} run{'s' * (runs > 1)} of one prompt")
    words.append(f"{cube.sizes['step'] - 1} steps")
    scales = cube.guidance_scale.values if "guidance_scale" in cube.coords else []
    guidance = sorted({float(g) for g in scales if math.isfinite(g)})
    if guidance:
        words.append("no guidance" if guidance == [1.0] else f"guidance {', '.join(f'{g:g}' for g in guidance)}")
    return "  ·  ".join([*words, "mean and 95 % interval over prompts" if prompts > 1 else "mean"])
