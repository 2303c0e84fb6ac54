"""What the fine radial spectrum of a cube says: how fast power falls with frequency, and energies of other bands."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from spectra.analysis.kernels import Array, band_exponents, exponents, fitted_bins, slope_weights
from spectra.analysis.labels import bank_of, described, fields_of, grid_of, prompts_of, select, summed
from spectra.analysis.statistics import Method, mean_interval, method_used
from spectra.bands import FilterBank
from spectra.errors import UserError
from spectra.radial import radial_modes

if TYPE_CHECKING:
    import xarray as xr

LOWEST = 2.0  # radial bins: below, a bin is too wide for a power law to be straight in it
HIGHEST = 0.5  # cycles per latent pixel: above, only the corners of the grid have modes
FIT = ("alpha", "low", "high")
CHECK = ("alpha_bands", "alpha_bands_low", "alpha_bands_high")


def slope(
    cube: xr.Dataset,
    signal: str | None = None,
    *,
    fit_range: tuple[float, float] | None = None,
    confidence: float = 0.95,
    method: Method = "auto",
    n: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    """Spectral exponents alpha, power ~ frequency^-alpha, with intervals over prompts: 0 is white, 2 natural images.

    `alpha`, `low`, `high` (step, signal): a line through log power per mode against log frequency, from the radial
    spectrum, weighted by modes, over `fit_range` in cycles per latent pixel (default: from two bins' widths to 0.5).
    `alpha_bands`, with `_low` and `_high` (step, signal, pair_of_bands): the two-band estimator for each pair of
    neighbouring inner bands, a check that does not rest on the fit; empty with fewer than 4 bands.  Where the two
    differ, power is not a power of frequency.

    Raises UserError where fewer than 3 bins are in the range, or there is no such signal or no complete run.
    """
    import xarray as xr

    one = cube if signal is None else select(cube, signal)
    if not one.sizes["run"]:
        raise UserError("this cube has no complete run to average")
    span, energy = _fit_range(one, fit_range), summed(one.energy).transpose("run", ..., "band")
    alpha = exponents(_power(one), slope_weights(one.sizes["radius"], grid_of(one), *span))
    pairs = band_exponents(energy.values.astype(np.float64), bank_of(one), grid_of(one))
    labels = prompts_of(one)
    data: dict[str, Any] = {}
    for names, values, more in ((FIT, alpha, ()), (CHECK, pairs, ("pair_of_bands",))):
        three = mean_interval(values, labels, confidence, method, n, seed)
        data |= {name: ((*energy.dims[1:-1], *more), part) for name, part in zip(names, three, strict=True)}
    coords = {name: c for name, c in one.coords.items() if set(c.dims) <= {"step", "signal"}}
    coords["pair_of_bands"] = np.array([f"{b}-{b + 1}" for b in range(1, pairs.shape[-1] + 1)], object)
    size = len(set(labels))
    words = "mean over prompts of the exponent alpha of power per mode ~ frequency^-alpha"
    attrs = described(words, method_used(size, method, n), size, confidence, fit_range=list(span))
    return xr.Dataset(data, coords, attrs)


def reband(cube: xr.Dataset, bank: FilterBank) -> xr.Dataset:
    """Energies of another bank's bands, from the recorded spectrum: nothing has to be generated again.

    Variables energy, low, high (run, step, signal, band), channels and frames summed.  `low` and `high` are bounds that
    hold whatever the latents were: within a radial bin, energy may sit on the modes that a band weighs least or most.
    `energy` takes it as spread evenly.  More radial bins and smoother bands give closer bounds.

    Raises UserError where the dataset does not say its grid.
    """
    found = _rebanded(cube, bank)
    bands = {name: ("band", np.array(getattr(bank, name))) for name in ("scale_low", "scale_high", "frequency")}
    kept = {name: value for name, value in cube.attrs.items() if name != "bank"}
    estimand = "energy of a band, channels and frames summed, with the bounds that the radial spectrum allows"
    attrs = {**kept, "bank": json.dumps(bank.to_dict()), "fields": fields_of(cube), "estimand": estimand}
    return found.assign_coords({"band": np.arange(bank.bands), **bands}).assign_attrs(attrs)


def _rebanded(cube: xr.Dataset, bank: FilterBank) -> xr.Dataset:
    """`energy`, `low` and `high` (run, step, signal, band), without labels of the bands; lazy where the cube is."""
    import xarray as xr

    from spectra.reband import reband as bounds

    grid, radius = grid_of(cube), cube.radius.values.astype(np.float64)
    parts = xr.apply_ufunc(
        lambda values: bounds(values.astype(np.float64), radius, grid, bank),
        cube.spectrum.transpose("run", ..., "radius"),
        input_core_dims=[["radius"]], output_core_dims=[["band"]] * 3,
        dask="parallelized", output_dtypes=[np.float64] * 3,
        dask_gufunc_kwargs={"output_sizes": {"band": bank.bands}},
    )  # fmt: skip
    return xr.Dataset(dict(zip(("energy", "low", "high"), parts, strict=True)))


def _power(cube: xr.Dataset) -> Array:
    """Power per mode and field, (run, ..., radius)."""
    modes = np.maximum(radial_modes(cube.sizes["radius"], *grid_of(cube)), 1)
    spectrum = cube.spectrum.transpose("run", ..., "radius").values.astype(np.float64)
    return np.asarray(spectrum / modes / fields_of(cube))


def _fit_range(cube: xr.Dataset, given: tuple[float, float] | None) -> tuple[float, float]:
    """Frequencies between which to fit; UserError with fewer than three bins between them."""
    low, high = given or (LOWEST * 2 * float(cube.radius[0]), HIGHEST)
    bins = int(fitted_bins(cube.sizes["radius"], grid_of(cube), low, high).sum())
    if bins < 3:
        raise UserError(
            f"a slope needs 3 radial bins with modes, and {bins} of this cube are between {low:.3g} and {high:.3g} "
            "cycles per latent pixel: give a wider fit_range, or record with more radial bins"
        )
    return low, high
