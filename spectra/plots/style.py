"""What all figures share: colours, fonts, words on axes, and how a figure reaches the disk.

Bands have one colour each throughout, from dark (low) to light (high): ordered in lightness, so the order survives
colour blindness and grey printing.
"""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spectra.errors import UserError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
Colour = tuple[float, float, float, float]

INK, MUTED, FAINT = "#1c1c1c", "#6b6b6b", "#dcdcdc"
LEFT = 0.065
INCHES_A_LETTER = 0.08  # of 9 points, on average, in a line of words
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 9, "text.color": INK, "figure.facecolor": "white",
    "axes.labelcolor": MUTED, "axes.edgecolor": "#9a9a9a", "axes.linewidth": 0.7, "axes.facecolor": "white",
    "axes.spines.top": False, "axes.spines.right": False, "axes.labelsize": 8.5,
    "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.titlepad": 8,
    "xtick.color": MUTED, "xtick.labelsize": 8, "xtick.major.width": 0.7, "xtick.major.size": 3, "xtick.minor.size": 0,
    "ytick.color": MUTED, "ytick.labelsize": 8, "ytick.major.width": 0.7, "ytick.major.size": 3, "ytick.minor.size": 0,
    "lines.linewidth": 1.9, "lines.solid_capstyle": "round",
}  # fmt: skip


def save(figure: Figure, path: Path | str, dpi: int = 150) -> Path:
    """Write a figure, whole or not at all and with the same bytes each time; the suffix says the format.

    Folders on the way are made.  Raises UserError where the format or the place is not possible.
    """
    from matplotlib import rc_context

    path = Path(path)
    scratch = path.with_name(f".{path.stem}.unfinished{path.suffix}")
    stamps: dict[str, Any] = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with rc_context({"svg.hashsalt": "spectra"}):
            figure.savefig(scratch, dpi=dpi, metadata=stamps.get(path.suffix.lower()))
        scratch.replace(path)
    except ValueError as error:
        raise UserError(f"cannot write the figure {path} ({error}); name it .png, .svg or .pdf") from None
    except OSError as error:
        raise UserError(f"cannot write the figure {path}: {error.strerror or error}; choose another place") from None
    finally:
        with suppress(OSError):
            scratch.unlink()
    return path


def band_colours(bands: int) -> list[Colour]:
    """One colour per band, dark for low frequencies to light for high ones."""
    from matplotlib import colormaps

    return [colormaps["plasma"](v) for v in np.linspace(0.04, 0.8, bands)]


def band_labels(cube: xr.Dataset) -> list[str]:
    """Per band, the range of its Gaussian scales in latent pixels."""
    return [_range(low, high) for low, high in zip(cube.scale_low.values, cube.scale_high.values, strict=True)]


def _range(low: float, high: float) -> str:
    wide, narrow = (f"{round(scale, 2 if scale < 1 else 1):g}" for scale in (low, high))
    if math.isinf(low):
        return f"> {narrow} px" if high else "all"
    return f"{narrow}–{wide} px" if high else f"< {wide} px"


def apart(positions: Array, gap: float, low: float = -math.inf, high: float = math.inf) -> Array:
    """Positions in their order, moved as little as is simple until neighbours are `gap` apart, from `low` to `high`.

    Where there is not room for so many, they are spread evenly.
    """
    order, n = np.argsort(positions, kind="stable"), len(positions)
    gap = min(gap, (high - low) / max(n - 1, 1))
    y = np.asarray(positions, np.float64)[order]
    for _ in range(50):
        short = np.maximum(gap - np.diff(y), 0) / 2
        if not short.any():
            break
        y[:-1] -= short
        y[1:] += short
    for i in range(n):
        y[i] = max(y[i], y[i - 1] + gap if i else low)
    for i in reversed(range(n)):
        y[i] = min(y[i], y[i + 1] - gap if i < n - 1 else high)
    return np.asarray(y[np.argsort(order, kind="stable")])


def say(ax: Axes, words: str) -> None:
    """An empty panel that says why."""
    ax.tick_params(bottom=False, labelbottom=False, left=False, labelleft=False)
    text(ax, 0.5, 0.5, words, transform=ax.transAxes, color=MUTED, ha="center", va="center")


def text(on: Axes | Figure, x: float, y: float, words: str, **style: object) -> None:
    """Text taken literally: a `$` in a name is a dollar sign."""
    on.text(x, y, words, parse_math=False, **style)  # type: ignore[arg-type]


def headline(figure: Figure, title: str, about: str) -> None:
    """The title of a page and a line about it, at the same distances in inches on all pages; a long line is smaller."""
    width, height = (float(side) for side in figure.get_size_inches())
    room = (1 - LEFT) * width - 0.1
    size = min(9.0, 9.0 * room / (INCHES_A_LETTER * max(len(about), 1)))
    text(figure, LEFT, 1 - 0.18 / height, title, fontsize=14, fontweight="bold", va="top")
    text(figure, LEFT, 1 - 0.5 / height, about, fontsize=size, color=MUTED, va="top")


def beside(ax: Axes, y: float, words: str, colour: Colour) -> None:
    """A label right of the axes at height y, in a darker tone of the colour so that thin letters can be read."""
    tone = tuple(0.75 * part for part in colour[:3])
    text(ax, 1.02, y, words, transform=ax.get_yaxis_transform(), color=tone, va="center", fontsize=8)


def plain(name: str, longest: int = 60) -> str:
    """A name that fits on a line: printable, and shortened at its beginning."""
    line = "".join(c if c.isprintable() else " " for c in name)
    return line if len(line) <= longest else "…" + line[1 - longest :]


def of_data(cube: xr.Dataset) -> bool:
    """True for a cube of data under noise: nothing was sampled, its runs are pictures and its steps noise levels."""
    return cube.attrs.get("sampler") == "forward"


def steps_axis(ax: Axes, cube: xr.Dataset, last: int) -> None:
    """Ticks up to a last step that say the step and the noise level there; of data, the noise level alone."""
    every = next(n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500, last) if last / n <= 7)
    at = np.arange(0, last + 1, max(every, 1))
    ax.set_xlim(0, max(last, 1))
    levels = [short(float(cube.noise_level.values[i])) for i in at]
    if of_data(cube):
        ax.set_xticks(at, levels)
        ax.set_xlabel("noise level", labelpad=3)
        return
    ax.set_xticks(at, [f"{cube.step.values[i]}\n{level}" for i, level in zip(at, levels, strict=True)])
    ax.set_xlabel("step, noise level below", labelpad=3)


def short(number: float) -> str:
    """Two digits, or all that are before the point; just below 1, where levels crowd, one more."""
    digits = 3 if 0.95 < number < 1 else 2
    return f"{number:.0f}" if abs(number) >= 10 else f"{number:.{digits}g}"


def decades(ax: Axes, power: Array) -> None:
    """Plain numbers on a logarithmic axis: decades, and 2 and 5 between them where there are few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    few = power.max() / power.min() < 300
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_locator(NullLocator())
