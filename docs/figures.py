"""The figures of the concept pages, made with the library itself.

    python docs/figures.py docs/images

Each function draws one figure; its name is that of the file, `concept-NAME.png`.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from spectra import FilterBank
from spectra.plots.style import FAINT, INK, MUTED, STYLE, band_colours, save
from spectra.zoo.world import scene_at

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
GRID = (16, 16)
"""Latents of the bundled models."""
PICTURES = 16


def new(width: float, height: float, **grid: Any) -> tuple[Figure, Any]:
    """A figure and its axes, in the style of the other figures."""
    from matplotlib import pyplot, rc_context

    with rc_context(STYLE):
        return pyplot.subplots(figsize=(width, height), layout="constrained", **grid)


def one_wide(figure: Figure, axes: Any) -> Any:
    """One panel in place of those of the second row."""
    grid = axes[1, 0].get_gridspec()
    for ax in axes[1]:
        ax.remove()
    return figure.add_subplot(grid[1, :])


def grey(index: int) -> Array:
    """A picture of the bundled world in grey, (64, 64), of mean 0 and variance 1."""
    picture = np.asarray(scene_at(3, index)[1], np.float64).mean(-1)
    return np.asarray((picture - picture.mean()) / picture.std())


def frequencies(n: int) -> Array:
    """Cycles per pixel of the modes of a row of n pixels."""
    return np.arange(n) / (2 * n)


def bands() -> Figure:
    """A picture, its four bands, and the transfer functions that part them."""
    side = 64
    bank = FilterBank.octaves(4, grid=(side, side))
    picture = grey(2)
    parts = bank.split(torch.from_numpy(picture)).numpy()
    figure, axes = new(9.2, 4.0, nrows=2, ncols=5, height_ratios=[1.25, 1])
    for ax, part, title in zip(axes[0], [picture, *parts], ["picture", *_names(bank)], strict=True):
        reach = np.abs(part).max()
        ax.imshow(part, cmap="gray", vmin=-reach, vmax=reach)
        ax.set_title(title, fontsize=9)
        ax.set_axis_off()
    below = one_wide(figure, axes)
    f = frequencies(side)
    for b, colour in enumerate(band_colours(bank.bands)):
        below.plot(f, bank.transfer(side, side)[b, 0], color=colour, label=f"band {b}")
    below.plot(f, bank.transfer(side, side)[:, 0].sum(0), color=MUTED, lw=1, ls=":", label="sum")
    below.set(xlabel="cycles per pixel, along a row", ylabel="transfer", xlim=(0, 0.25), ylim=(0, 1.08))
    below.legend(frameon=False, fontsize=8, ncols=5, loc="center right", bbox_to_anchor=(1, 0.6))
    return figure


def _names(bank: FilterBank) -> list[str]:
    pairs = zip(bank.scale_low, bank.scale_high, strict=True)
    return [f"band {b}: {_range(low, high)} px" for b, (low, high) in enumerate(pairs)]


def _range(low: float, high: float) -> str:
    return f"> {high:g}" if low == math.inf else f"{high:g} to {low:g}" if high else f"< {low:g}"


def signals() -> Figure:
    """A picture at falling noise, and where each band rises out of the noise."""
    picture, noise = grey(2), np.random.default_rng(0).standard_normal((64, 64))
    levels = np.array([-6.0, -3.0, 0.0, 3.0, 6.0])
    figure, axes = new(9.2, 4.4, nrows=2, ncols=5, height_ratios=[1.15, 1])
    for ax, level in zip(axes[0], levels, strict=True):
        a, b = np.sqrt(1 / (1 + np.exp(-level))), np.sqrt(1 / (1 + np.exp(level)))
        ax.imshow(a * picture + b * noise, cmap="gray", vmin=-2.5, vmax=2.5)
        ax.set_title(f"log-SNR {level:+.0f}\na = {a:.2f}, b = {b:.2f}", fontsize=8.5, fontweight="normal")
        ax.set_axis_off()
    _emergence(one_wide(figure, axes))
    return figure


def _emergence(ax: Any) -> None:
    """Share of each band's energy that Wiener's filter sees, by log-SNR, for pictures of the bundled world."""
    bank = FilterBank.octaves(4, grid=(64, 64))
    clean = np.mean([bank.energies(torch.from_numpy(grey(i))).numpy() for i in range(PICTURES)], 0)
    seen, level = clean / bank.white_noise(64, 64).mean, np.linspace(-9, 9, 400)
    for b, colour in enumerate(band_colours(bank.bands)):
        ax.plot(level, 1 / (1 + np.exp(-level - np.log(seen[b]))), color=colour, label=f"band {b}")
        ax.axvline(-np.log(seen[b]), color=colour, lw=0.8, ls=":")
    ax.set(xlabel="log-SNR (noise on the left)", ylabel="share of the band\nthat can be seen", xlim=(-9, 9))
    ax.legend(frameon=False, fontsize=8, loc="lower right")


def measures() -> Figure:
    """What energy and power weigh, and what white noise has in each band on three grids."""
    bank = FilterBank.octaves(4, GRID)
    figure, axes = new(9.2, 2.9, ncols=3)
    f, D = frequencies(GRID[1]), bank.transfer(*GRID)[:, 0]
    for ax, weight, title in ((axes[0], D, "power weighs by D"), (axes[1], D**2, "energy weighs by D²")):
        for b, colour in enumerate(band_colours(bank.bands)):
            ax.plot(f, weight[b], color=colour)
        ax.plot(f, weight.sum(0), color=INK, lw=1.1, ls="--")
        ax.text(0.24, weight.sum(0)[8] + 0.04, "sum of the bands", color=INK, fontsize=8, ha="right", va="bottom")
        ax.set(title=title, xlabel="cycles per latent pixel", ylim=(0, 1.12), xlim=(0, f[-1]))
    wide, greys = 0.26, (FAINT, MUTED, INK)
    for i, side in enumerate((16, 32, 64)):
        energy = FilterBank.octaves(4, (side, side)).white_noise(side, side).mean
        place = np.arange(bank.bands) + (i - 1) * wide
        axes[2].bar(place, energy, wide, color=greys[i], label=f"{side} x {side}")
    axes[2].set(title="energy of white noise", xlabel="band", xticks=range(bank.bands), yscale="log")
    axes[2].legend(frameon=False, fontsize=8)
    return figure


def coherence() -> Figure:
    """The bundled model deciding: coherence with the finished picture, and predicted pictures along one run."""
    from spectra.models import load_pipeline

    pipe, steps = load_pipeline("mini"), 30
    shown = (0, 2, 4, 8, 14, 22, 29)
    predicted, curves = _watched(pipe, steps)
    figure, axes = new(9.2, 4.3, nrows=2, ncols=len(shown), height_ratios=[1, 1.5])
    for ax, step in zip(axes[0], shown, strict=True):
        ax.imshow(predicted[step])
        ax.set_title(f"x0 at step {step}", fontsize=8.5, fontweight="normal")
        ax.set_axis_off()
    below = one_wide(figure, axes)
    for b, colour in enumerate(band_colours(curves.shape[1])):
        below.plot(curves[:, b], color=colour, label=f"band {b}")
    below.axhline(0.8, color=MUTED, lw=0.8, ls=":")
    below.text(steps - 1, 0.77, "decided: 0.8", color=MUTED, fontsize=8, ha="right", va="top")
    below.set(xlabel="step", ylabel="coherence with\nthe finished picture", xlim=(0, steps - 1), ylim=(None, 1.03))
    below.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 0.02))
    return figure


def _watched(pipe: Any, steps: int) -> tuple[list[Array], Array]:
    """Predicted pictures (steps) of one run and its coherence (steps, band)."""
    import spectra

    found: list[torch.Tensor] = []
    step = pipe.scheduler.step

    def generate() -> None:
        pipe("a large red ring on a striped blue background", num_inference_steps=steps, guidance_scale=1.0,
             generator=torch.Generator().manual_seed(2), output_type="latent")  # fmt: skip

    def listen(output: torch.Tensor, timestep: Any, sample: torch.Tensor, **kwargs: Any) -> Any:
        kwargs["return_dict"] = True
        done = step(output, timestep, sample, **kwargs)
        found.append(done.pred_original_sample)
        return (done.prev_sample,)

    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "one.zarr"
        with spectra.record(pipe, store):
            generate()
        curves = spectra.open_cube(store).coherence.isel(run=0, step=slice(-1)).transpose("step", "band").values
        pipe.scheduler.step = listen
        generate()
        del pipe.scheduler.step
    with torch.no_grad():
        decoded = pipe.vae.decode(torch.cat(found) / pipe.vae.config.scaling_factor).sample
    pictures = (decoded.clamp(-1, 1) + 1).mul(0.5).permute(0, 2, 3, 1).numpy()
    return list(pictures), np.asarray(curves, np.float64)


def experts() -> Figure:
    """Where three experts start, by position along the trajectory, for three overlaps."""
    from adapt.prior.start import soft_prototypes

    u = np.linspace(0.001, 0.999, 300)
    figure, axes = new(9.2, 2.7, ncols=3, sharey=True)
    for ax, overlap in zip(axes, (0.5, 1.0, 2.0), strict=True):
        gates = 3 * soft_prototypes(u, 3, overlap)
        for m, colour in enumerate(band_colours(3)):
            ax.plot(u, gates[:, m], color=colour, label=f"expert {m}")
        ax.axhline(1, color=MUTED, lw=0.8, ls=":")
        ax.set(title=f"overlap {overlap:g}", xlabel="from noise (0) to finished (1)", xlim=(0, 1), ylim=(0, 3.05))
    axes[0].set_ylabel("gate")
    axes[2].legend(frameon=False, fontsize=8, loc="upper right")
    axes[2].text(0.5, 0.5, "all gates 1: plain LoRA", color=MUTED, fontsize=8, ha="center", va="top")
    return figure


def grid() -> Figure:
    """A short LoRA training on the validation grid: change of the error in each cell, and its mean by level."""
    import xarray as xr

    import adapt
    from spectra.zoo.tasks import write_task

    with tempfile.TemporaryDirectory() as folder:
        write_task("style", Path(folder) / "pictures")
        out = Path(folder) / "run"
        adapt.train({"model": "mini", "data": f"{folder}/pictures", "out": str(out), "method": "lora", "steps": 40,
                     "batch": 8, "sample_prompts": 1, "sample_steps": 2, "cache": f"{folder}/cache"})  # fmt: skip
        metrics = xr.open_zarr(out / "metrics.zarr", consolidated=False).load()
    error = metrics.validation_error.mean("draw").transpose("eval_step", "level", "sample").values
    change = 100 * (error[-1] / error[0] - 1)
    figure, (left, right) = new(9.2, 3.3, ncols=2, width_ratios=[1.6, 1])
    reach = np.abs(change).max()
    image = left.imshow(change, cmap="PuOr", vmin=-reach, vmax=reach, aspect="auto")
    figure.colorbar(image, ax=left, label="change of the error, %", shrink=0.9)
    left.set(xlabel="held-out picture", ylabel="noise level (0: clean)", title="every cell, before and after")
    left.spines[["left", "bottom"]].set_visible(False)
    _by_level(right, error)
    return figure


def _by_level(ax: Any, error: Array) -> None:
    """Mean change by level with its 95 % interval over pictures (Student's t)."""
    from spectra.analysis.statistics import mean_interval

    mean = mean_interval(100 * (error[-1] / error[0] - 1).T, range(error.shape[2]), 0.95)
    levels = np.arange(error.shape[1])
    ax.errorbar(mean.value, levels, xerr=[mean.value - mean.low, mean.high - mean.value], fmt="o", color=INK,
                ecolor=MUTED, ms=4, capsize=2)  # fmt: skip
    ax.axvline(0, color=MUTED, lw=0.8, ls=":")
    ax.set(xlabel="change of the error, %", title="mean and 95 % interval", yticks=levels)
    ax.invert_yaxis()


FIGURES: dict[str, Callable[[], Figure]] = {
    draw.__name__: draw for draw in (bands, signals, measures, coherence, experts, grid)
}


def main(folder: Path) -> None:
    """Draw all figures into a folder."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, rc_context

    for name, draw in FIGURES.items():
        with rc_context(STYLE):
            figure = draw()
            save(figure, folder / f"concept-{name}.png")
            pyplot.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
