"""Where adapters of an evaluation differ: ratios of validation errors per noise level and band, as one family each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from reports import metrics
from reports.evaluated import Evaluation
from reports.statistics import Array, Ratio, corrected


@dataclass(frozen=True)
class Cells:
    """One adapter's validation error over another's, from the noisiest level on; below 1 favours `a`."""

    a: str
    b: str
    levels: tuple[Ratio, ...]
    bands: tuple[tuple[Ratio, ...], ...]
    """(level, band); empty where errors per band were not measured."""


def noisiest_first(found: Evaluation) -> np.ndarray:
    """Places of the levels, from noise to picture."""
    return np.argsort(-found.data.noise_level.values.astype(np.float64), kind="stable")


def noise_levels(found: Evaluation) -> Array:
    """Noise levels from noise to picture."""
    return np.asarray(found.data.noise_level.values.astype(np.float64)[noisiest_first(found)])


def errors(found: Evaluation, label: str) -> Array:
    """Mean validation errors (level,) of a model, the noisiest level first."""
    values = found.data.validation_error.isel(adapter=found.labels.index(label), level=noisiest_first(found))
    return np.asarray(values.mean(("heldout", "draw")).values, np.float64)


def comparable(found: Evaluation, label: str) -> bool:
    """True where every error of a model is there and above zero, so that ratios of them exist."""
    place = found.labels.index(label)
    named = [name for name in ("validation_error", "band_error") if name in found.data]
    values = [found.data[name].isel(adapter=place).values for name in named]
    return bool(values) and all(bool((np.isfinite(v) & (v > 0)).all()) for v in values)


def ratios(grid: xr.Dataset) -> list[Ratio]:
    """The cells of a grid in its own order, each by itself."""
    columns = (grid[name].values.ravel() for name in ("value", "low", "high", "p_value"))
    n, confidence, estimand = int(grid.attrs["n"]), float(grid.attrs["confidence"]), str(grid.attrs["estimand"])
    return [
        Ratio(float(v), float(low), float(high), 1, n, estimand, confidence, float(p))
        for v, low, high, p in zip(*columns, strict=True)
    ]


def compared(found: Evaluation, a: str, b: str) -> Cells:
    """All cells of one pair, each by itself."""
    order = noisiest_first(found)
    levels = level_ratios(found, a, b)
    if "band_error" not in found.data:
        return Cells(a, b, levels, ())
    grid = metrics.validation_grid(found.data, a, b, bands=True).isel(level=order).transpose("level", "band")
    flat, width = ratios(grid), grid.sizes["band"]
    return Cells(a, b, levels, tuple(tuple(flat[i : i + width]) for i in range(0, len(flat), width)))


@dataclass(frozen=True)
class Energies:
    """Band energies of one adapter's pictures over another's, lowest band first."""

    a: str
    b: str
    bands: tuple[Ratio, ...]


def energies_of(found: Evaluation) -> list[Energies]:
    """Adapters in pairs, or the only one against the base, all bands of all pairs as one family."""
    if not len(found.part("asked")):
        return []
    pairs = found.pairs or found.with_base
    each = [ratios(metrics.band_grid(found.data, a, b)) for a, b in pairs]
    adjusted = iter(corrected([ratio for one in each for ratio in one]))
    return [Energies(a, b, tuple(next(adjusted) for _ in one)) for (a, b), one in zip(pairs, each, strict=True)]


def together(found: list[Cells]) -> list[Cells]:
    """The same cells with p corrected over what is shown together: levels of all pairs, and bands of all pairs."""
    levels = iter(corrected([ratio for one in found for ratio in one.levels]))
    bands = iter(corrected([ratio for one in found for line in one.bands for ratio in line]))
    return [
        Cells(
            one.a, one.b, tuple(next(levels) for _ in one.levels),
            tuple(tuple(next(bands) for _ in line) for line in one.bands),
        )
        for one in found
    ]  # fmt: skip


def against_base_cells(found: Evaluation) -> list[Cells]:
    """Every adapter against the base model, all noise levels as one family; empty where no error was measured."""
    if "validation_error" not in found.data:
        return []
    pairs = [(a, b) for a, b in found.with_base if comparable(found, a) and comparable(found, b)]
    return together([Cells(a, b, level_ratios(found, a, b), ()) for a, b in pairs])


def level_ratios(found: Evaluation, a: str, b: str) -> tuple[Ratio, ...]:
    """The ratios of one pair by noise level, each by itself."""
    return tuple(ratios(metrics.validation_grid(found.data, a, b).isel(level=noisiest_first(found))))


def cells_of(found: Evaluation) -> list[Cells]:
    """Adapters in pairs, or the only one against the base; empty where no validation error was measured."""
    if "validation_error" not in found.data:
        return []
    pairs = found.pairs or found.with_base
    return together([compared(found, a, b) for a, b in pairs if comparable(found, a) and comparable(found, b)])
