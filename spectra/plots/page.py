"""The overview: what one cube shows, on a page."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from spectra.analysis import emergence, prompts_of
from spectra.errors import UserError
from spectra.plots.panels import (
    coherence_panel,
    emergence_panel,
    has_coherence,
    relative_panel,
    shares_panel,
    spectrum_panel,
)
from spectra.plots.spread import ENOUGH
from spectra.plots.style import LEFT, STYLE, headline, of_data, plain

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


def overview(cube: xr.Dataset) -> Figure:
    """What one cube shows, on a page: when bands are decided, what x and x0 are made of, and the radial spectrum.

    Means are over prompts (runs averaged within each), ribbons and bars are 95 % intervals over prompts.  Parts that
    the cube did not record are replaced by a sentence that says so.  With fewer than four prompts each is a thin line
    instead of a ribbon.  Of data under noise: shares, energies over those of white noise, and the radial spectrum.

    Raises UserError where there is no complete run.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    refuse_empty(cube)
    cube = by_picture(cube)
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 8.2), dpi=150)
        headline(figure, _title(cube), subject(cube))
        if of_data(cube):
            _data_page(figure, cube)
            return figure
        heights, edges = (1.0, 0.1 + 0.085 * cube.sizes["band"], 1.0), (LEFT, 0.89, 0.075, 0.855)
        sides = dict(zip(("left", "right", "bottom", "top"), edges, strict=True))
        grid = figure.add_gridspec(3, 2, height_ratios=heights, hspace=0.45, wspace=0.46, **sides)
        decided = figure.add_subplot(grid[0, 0])
        coherence_panel(decided, cube)
        emergence_panel(figure.add_subplot(grid[1, 0], sharex=decided), cube)
        spectrum_panel(figure.add_subplot(grid[:2, 1]), cube)
        shares_panel(figure.add_subplot(grid[2, 0], sharex=decided), cube, "latent")
        shares_panel(figure.add_subplot(grid[2, 1]), cube, "x0")
    return figure


def _data_page(figure: Figure, cube: xr.Dataset) -> None:
    """Nothing is decided in data, and their x0 is the same at all levels: only the latent is drawn."""
    grid = figure.add_gridspec(2, 2, left=LEFT, right=0.89, bottom=0.075, top=0.855, hspace=0.3, wspace=0.46)
    first = figure.add_subplot(grid[0, 0])
    shares_panel(first, cube, "latent")
    relative_panel(figure.add_subplot(grid[1, 0], sharex=first), cube)
    spectrum_panel(figure.add_subplot(grid[:, 1]), cube)


def by_picture(cube: xr.Dataset) -> xr.Dataset:
    """The cube with pictures as its units: of data, those of one caption are told apart, as prompts are elsewhere."""
    if not of_data(cube) or "draw" not in cube.coords:
        return cube
    names = [f"{prompt} #{draw}" for prompt, draw in zip(cube.prompt.values, cube.draw.values, strict=True)]
    return cube.assign_coords(prompt=("run", np.array(names, object)))


def refuse_empty(cube: xr.Dataset) -> None:
    """UserError where there is no complete run."""
    if cube.sizes["run"] == 0:
        raise UserError("this cube has no complete run to draw: probe first")


def _title(cube: xr.Dataset) -> str:
    if of_data(cube):
        return "Frequency bands of the data under noise"
    ordered = has_coherence(cube) and _rises(emergence(cube))
    return "Bands are decided from low to high frequency" if ordered else "Frequency bands during sampling"


def _rises(found: xr.Dataset) -> bool:
    """True where higher bands are decided later: never earlier, most of them later, and the ends beyond doubt."""
    call, apart = np.minimum(found.call.values, 1e9), found.call_low.values[-1] > found.call_high.values[0]
    return bool(apart and (np.diff(call) >= 0).all() and 2 * len(set(call)) > len(call))


def subject(cube: xr.Dataset) -> str:
    """The model and what was sampled, in a line."""
    model = [plain(str(cube.attrs["model"]))] if "model" in cube.attrs else []
    return "  ·  ".join(model + (_about_data(cube) if of_data(cube) else _about_samples(cube)))


def _about_data(cube: xr.Dataset) -> list[str]:
    """Pictures (or clips), how many noises each has, noise levels, and what is averaged."""
    runs, pictures, levels = cube.sizes["run"], len(set(prompts_of(by_picture(cube)))), cube.sizes["step"] - 1
    thing = "clip" if "frame" in cube.sizes else "picture"
    words = [f"{pictures} {thing}{'s' * (pictures > 1)}" + (f", {runs} runs" if runs > pictures else "")]
    words.append(f"{levels} noise level{'s' * (levels > 1)} and the clean data")
    return words + ([_averaged(pictures, thing)] if pictures > 1 else ["mean over runs"] * (runs > 1))


def _about_samples(cube: xr.Dataset) -> list[str]:
    """Runs, prompts, steps, guidance, and what is averaged."""
    runs, prompts = cube.sizes["run"], len(set(prompts_of(cube)))
    words = [f"{runs} runs of {prompts} prompts" if prompts > 1 else f"{runs} run{'s' * (runs > 1)} of one prompt"]
    words.append(_length(cube))
    scales = cube.guidance_scale.values if "guidance_scale" in cube.coords else []
    guidance = sorted({float(g) for g in scales if math.isfinite(g)})
    if guidance:
        words.append("no guidance" if guidance == [1.0] else f"guidance {', '.join(f'{g:g}' for g in guidance)}")
    if prompts == 1:
        return words + ["mean and each run (thin); intervals need more prompts"] * (runs > 1)
    return [*words, _averaged(prompts, "prompt")]


def _averaged(units: int, thing: str) -> str:
    """What lines and what surrounds them are, for more than one prompt or picture."""
    if units >= ENOUGH:
        return f"mean and 95 % interval over {thing}s"
    return f"mean and each {thing} (thin); intervals need more {thing}s"


def _length(cube: xr.Dataset) -> str:
    """Steps, and calls of the scheduler where it makes several a step."""
    steps, calls = len(np.unique(cube.step.values[:-1])), cube.sizes["step"] - 1
    return f"{steps} step{'s' * (steps != 1)}" + (f" ({calls} calls)" if calls > steps else "")
